"""Average precision by WIDER FACE's own protocol, for any detector's results, in a fraction of a second.

Which face a detection belongs to does not depend on the setting (easy, medium, hard), so it is found once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrfdkit.errors import MissingExtraError, ScrfdError
from scrfdkit.evaluate.overlap import best_face

SETTINGS = ("easy", "medium", "hard")
NUM_THRESHOLDS = 1000
OVERLAP = 0.5


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

    def with_counted(self, counted: Mapping[str, NDArray[np.bool_]]) -> GroundTruth:
        """The same faces, with other settings."""
        return GroundTruth(self.images, self.counts, self.boxes, counted)

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

    counts: (I,) detections a picture. boxes: (D, 4) x y w h, finite. scores: (D,), finite, on any scale. Within a
    picture in any order. Raises ValueError where the shapes disagree.
    """

    counts: NDArray[np.int64]
    boxes: NDArray[Any]
    scores: NDArray[Any]

    def __post_init__(self) -> None:
        n = int(self.counts.sum())
        if self.boxes.shape != (n, 4) or self.scores.shape != (n,):
            raise ValueError(f"{n} detections by counts, boxes {self.boxes.shape}, scores {self.scores.shape}")


@dataclass(frozen=True, eq=False)
class Matched:
    """What `average_precision` knows before it looks at a setting; `judge` goes on from here.

    found: by falling scores within each picture. face: (D,) as `match` gives it. level: (D,) the first of the 1,000
    thresholds that a detection reaches. valid: (D,) those of pictures that have a face; the others do not count.
    """

    truth: GroundTruth
    found: Found
    face: NDArray[np.int64]
    level: NDArray[np.int64]
    valid: NDArray[np.bool_]


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
    images, lists = read_lists(folder / "wider_face_val.mat", "face_bbx_list")
    boxes = [np.asarray(box, np.float64).reshape(-1, 4) for box in lists]
    counts = np.array([len(box) for box in boxes])
    every = np.concatenate(boxes)
    if not np.isfinite(every).all():
        raise GroundTruthError(f"{folder / 'wider_face_val.mat'}: holds boxes that are not numbers")
    starts = np.cumsum(counts) - counts
    counted = {}
    for setting in SETTINGS:
        path = folder / f"wider_{setting}_val.mat"
        names, lists = read_lists(path, "gt_list")
        if names != images:
            raise GroundTruthError(f"{path}: its pictures are not those of wider_face_val.mat")
        mask = np.zeros(len(every), bool)
        for start, count, index in zip(starts.tolist(), counts.tolist(), lists, strict=True):
            if index.size and not (index.min() >= 1 and index.max() <= count):
                raise GroundTruthError(f"{path}: names faces that wider_face_val.mat does not have")
            mask[start + index.astype(np.int64) - 1] = True
        counted[setting] = mask
    if (counted["easy"] & ~counted["medium"]).any() or (counted["medium"] & ~counted["hard"]).any():
        raise GroundTruthError(f"{folder}: easy faces must be medium ones too, and these hard; are the files mixed up?")
    return GroundTruth(tuple(images), counts, every, counted)


def read_lists(path: Path, key: str) -> tuple[list[str], list[NDArray[Any]]]:
    """Names ("event/picture") and, for every picture, one array of numbers: the boxes (N, 4) of face_bbx_list, or
    another list of the same file (gt_list, blur_label_list ...), flattened.

    Raises GroundTruthError for a missing or foreign file, MissingExtraError without scipy.
    """
    content = _load(path, ("event_list", "file_list", key))
    images: list[str] = []
    values: list[NDArray[Any]] = []
    try:
        for event, names, lists in zip(content["event_list"], content["file_list"], content[key], strict=True):
            images += [f"{event[0][0]}/{name[0][0]}" for name in names[0]]
            values += [np.asarray(value[0]) for value in lists[0]]
        numbers = all(value.dtype.kind in "iuf" for value in values)
        if key == "face_bbx_list":
            numbers &= all(value.ndim == 2 and value.shape[1] == 4 for value in values)
        if len(images) != len(values) or not images or not numbers:
            raise ValueError
    except (ValueError, IndexError, TypeError, KeyError):
        raise GroundTruthError(f"{path}: {key} is not as in WIDER FACE's eval_tools; fetch the file again") from None
    return images, values if key == "face_bbx_list" else [value.ravel() for value in values]


