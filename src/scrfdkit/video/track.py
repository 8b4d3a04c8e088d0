"""Numbers for faces: the same face has the same id in every frame in which it is found."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from scrfdkit.errors import MissingExtraError
from scrfdkit.types import Detections

_MEMORY = 30  # updates without a sighting after which a face that comes back is a new one
_OVERLAP_LOSS = 0.8  # boxes are the same face where 1 - IoU with the predicted box is below this
_MIN_SIDE = 1e-3  # the motion model divides by the height of a box


class Tracker:
    """Gives ids 1, 2, 3 ... in the order in which faces appear. Feed it the frames of one video in order.

    Association is ByteTrack (Zhang et al., ECCV 2022) by `trackforge`. Every face gets an id at its first
    sighting, whatever its score: the detector's threshold has already said what is a face, and a face that is
    left out here would be left uncovered in an anonymised video. Raises MissingExtraError without `trackforge`.
    """

    def __init__(self) -> None:
        try:
            from trackforge import BYTETRACK
        except ImportError as error:
            raise MissingExtraError("tracking faces", "track", "trackforge") from error
        self._tracker: Any = BYTETRACK(
            track_thresh=0.0, track_buffer=_MEMORY, match_thresh=_OVERLAP_LOSS, det_thresh=0.0
        )
        self._ids: dict[int, int] = {}
        self._last = 0

    def update(self, detections: Detections) -> Detections:
        """The same faces in the same order, with ids."""
        corners = detections.boxes.astype(float)
        sides = np.maximum(corners[:, 2:] - corners[:, :2], _MIN_SIDE)
        rows = np.concatenate([corners[:, :2], sides], axis=1).tolist()
        scores = detections.scores.tolist()
        tracks = self._tracker.update([(row, score, 0) for row, score in zip(rows, scores, strict=True)])
        owner = {which: number for number, _, _, _, which in tracks if which is not None}
        ids = [self._id(owner.get(i)) for i in range(len(detections))]
        return replace(detections, ids=np.array(ids, np.int64))

    def _id(self, number: int | None) -> int:
        """Our id for the tracker's number; a face it did not take up gets a fresh one."""
        if number in self._ids:
            return self._ids[number]
        self._last += 1
        if number is not None:
            self._ids[number] = self._last
        return self._last
