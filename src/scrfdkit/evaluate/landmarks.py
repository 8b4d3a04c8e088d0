"""Landmark error: how far key points are off, in distances between the eyes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrfdkit.data.labels import LabelledImage
from scrfdkit.errors import ScrfdError
from scrfdkit.evaluate.overlap import as_xywh, best_face
from scrfdkit.types import Detections

FAILURE = 0.1
"""Error from which a face's landmarks count as failed."""

_LEFT_EYE, _RIGHT_EYE = 0, 1


class LandmarkError(ScrfdError):
    """Labels or detections whose landmarks cannot be compared."""


@dataclass(frozen=True)
class LandmarkScore:
    """Normalised mean error (NME) of the faces that were found: mean distance of a face's points from their labels,
    divided by the distance between its labelled eyes.

    mean, median: over the faces. points: the mean of each point by itself. failures: share of the faces with an error
    above 0.1. faces: so many were compared. missed: not found; unusable: an eye is not labelled, or both are in one
    place. All figures are NaN for 0 faces.
    """

    mean: float
    median: float
    points: tuple[float, ...]
    failures: float
    faces: int
    missed: int
    unusable: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON: None for NaN, which JSON has no word for."""

        def plain(value: float) -> float | None:
            return None if math.isnan(value) else value

        values = {k: plain(v) if isinstance(v, float) else v for k, v in asdict(self).items()}
        return {**values, "points": [plain(v) for v in self.points]}


def landmark_error(
    labels: Sequence[LabelledImage], detections: Sequence[Detections], *, score_threshold: float = 0.5
) -> LandmarkScore:
    """Compares every labelled face with the best detection on it (IoU >= 0.5, score >= score_threshold).

    labels and detections: of the same pictures, in the same order. Ignored faces and faces without any labelled
    point are left out; of the others, labelled points count, hidden ones too.
    Raises LandmarkError where neither side has key points or their numbers differ.
    """
    if len(labels) != len(detections):
        raise ValueError(f"labels of {len(labels)} pictures, detections of {len(detections)}")
    errors: list[NDArray[np.float64]] = []
    missed = unusable = 0
    for image, found in zip(labels, detections, strict=True):
        if image.keypoints is None:
            continue
        good = found[np.flatnonzero(found.scores >= score_threshold)].sort()
        _check(image, found)
        for face, best in zip(*_faces(image, good), strict=True):
            error = _normalised(image.keypoints[face].astype(np.float64), good, best)
            if error is None:
                unusable += 1
            elif best < 0:
                missed += 1
            else:
                errors.append(error)
    if not errors and not missed and not unusable:
        raise LandmarkError("no face of these labels has landmarks; labelv2 and COCO files can carry them")
    return _score(errors, missed, unusable)


def _check(image: LabelledImage, found: Detections) -> None:
    assert image.keypoints is not None
    wanted = image.keypoints.shape[1]
    if found.keypoints is None:
        if len(found):
            raise LandmarkError(
                "the detections have no key points; use a network with landmarks, such as scrfd_500m_kps"
            )
    elif found.keypoints.shape[1] != wanted:
        raise LandmarkError(f"{image.path}: has {wanted} points a face, the detections have {found.keypoints.shape[1]}")
    if wanted < 2:
        raise LandmarkError(f"{image.path}: has {wanted} points a face; the first two must be the eyes")


def _faces(image: LabelledImage, found: Detections) -> tuple[list[int], list[int]]:
    """Faces with landmarks, and the best detection on each, -1 for none. found: by falling score."""
    assert image.keypoints is not None
    boxes, labels = (as_xywh(boxes.astype(np.float64)) for boxes in (found.boxes, image.boxes))
    owner = best_face(np.array([len(boxes)]), boxes, np.array([len(labels)]), labels, 0.5)
    faces = np.flatnonzero(~image.ignore & (image.keypoints[:, :, 2] >= 0).any(axis=1))
    best = [next(iter(np.flatnonzero(owner == face).tolist()), -1) for face in faces]
    return faces.tolist(), best


def _normalised(label: NDArray[np.float64], found: Detections, best: int) -> NDArray[np.float64] | None:
    """(K,) error of each point, NaN where it is not labelled; None where the eyes give no distance to divide by."""
    known = label[:, 2] >= 0
    eyes = float(np.hypot(*(label[_LEFT_EYE, :2] - label[_RIGHT_EYE, :2])))
    if not (known[_LEFT_EYE] and known[_RIGHT_EYE] and eyes > 0):
        return None
    if best < 0 or found.keypoints is None:
        return np.full(len(label), np.nan)
    distance = np.hypot(*(found.keypoints[best].astype(np.float64) - label[:, :2]).T)
    return np.where(known, distance / eyes, np.nan)


def _score(errors: Sequence[NDArray[np.float64]], missed: int, unusable: int) -> LandmarkScore:
    if not errors:
        nan = float("nan")
        return LandmarkScore(nan, nan, (), nan, 0, missed, unusable)
    rows = np.array(errors)
    known = ~np.isnan(rows)
    values = np.where(known, rows, 0)
    faces = values.sum(axis=1) / known.sum(axis=1)
    points = np.divide(
        values.sum(axis=0), known.sum(axis=0), out=np.full(rows.shape[1], np.nan), where=known.any(axis=0)
    )
    return LandmarkScore(
        float(faces.mean()),
        float(np.median(faces)),
        tuple(points.tolist()),
        float(np.mean(faces > FAILURE)),
        len(rows),
        missed,
        unusable,
    )