def _load(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    try:
        from scipy.io import loadmat
    except ImportError:
        raise MissingExtraError("reading WIDER FACE's ground truth", "eval", "scipy") from None
    if not path.is_file():
        raise GroundTruthError(f"{path}: there is no such file; it is part of WIDER FACE's eval_tools")
    try:
        content: dict[str, Any] = loadmat(path, variable_names=keys)
    except Exception as error:  # many kinds, for files that are not MATLAB's
        raise GroundTruthError(f"{path}: cannot be read as a MATLAB file: {error}") from error
    if missing := [key for key in keys if key not in content]:
        raise GroundTruthError(f"{path}: holds no {missing[0]}; it is not a file of WIDER FACE's eval_tools")
    return content


def average_precision(truth: GroundTruth, found: Found) -> dict[str, Curve]:
    """Precision and recall of every setting by the official protocol.

    Scores are normalised over all detections; a detection belongs to the face of its picture that it overlaps most
    (IoU >= 0.5 with one pixel added to widths and heights, the first of equals); the best detection of a face that
    counts is right, those of an ignored face are left out, all others are wrong. Pictures without any face do not
    count at all. AP is the area under the monotone envelope of 1,000 points. Raises ValueError for detections of
    other pictures, or that are not finite.
    """
    matched = prepare(truth, found)
    return {setting: curve(matched, setting) for setting in truth.counted}


def prepare(truth: GroundTruth, found: Found, overlap: float | None = OVERLAP) -> Matched:
    """Everything that all settings share. overlap: as in `match`. Raises ValueError as `average_precision` does."""
    if len(found.counts) != len(truth.images):
        raise ValueError(f"detections of {len(found.counts)} pictures, ground truth of {len(truth.images)}")
    if not (np.isfinite(found.scores).all() and np.isfinite(found.boxes).all()):
        raise ValueError("scores or boxes that are not finite numbers")
    found = _by_score(found)
    valid = np.repeat(truth.counts > 0, found.counts)
    return Matched(truth, found, match(truth, found, overlap), _threshold_index(found.scores), valid)


def judge(matched: Matched, setting: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Indices of the detections that are right, and a mask (D,) of those that are proposed: right or wrong."""
    on_face = np.flatnonzero(matched.face >= 0)
    faces = matched.face[on_face]
    counts = matched.truth.counted[setting][faces]
    proposed = matched.valid.copy()
    proposed[on_face[~counts]] = False
    # Faces are numbered over all pictures and detections fall within each, so the first of a face is its best.
    first = np.full(len(matched.truth.boxes), -1, np.int64)
    first[faces[counts][::-1]] = on_face[counts][::-1]
    return first[first >= 0], proposed


def curve(matched: Matched, setting: str) -> Curve:
    """The curve of one setting."""
    right, proposed = judge(matched, setting)
    hits = _histogram(matched.level[right])
    total = _histogram(matched.level[proposed])
    return Curve(*precision_recall(hits, total, np.array(matched.truth.counted[setting].sum())))


def precision_recall(hits: NDArray[Any], total: NDArray[Any], faces: NDArray[Any]) -> tuple[Any, Any, Any]:
    """AP, precision and recall from counts at each threshold: hits and total (..., 1000), faces (...)."""
    right, proposed = np.cumsum(hits, axis=-1), np.cumsum(total, axis=-1)
    precision = np.divide(right, proposed, out=np.zeros(right.shape), where=proposed > 0)
    recall = right / np.maximum(faces, 1)[..., None]
    area = _area(precision, recall)
    return (area if area.ndim else float(area)), precision, recall


def _histogram(level: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.bincount(level, minlength=NUM_THRESHOLDS + 1)[:NUM_THRESHOLDS]


def _by_score(found: Found) -> Found:
    """Falling scores within each picture, equal ones in their order."""
    picture = np.repeat(np.arange(len(found.counts)), found.counts)
    falling = np.all((found.scores[1:] <= found.scores[:-1]) | (picture[1:] != picture[:-1]))
    if falling:
        return found
    order = np.lexsort((-found.scores.astype(np.float64), picture))
    return Found(found.counts, found.boxes[order], found.scores[order])


def match(truth: GroundTruth, found: Found, overlap: float | None = OVERLAP) -> NDArray[np.int64]:
    """(D,) the face each detection belongs to, an index into `truth.boxes`, or -1: that of the largest IoU, the first
    of equals, if it is at least `overlap`; for None, among the faces whose box holds the detection's middle."""
    return best_face(found.counts, found.boxes, truth.counts, truth.boxes, overlap)


def _threshold_index(scores: NDArray[Any]) -> NDArray[np.int64]:
    """(D,) the first of the 1,000 thresholds that a detection reaches, 1,000 for none."""
    scores = scores.astype(np.float64)
    low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 0.0)
    normalised = (scores - low) / (high - low) if high > low else np.zeros_like(scores)
    rising = (1 - (np.arange(NUM_THRESHOLDS) + 1) / NUM_THRESHOLDS)[::-1]
    reached = np.searchsorted(rising, normalised, side="right")
    return NUM_THRESHOLDS - reached


def _area(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> Any:
    """Area under the envelope: precision made non-increasing from the right, with (0, 0) and (1, 0) at the ends."""
    heights = np.maximum.accumulate(precision[..., ::-1], axis=-1)[..., ::-1]
    return np.sum(np.diff(recall, axis=-1, prepend=0) * heights, axis=-1)
