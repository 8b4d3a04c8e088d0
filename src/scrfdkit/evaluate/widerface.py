"""Average precision by WIDER FACE's own protocol, for any detector's results, in a fraction of a second.

Which face a detection belongs to does not depend on the setting (easy, medium, hard), and only a face whose box holds
the middle of the detection can overlap it by half. So the pairs that matter are found once, by comparing middles, and
the exact overlap is computed for those alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrfdkit.errors import MissingExtraError, ScrfdError

SETTINGS = ("easy", "medium", "hard")
NUM_THRESHOLDS = 1000
_OVERLAP = 0.5
_AT_ONCE = 1 << 20  # pairs compared in one go, so that they stay in the processor's cache


class GroundTruthError(ScrfdError):
    """Ground-truth files that are missing or not WIDER FACE's."""


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """The faces of a set of pictures.

    images: names, "event/picture" without suffix. counts: (I,) faces a picture. boxes: (F, 4) float64 x y w h of all
    faces, picture after picture. counted: for every setting a (F,) mask of the faces that count; the others are
    ignored, neither right nor wrong.
    """

    images: tuple[str, ...]
    counts: NDArray[np.int64]
    boxes: NDArray[np.float64]
    counted: Mapping[str, NDArray[np.bool_]]

    def select(self, images: Sequence[str]) -> GroundTruth:
        """Some of the pictures, in the order given. Raises GroundTruthError for one that is not here."""
        place = {name: i for i, name in enumerate(self.images)}
        missing = [name for name in images if name not in place]
        if missing:
            raise GroundTruthError(f"{len(missing)} pictures are not in the ground truth, {missing[0]} for one")
        starts = np.concatenate([[0], np.cumsum(self.counts)])
        chosen = [place[name] for name in images]
        faces = np.concatenate([np.arange(starts[i], starts[i + 1]) for i in chosen] or [np.zeros(0, np.int64)])
        masks = {setting: mask[faces] for setting, mask in self.counted.items()}
        return GroundTruth(tuple(images), self.counts[chosen], self.boxes[faces], masks)


@dataclass(frozen=True, eq=False)
class Found:
    """The detections of a set of pictures, in the order of `GroundTruth.images`.

    counts: (I,) detections a picture. boxes: (D, 4) x y w h. scores: (D,). Within a picture in any order.
    """

    counts: NDArray[np.int64]
    boxes: NDArray[Any]
    scores: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Curve:
    """ap: in [0, 1]. precision, recall: (1000,) at the normalised score thresholds 0.999, 0.998 ... 0."""

    ap: float
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]


def read_ground_truth(folder: Path) -> GroundTruth:
    """Reads wider_face_val.mat and wider_{easy,medium,hard}_val.mat.

    Raises GroundTruthError for a missing or foreign file, MissingExtraError without scipy.
    """
    faces = _load(folder / "wider_face_val.mat", "face_bbx_list")
    images, counts, boxes = [], [], []
    for event, names, lists in zip(faces["event_list"], faces["file_list"], faces["face_bbx_list"], strict=True):
        for name, box in zip(names[0], lists[0], strict=True):
            images.append(f"{event[0][0]}/{name[0][0]}")
            boxes.append(np.asarray(box[0], np.float64).reshape(-1, 4))
            counts.append(len(boxes[-1]))
    starts = np.concatenate([[0], np.cumsum(counts)])
    counted = {}
    for setting in SETTINGS:
        lists = _load(folder / f"wider_{setting}_val.mat", "gt_list")["gt_list"]
        mask = np.zeros(starts[-1], bool)
        chosen = [np.asarray(index[0], np.int64).ravel() for event in lists for index in event[0]]
        if len(chosen) != len(images):
            raise GroundTruthError(f"wider_{setting}_val.mat: {len(chosen)} pictures instead of {len(images)}")
        for start, index in zip(starts, chosen, strict=False):
            mask[start + index - 1] = True
        counted[setting] = mask
    return GroundTruth(tuple(images), np.array(counts), np.concatenate(boxes), counted)


def _load(path: Path, key: str) -> dict[str, Any]:
    try:
        from scipy.io import loadmat
    except ImportError:
        raise MissingExtraError("reading WIDER FACE's ground truth", "eval", "scipy") from None
    if not path.is_file():
        raise GroundTruthError(f"{path}: there is no such file; it is part of WIDER FACE's eval_tools")
    try:
        content: dict[str, Any] = loadmat(path)
    except Exception as error:
        raise GroundTruthError(f"{path}: cannot be read as a MATLAB file: {error}") from error
    if key not in content:
        raise GroundTruthError(f"{path}: holds no {key}; it is not a file of WIDER FACE's eval_tools")
    return content


def average_precision(truth: GroundTruth, found: Found) -> dict[str, Curve]:
    """Precision and recall of every setting by the official protocol.

    Scores are normalised over all detections; a detection belongs to the face of its picture that it overlaps most
    (IoU >= 0.5 with one pixel added to widths and heights, the first of equals); the best detection of a face that
    counts is right, those of an ignored face are left out, all others are wrong. Pictures without any face do not
    count at all. AP is the area under the monotone envelope of 1,000 points.
    """
    if len(found.counts) != len(truth.images):
        raise ValueError(f"detections of {len(found.counts)} pictures, ground truth of {len(truth.images)}")
    found = _by_score(found)
    face = match(truth, found)
    level = _threshold_index(found.scores)
    with_faces = np.repeat(truth.counts > 0, found.counts)
    return {setting: _curve(face, level, mask, with_faces) for setting, mask in truth.counted.items()}


