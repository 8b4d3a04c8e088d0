"""Questions coarser than WIDER FACE's: is a face found roughly, are large faces found, is there a face at all."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scrfdkit.evaluate.widerface import Curve, Found, GroundTruth, Matched, curve, prepare

SIZES = (16, 32, 64)
LOOSE = 0.3


@dataclass(frozen=True)
class YesNo:
    """One answer a picture, "it shows a face", given where its best score is at least `threshold`.

    right_yes, missed: pictures with a face; false_alarm, right_no: pictures without. ap: average precision of the
    pictures' best scores, over all thresholds; None where no picture has a face.
    """

    threshold: float
    right_yes: int
    missed: int
    false_alarm: int
    right_no: int
    ap: float | None

    @property
    def accuracy(self) -> float:
        """Share of right answers, 0 where there is no picture."""
        total = self.right_yes + self.missed + self.false_alarm + self.right_no
        return (self.right_yes + self.right_no) / max(total, 1)


def loose(truth: GroundTruth, found: Found, overlap: float = LOOSE) -> dict[str, Curve]:
    """As the official protocol, with a smaller IoU: the face is found, its box need not be exact."""
    matched = prepare(truth, found, overlap)
    return {setting: curve(matched, setting) for setting in truth.counted}


def centre_inside(truth: GroundTruth, found: Found) -> dict[str, Curve]:
    """As the official protocol, but a detection belongs to a face whose box holds its middle, whatever the IoU."""
    matched = prepare(truth, found, None)
    return {setting: curve(matched, setting) for setting in truth.counted}


def at_least(matched: Matched, size: float) -> dict[str, Curve]:
    """As the official protocol, for faces of at least `size` pixels (the root of the area of the labelled box).

    Smaller faces are ignored, and so are smaller detections that lie on no face.
    """
    truth = matched.truth
    large = _side(truth.boxes) >= size
    counted = {setting: mask & large for setting, mask in truth.counted.items()}
    valid = matched.valid & ((matched.face >= 0) | (_side(matched.found.boxes) >= size))
    matched = replace(matched, truth=truth.with_counted(counted), valid=valid)
    return {setting: curve(matched, setting) for setting in counted}


def _side(xywh: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(np.maximum(xywh[:, 2], 0.0) * np.maximum(xywh[:, 3], 0.0)))


def yes_no(truth: GroundTruth, found: Found, setting: str, threshold: float = 0.5) -> YesNo:
    """One answer a picture. A picture counts as one with a face if it has a face that counts in this setting, as one
    without if it has no labelled face at all; those whose faces are all ignored are left out."""
    picture = np.repeat(np.arange(len(truth.counts)), truth.counts)
    has = np.bincount(picture[truth.counted[setting]], minlength=len(truth.counts)) > 0
    best = np.full(len(truth.counts), -np.inf)
    np.maximum.at(best, np.repeat(np.arange(len(found.counts)), found.counts), found.scores.astype(np.float64))
    asked = has | (truth.counts == 0)
    yes = best >= threshold
    return YesNo(
        threshold,
        int((has & yes).sum()),
        int((has & ~yes).sum()),
        int((asked & ~has & yes).sum()),
        int((asked & ~has & ~yes).sum()),
        _ranking(best[asked], has[asked]) if has.any() else None,
    )


def _ranking(score: NDArray[np.float64], good: NDArray[np.bool_]) -> float:
    """Area under the envelope of precision over recall, every distinct score being a threshold."""
    order = np.argsort(-score, kind="stable")
    score, good = score[order], good[order]
    last = np.append(score[1:] != score[:-1], True) & np.isfinite(score)
    right, proposed = np.cumsum(good)[last], np.flatnonzero(last) + 1
    envelope = np.maximum.accumulate((right / proposed)[::-1])[::-1]
    return float(np.sum(np.diff(right, prepend=0) * envelope) / good.sum())
