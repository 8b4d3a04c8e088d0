"""What became of every detection and every face at a score threshold: right, duplicate, badly placed, missed ..."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from scrfdkit.evaluate.overlap import overlaps
from scrfdkit.evaluate.widerface import Found, GroundTruth, Matched, prepare

NEAR = 0.1
"""Overlap (IoU) from which a detection that finds no face is a badly placed box of one, and not background."""


class Kind(IntEnum):
    """What a detection is. Wrong are the last three; ignored ones are neither right nor wrong."""

    BELOW = -1
    RIGHT = 0
    IGNORED = 1
    DUPLICATE = 2
    LOCALISATION = 3
    BACKGROUND = 4


class Fate(IntEnum):
    """What became of a face: found, only a badly placed box on it, or nothing."""

    FOUND = 0
    LOOSE = 1
    MISSED = 2


@dataclass(frozen=True, eq=False)
class Pairing:
    """Detections and the faces they belong to, whatever the threshold and the setting.

    matched: detections by falling score within each picture, and the face of each. picture: (D,) number of the
    picture of each. best: (F,) of each face's detections the one with the highest score, or -1.
    """

    matched: Matched
    picture: NDArray[np.int64]
    best: NDArray[np.int64]

    @property
    def truth(self) -> GroundTruth:
        """The faces."""
        return self.matched.truth

    @property
    def found(self) -> Found:
        """The detections."""
        return self.matched.found

    def best_score(self) -> NDArray[np.float64]:
        """(F,) the highest score that found each face, -inf where none did."""
        scores = np.append(self.found.scores.astype(np.float64), -np.inf)
        return scores[self.best]


@dataclass(frozen=True, eq=False)
class Verdict:
    """threshold: of the score. kind: (D,) of each detection. fate: (F,) of each face, counted or not.

    precision, recall, f1: of the faces that count, at this threshold; 0 where there is nothing to divide by.
    """

    threshold: float
    kind: NDArray[np.int64]
    fate: NDArray[np.int64]
    precision: float
    recall: float
    f1: float


def pair(truth: GroundTruth, found: Found) -> Pairing:
    """Finds the face of each detection. Raises ValueError as `average_precision` does."""
    matched = prepare(truth, found)
    best = np.full(len(truth.boxes), -1, np.int64)
    rows = np.flatnonzero(matched.face >= 0)[::-1]  # backwards, so that the first of a face is written last and stays
    best[matched.face[rows]] = rows
    return Pairing(matched, np.repeat(np.arange(len(found.counts)), found.counts), best)


def sort_out(pairing: Pairing, counted: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(D,) kinds without regard to a threshold: right, ignored, duplicate, or background for all that find no face.

    Exactly as the protocol does: wrong are those that lower the precision.
    """
    kind = np.full(len(pairing.matched.face), int(Kind.BACKGROUND), np.int64)
    kind[pairing.truth.counts[pairing.picture] == 0] = Kind.IGNORED
    on_face = np.flatnonzero(pairing.matched.face >= 0)
    face = pairing.matched.face[on_face]
    first = pairing.best[face] == on_face
    kind[on_face] = np.where(~counted[face], Kind.IGNORED, np.where(first, Kind.RIGHT, Kind.DUPLICATE))
    return kind


def best_threshold(pairing: Pairing, kind: NDArray[np.int64], num_counted: int) -> float:
    """The score at which F1 is largest, the higher of equals; 0.5 where nothing was detected that counts.

    kind: of `sort_out`.
    """
    used = np.flatnonzero(kind != Kind.IGNORED)
    if not len(used):
        return 0.5
    scores = pairing.found.scores[used]
    order = np.argsort(-scores.astype(np.float64), kind="stable")
    scores, right = scores[order], np.cumsum(kind[used][order] == Kind.RIGHT)
    f1 = 2 * right / (np.arange(1, len(right) + 1) + num_counted)
    last_of_equals = np.append(scores[1:] != scores[:-1], True)
    return float(scores[int(np.argmax(np.where(last_of_equals, f1, -1.0)))])


def judge(pairing: Pairing, counted: NDArray[np.bool_], threshold: float | None = None) -> Verdict:
    """Sorts detections and faces at a score threshold, by default the one of `best_threshold`.

    A detection is right if it is the best of a face that counts (IoU >= 0.5), a duplicate if a better one is on that
    face, ignored on a face that does not count; of the others it is a localisation error if it overlaps a face that
    nobody found by 0.1 or more, and else background. A face is loose if nothing but such errors are on it.
    """
    kind = sort_out(pairing, counted)
    num_counted = int(counted.sum())
    if threshold is None:
        threshold = best_threshold(pairing, kind, num_counted)
    kind[pairing.found.scores < threshold] = Kind.BELOW
    fate = np.where(pairing.best_score() >= threshold, Fate.FOUND, Fate.MISSED).astype(np.int64)
    _localise(pairing, kind, fate)
    right = int((kind == Kind.RIGHT).sum())
    wrong = int((kind >= Kind.DUPLICATE).sum())
    precision, recall = right / max(right + wrong, 1), right / max(num_counted, 1)
    f1 = 2 * right / max(right + wrong + num_counted, 1)
    return Verdict(threshold, kind, fate, precision, recall, f1)


def _localise(pairing: Pairing, kind: NDArray[np.int64], fate: NDArray[np.int64]) -> None:
    """Marks, in both arrays, boxes that miss a face by little. Only pictures with both are looked at."""
    stray, open_faces = np.flatnonzero(kind == Kind.BACKGROUND), np.flatnonzero(fate != Fate.FOUND)
    picture_of_face = np.repeat(np.arange(len(pairing.truth.counts)), pairing.truth.counts)
    stray_in, open_in = pairing.picture[stray], picture_of_face[open_faces]
    for picture in np.intersect1d(stray_in, open_in):
        rows = stray[slice(*np.searchsorted(stray_in, [picture, picture + 1]))]
        faces = open_faces[slice(*np.searchsorted(open_in, [picture, picture + 1]))]
        overlap = overlaps(pairing.found.boxes[rows], pairing.truth.boxes[faces])
        near = overlap.argmax(axis=1)
        good = overlap[np.arange(len(rows)), near] >= NEAR
        kind[rows[good]] = Kind.LOCALISATION
        fate[faces[near[good]]] = Fate.LOOSE
