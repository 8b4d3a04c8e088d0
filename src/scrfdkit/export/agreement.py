"""Do two detectors find the same faces in the same pictures? In the pixels of the pictures, as users see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scrfdkit.detector import Detector
from scrfdkit.image import Source
from scrfdkit.options import AUTO_LONG_SIDE, Size
from scrfdkit.runtime.base import within
from scrfdkit.types import Detections

SCORE = 0.5
_SURE_SCORE = 0.3
"""A face above SCORE with one of them counts as found by the other if it has at least this score there."""
_SAME_FACE = 0.2
"""Two boxes are of one face if no edge is further away than this share of its longer side, and a pixel. Not by overlap:
boxes without an area, which networks find too, have none."""


_MOST_FACES = 1000
"""Of a picture, best first: untrained networks find tens of thousands."""


@dataclass(frozen=True)
class Agreement:
    """pictures: looked at. faces: found by the first in them, with a score of 0.5. missing: of these, not found by the
    second with a score of 0.3 at least; extra: the other way round. boxes, keypoints: largest differences in pixels of
    the pictures, of faces that both found; scores: of their scores.
    """

    pictures: int = 0
    faces: int = 0
    missing: int = 0
    extra: int = 0
    boxes: float = 0.0
    keypoints: float = 0.0
    scores: float = 0.0


def agreement(first: Detector, second: Detector, pictures: Sequence[Source]) -> Agreement:
    """Looks at every picture with both, at the size that one of them is fixed to, or that an engine's range has.
    Raises ImageError."""
    size: Size = first.runtime.input_size or second.runtime.input_size or "auto"
    if hasattr(second.runtime, "size_range"):
        size = within(second.runtime, (AUTO_LONG_SIDE, AUTO_LONG_SIDE))
    found = Agreement()
    for picture in pictures:
        ours, theirs = (d.detect(picture, score_threshold=_SURE_SCORE, input_size=size) for d in (first, second))
        found = _add(found, ours[:_MOST_FACES], theirs[:_MOST_FACES])
    return found


def _add(so_far: Agreement, ours: Detections, theirs: Detections) -> Agreement:
    sure, others = (int((side.scores >= SCORE).sum()) for side in (ours, theirs))
    pairs = _pairs(ours, theirs)
    a, b = ours[pairs[:, 0]], theirs[pairs[:, 1]]
    points = 0.0
    if a.keypoints is not None and b.keypoints is not None:
        points = float(np.abs(a.keypoints - b.keypoints).max(initial=so_far.keypoints))
    return replace(
        so_far,
        pictures=so_far.pictures + 1,
        faces=so_far.faces + sure,
        missing=so_far.missing + sure - int((a.scores >= SCORE).sum()),
        extra=so_far.extra + others - int((b.scores >= SCORE).sum()),
        boxes=float(np.abs(a.boxes - b.boxes).max(initial=so_far.boxes)),
        keypoints=points,
        scores=float(np.abs(a.scores - b.scores).max(initial=so_far.scores)),
    )


def _pairs(ours: Detections, theirs: Detections) -> NDArray[np.intp]:
    """(N, 2) rows of faces that are the same: near, and none is nearer to either."""
    if not len(ours) or not len(theirs):
        return np.empty((0, 2), np.intp)
    away = np.abs(ours.boxes[:, None] - theirs.boxes).max(axis=2)
    nearest = away.argmin(axis=1)
    rows = np.arange(len(ours))
    sides = np.abs(ours.boxes[:, 2:] - ours.boxes[:, :2]).max(axis=1)
    same = (away.argmin(axis=0)[nearest] == rows) & (away[rows, nearest] <= _SAME_FACE * sides + 1)
    pairs: NDArray[np.intp] = np.stack([rows, nearest], axis=1)[same]
    return pairs
