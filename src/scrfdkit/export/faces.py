"""The faces that an end-to-end file puts out: reading them, and holding them against `decode` on the same maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from scrfdkit.decode import Level, decode, suppress
from scrfdkit.export.contract import Contract
from scrfdkit.export.parity import Case, blob_of, cases, difference, largest_gap, levels, pictures, worst
from scrfdkit.runtime.base import Runtime
from scrfdkit.spec import Input
from scrfdkit.types import Detections, Image

_CANDIDATES = 50
"""Rows a picture that pass the threshold of a comparison, so that there is always something to suppress."""


@dataclass(frozen=True, eq=False)
class Faces:
    """Raw outputs of an end-to-end file for B pictures, K faces at most.

    boxes: (B, K, 4) x1 y1 x2 y2 in pixels of the input. scores: (B, K), best first. keypoints: (B, K, P, 2), or None.
    counts: (B,), faces of each picture; what lies behind them is 0.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    keypoints: NDArray[np.float32] | None
    counts: NDArray[np.int64]

    def of(self, index: int) -> Detections:
        """The faces of one picture."""
        n = int(self.counts[index])
        points = None if self.keypoints is None else self.keypoints[index, :n]
        return Detections(self.boxes[index, :n], self.scores[index, :n], points)


class Run(Protocol):
    """(B, H, W, 3) uint8 BGR -> the faces, and whatever else the file puts out.

    Only a probe takes a threshold; what else it puts out are its maps, scores with their sigmoid.
    """

    def __call__(
        self, canvases: Image, score_threshold: float | None = None
    ) -> tuple[Faces, Sequence[NDArray[Any]]]: ...


def compare_faces(reference: Runtime, probe: Run, file: Run, contract: Contract, spec: Input) -> tuple[Case, ...]:
    """Holds an end-to-end file against PyTorch, with the help of its twin that shows the maps inside.

    The twin's maps are compared with those of `reference`; its faces with `decode` and `suppress` on its own maps, so
    that a last bit of a map decides nothing about them; and the faces of `file` with those of the twin. Faces are
    paired by place; another number of them is an infinite difference. Raises ModelError as `parity.compare_heads`.
    """
    found = []
    for size, batch in cases(contract):
        canvases = pictures(size, batch)
        twin, maps = probe(canvases, contract.suppression.score_threshold)
        theirs = levels(maps, size, batch, logits=False)
        threshold = _threshold(theirs, batch)
        faces, same = probe(canvases, threshold)[0], file(canvases)[0]
        gaps = [_gap(same.of(i), twin.of(i)) for i in range(batch)]
        for i in range(batch):
            one = levels([values[i : i + 1] for values in maps], size, 1, logits=False)
            gaps.append(_gap(faces.of(i), _expected(one, threshold, contract)))
        ours = levels(reference.run(blob_of(canvases, spec)), size, batch, logits=True)
        case = difference(ours, theirs)
        found.append(replace(case, width=size[0], height=size[1], batch=batch, faces=worst(gaps)))
    return tuple(found)


def _threshold(of: Sequence[Level], batch: int) -> float:
    """The best score that does not pass any more."""
    scores = np.sort(np.concatenate([level.scores for level in of]))[::-1]
    return float(scores[min(_CANDIDATES * batch, len(scores) - 1)])


def _expected(of: Sequence[Level], threshold: float, contract: Contract) -> Detections:
    rule = contract.suppression
    above = float(np.nextafter(np.float32(threshold), np.float32(1)))  # `decode` keeps equal scores too
    return suppress(decode(of, above), rule.nms_threshold)[: rule.max_faces]


def _gap(found: Detections, wanted: Detections) -> float:
    if len(found) != len(wanted):
        return float("inf")
    if not len(found):
        return 0.0
    away = np.abs(found.boxes[:, None] - wanted.boxes).max(axis=2)
    pairs = away.argmin(axis=1)
    if len(set(pairs.tolist())) < len(found):
        return float("inf")
    gaps = [largest_gap(found.boxes, wanted.boxes[pairs]), largest_gap(found.scores, wanted.scores[pairs])]
    if found.keypoints is not None and wanted.keypoints is not None:
        gaps.append(largest_gap(found.keypoints, wanted.keypoints[pairs]))
    return worst(gaps)
