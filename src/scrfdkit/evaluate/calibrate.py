"""Which score threshold gives the precision or the recall that is asked for."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrfdkit.errors import ScrfdError
from scrfdkit.evaluate.widerface import Matched, judge


class CalibrationError(ScrfdError):
    """A precision or recall that no threshold reaches: the message says what the best is."""


@dataclass(frozen=True)
class Point:
    """Keeping scores from `score_threshold` on gives this precision and recall."""

    score_threshold: float
    precision: float
    recall: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Sweep:
    """Precision and recall at every score that occurs, from the highest down: three arrays of one length.

    Unlike the curves of `average_precision`, at the scores themselves, not at 1,000 places of their range.
    """

    score_threshold: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]

    def point(self, index: int) -> Point:
        """One of them."""
        return Point(*(float(array[index]) for array in (self.score_threshold, self.precision, self.recall)))


def sweep(matched: Matched, setting: str) -> Sweep:
    """Everything about thresholds that a data set can tell; detections on ignored faces are left out."""
    right, proposed = judge(matched, setting)
    good = np.zeros(len(proposed), bool)
    good[right] = True
    rows = np.flatnonzero(proposed)
    scores = matched.found.scores[rows].astype(np.float64)
    order = np.argsort(-scores, kind="stable")
    scores, good = scores[order], good[rows[order]]
    last = np.append(scores[1:] != scores[:-1], True)[: len(scores)]
    hits = np.cumsum(good)[last]
    faces = max(int(matched.truth.counted[setting].sum()), 1)
    return Sweep(scores[last], hits / (np.flatnonzero(last) + 1), hits / faces)


def for_precision(thresholds: Sweep, precision: float) -> Point:
    """The lowest threshold, and so the highest recall, with at least this precision. Raises CalibrationError."""
    enough = np.flatnonzero((thresholds.precision >= precision) & (thresholds.recall > 0))
    if len(enough):
        return thresholds.point(int(enough[-1]))
    if not len(thresholds.precision):
        raise CalibrationError("there is no detection to calibrate on")
    best = thresholds.point(int(np.argmax(thresholds.precision)))
    raise CalibrationError(
        f"no threshold gives a precision of {precision:.4g}; the best is {best.precision:.4f}"
        f" at {best.score_threshold:.4f}. Look at the false alarms: faces without label count as such"
    )


def for_recall(thresholds: Sweep, recall: float) -> Point:
    """The highest threshold, and so the best precision, with at least this recall. Raises CalibrationError."""
    enough = np.flatnonzero(thresholds.recall >= recall)
    if len(enough):
        return thresholds.point(int(enough[0]))
    best = float(thresholds.recall[-1]) if len(thresholds.recall) else 0.0
    raise CalibrationError(
        f"no threshold gives a recall of {recall:.4g}; all detections together find {best:.4f} of the faces"
    )
