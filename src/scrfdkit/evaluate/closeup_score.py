"""How well faces were found in close-ups: found or not, scores, overlap and landmarks, share by share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from scrfdkit.data.labels import LabelledImage
from scrfdkit.evaluate.closeups import Seen
from scrfdkit.evaluate.landmarks import LandmarkScore, landmark_error
from scrfdkit.evaluate.overlap import as_xywh, best_face, overlaps
from scrfdkit.types import Detections

IOU = 0.5
"""Overlap from which a detection is on the face, with the extra pixel of WIDER FACE's protocol."""


@dataclass(frozen=True)
class ShareScore:
    """Faces that fill one share of their frames.

    faces: so many were looked at. found: part of them with a detection on it of at least the threshold. median_score,
    mean_score: of the best detection on each face, 0 for a face without any. mean_iou: of the faces found, NaN for
    none. landmarks: of the faces found, None where the labels or the network have none.
    """

    share: float
    faces: int
    found: float
    median_score: float
    mean_score: float
    mean_iou: float
    landmarks: LandmarkScore | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON: None for NaN, which JSON has no word for."""
        values = {**asdict(self), "landmarks": self.landmarks.to_dict() if self.landmarks else None}
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


@dataclass(frozen=True)
class CloseUpScore:
    """All shares. baseline: the same faces, small. found: part of all close-ups, the baseline's not among them."""

    found: float
    baseline: ShareScore
    shares: tuple[ShareScore, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        shares = [each.to_dict() for each in self.shares]
        return {"found": self.found, "baseline": self.baseline.to_dict(), "shares": shares}


def score(baseline: Seen, seen: Sequence[Seen], *, score_threshold: float = 0.5) -> CloseUpScore:
    """Scores what `closeups.look` saw: one share as the baseline, and at least one other.

    A detection belongs to the labelled face that it overlaps most, ignored ones included, if their IoU is at least
    0.5; those on other faces than the subject do not matter. score_threshold: from which a face is found.
    """
    shares = tuple(_share(each, score_threshold) for each in seen)
    found = sum(each.found * each.faces for each in shares) / sum(each.faces for each in shares)
    return CloseUpScore(found, _share(baseline, score_threshold), shares)


def _share(seen: Seen, score_threshold: float) -> ShareScore:
    best = [_best(labels, found) for labels, found in zip(seen.labels, seen.detections, strict=True)]
    scores = np.array([score for score, _ in best])
    found = scores >= score_threshold
    ious = np.array([iou for _, iou in best])[found]
    return ShareScore(
        seen.share,
        len(best),
        float(found.mean()),
        float(np.median(scores)),
        float(scores.mean()),
        float(ious.mean()) if len(ious) else math.nan,
        _landmarks(seen, score_threshold),
    )


def _best(labels: LabelledImage, found: Detections) -> tuple[float, float]:
    """Score and IoU of the best detection on the face that counts; zeros for none."""
    boxes, faces = (as_xywh(each.boxes.astype(np.float64)) for each in (found, labels))
    owner = best_face(np.array([len(boxes)]), boxes, np.array([len(faces)]), faces, IOU)
    subject = int(np.flatnonzero(~labels.ignore)[0])
    own = np.flatnonzero(owner == subject)
    if not len(own):
        return 0.0, 0.0
    best = own[np.argmax(found.scores[own])]
    return float(found.scores[best]), float(overlaps(boxes[[best]], faces[[subject]])[0, 0])


def _landmarks(seen: Seen, score_threshold: float) -> LandmarkScore | None:
    labelled = any(each.keypoints is not None and (each.keypoints[:, :, 2] >= 0).any() for each in seen.labels)
    if not labelled or all(found.keypoints is None for found in seen.detections):
        return None
    return landmark_error(seen.labels, seen.detections, score_threshold=score_threshold)