def _by_score(found: Found) -> Found:
    """Falling scores within each picture, equal ones in their order."""
    picture = np.repeat(np.arange(len(found.counts)), found.counts)
    falling = np.all((found.scores[1:] <= found.scores[:-1]) | (picture[1:] != picture[:-1]))
    if falling:
        return found
    order = np.lexsort((-found.scores.astype(np.float64), picture))
    return Found(found.counts, found.boxes[order], found.scores[order])


def match(truth: GroundTruth, found: Found) -> NDArray[np.int64]:
    """(D,) the face each detection belongs to, an index into `truth.boxes`, or -1 where none overlaps by half."""
    face = np.full(len(found.scores), -1, np.int64)
    detection, ground = _boxes(found.boxes), _boxes(truth.boxes)
    middle = _middles(detection)
    reach = (_middles(ground), ((ground[:, 2:] - ground[:, :2]) / 2 + 0.01).astype(np.float32).T.copy())
    pairs: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
    last_det = last_face = 0
    for num_det, num_faces in zip(found.counts.tolist(), truth.counts.tolist(), strict=True):
        step = max(1, _AT_ONCE // max(num_faces, 1))
        faces = slice(last_face, last_face + num_faces)
        for start in range(last_det, last_det + num_det if num_faces else last_det, step):
            some = slice(start, min(start + step, last_det + num_det))
            near = np.abs(middle[0, some, None] - reach[0][0, None, faces]) <= reach[1][0, None, faces]
            near &= np.abs(middle[1, some, None] - reach[0][1, None, faces]) <= reach[1][1, None, faces]
            which = np.flatnonzero(near)
            pairs.append((which // num_faces + start, which % num_faces + last_face))
        last_det += num_det
        last_face += num_faces
    if pairs:
        _assign(face, detection, ground, *(np.concatenate(side) for side in zip(*pairs, strict=True)))
    return face


def _assign(
    face: NDArray[np.int64],
    detection: NDArray[np.float64],
    ground: NDArray[np.float64],
    rows: NDArray[np.intp],
    columns: NDArray[np.intp],
) -> None:
    """Exact overlaps of the pairs, which come by detection, then face; the first of the largest wins."""
    a, b = detection[rows], ground[columns]
    shared = np.maximum(0, np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0]))
    shared *= np.maximum(0, np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1]))
    area_a, area_b = ((c[:, 2] - c[:, 0]) * (c[:, 3] - c[:, 1]) for c in (a, b))
    overlap = shared / (area_a + area_b - shared)
    good = overlap >= _OVERLAP
    rows, columns, overlap = rows[good], columns[good], overlap[good]
    # Written from the last to the first and from the worst to the best, so that what stays is the first best.
    order = np.lexsort((-columns, overlap))
    face[rows[order]] = columns[order]


def _boxes(xywh: NDArray[Any]) -> NDArray[np.float64]:
    """Corners with the protocol's extra pixel."""
    xywh = xywh.astype(np.float64)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:] + 1], axis=1)


def _middles(boxes: NDArray[np.float64]) -> NDArray[np.float32]:
    return ((boxes[:, :2] + boxes[:, 2:]) / 2).astype(np.float32).T.copy()


def _threshold_index(scores: NDArray[Any]) -> NDArray[np.int64]:
    """(D,) the first of the 1,000 thresholds that a detection reaches, 1,000 for none."""
    scores = scores.astype(np.float64)
    low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 0.0)
    normalised = (scores - low) / (high - low) if high > low else np.zeros_like(scores)
    rising = (1 - (np.arange(NUM_THRESHOLDS) + 1) / NUM_THRESHOLDS)[::-1]
    reached = np.searchsorted(rising, normalised, side="right")
    return NUM_THRESHOLDS - reached


def _curve(
    face: NDArray[np.int64], level: NDArray[np.int64], counted: NDArray[np.bool_], valid: NDArray[np.bool_]
) -> Curve:
    on_face = face >= 0
    counts = np.zeros(len(face), bool)
    counts[on_face] = counted[face[on_face]]
    proposed = valid & (counts | ~on_face)
    # Faces are numbered over all pictures and detections fall within each, so the first of a face is its best.
    candidates = np.flatnonzero(counts)
    _, first = np.unique(face[candidates], return_index=True)
    right = np.cumsum(np.bincount(level[candidates[first]], minlength=NUM_THRESHOLDS + 1)[:NUM_THRESHOLDS])
    total = np.cumsum(np.bincount(level[proposed], minlength=NUM_THRESHOLDS + 1)[:NUM_THRESHOLDS])
    precision = np.divide(right, total, out=np.zeros(NUM_THRESHOLDS), where=total > 0)
    recall = right / max(int(counted.sum()), 1)
    return Curve(_area(precision, recall), precision, recall)


def _area(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> float:
    """Area under the envelope: precision made non-increasing from the right, with (0, 0) and (1, 0) at the ends."""
    heights = np.maximum.accumulate(np.concatenate([[0.0], precision, [0.0]])[::-1])[::-1]
    widths = np.diff(np.concatenate([[0.0], recall, [1.0]]))
    return float(np.sum(widths * heights[1:]))
