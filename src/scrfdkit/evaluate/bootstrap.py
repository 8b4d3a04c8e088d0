"""How sure a figure is: AP again and again on pictures drawn at random from those that were measured.

Pictures, not faces, are drawn, with replacement, because the faces of one picture resemble each other. What a picture
contributes at each of the 1,000 thresholds is counted, and a draw is a weight a picture, so that a thousand draws
together are two matrix products. Scores stay normalised by the whole set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scrfdkit.evaluate.widerface import NUM_THRESHOLDS, Matched, judge, precision_recall

_PICTURES_AT_ONCE = 4096
_DRAWS_AT_ONCE = 1000  # which bounds the memory

MOST_DRAWS = 100_000
"""More of them take long, and tell no more."""


@dataclass(frozen=True)
class Interval:
    """A figure and the bounds that hold it with the given confidence."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """How much more AP the first of two runs has on the same pictures, with bounds.

    better: share of the draws in which the first was ahead, ties counted as half.
    """

    value: float
    low: float
    high: float
    better: float

    @property
    def certain(self) -> bool:
        """Whether the bounds leave no doubt which run is ahead."""
        return self.low > 0 or self.high < 0


def resample(runs: Sequence[Matched], setting: str, resamples: int = 1000, seed: int = 0) -> NDArray[np.float64]:
    """(runs, resamples) AP in [0, 1] of every run on the same draws. Raises ValueError for runs on other pictures."""
    if any(run.truth.images != runs[0].truth.images for run in runs):
        raise ValueError("only runs on the same pictures can be compared")
    if not 1 <= resamples <= MOST_DRAWS:
        raise ValueError(f"resamples: {resamples} is not from 1 to {MOST_DRAWS}")
    samples = np.zeros((len(runs), resamples))
    random = np.random.default_rng(seed)
    sides = [judge(run, setting) for run in runs]
    for first in range(0, resamples, _DRAWS_AT_ONCE):
        draws = slice(first, min(first + _DRAWS_AT_ONCE, resamples))
        weights = _draw(len(runs[0].truth.images), draws.stop - first, random)
        for run, (right, proposed), row in zip(runs, sides, samples, strict=True):
            hits = _weighted(run, right, weights)
            total = _weighted(run, np.flatnonzero(proposed), weights)
            picture = np.repeat(np.arange(len(run.truth.counts)), run.truth.counts)
            faces = np.bincount(picture[run.truth.counted[setting]], minlength=len(run.truth.counts))
            row[draws] = precision_recall(hits, total, weights.astype(np.float64) @ faces)[0]
    return samples


def _draw(pictures: int, resamples: int, random: np.random.Generator) -> NDArray[np.float32]:
    """(resamples, pictures) how often each draw has each picture."""
    rows = [np.bincount(random.integers(0, pictures, pictures), minlength=pictures) for _ in range(resamples)]
    return np.array(rows, np.float32).reshape(resamples, pictures)


def _weighted(run: Matched, detections: NDArray[np.int64], weights: NDArray[np.float32]) -> NDArray[np.float64]:
    """(resamples, 1000) detections of every draw at each threshold."""
    level = run.level[detections]
    picture = np.repeat(np.arange(len(run.found.counts)), run.found.counts)[detections]
    reached = level < NUM_THRESHOLDS
    level, picture = level[reached], picture[reached]
    result = np.zeros((len(weights), NUM_THRESHOLDS))
    for first in range(0, weights.shape[1], _PICTURES_AT_ONCE):
        last = min(first + _PICTURES_AT_ONCE, weights.shape[1])
        some = slice(*np.searchsorted(picture, [first, last]))
        cells = (picture[some] - first) * NUM_THRESHOLDS + level[some]
        counts = np.bincount(cells, minlength=(last - first) * NUM_THRESHOLDS).astype(np.float32)
        result += weights[:, first:last] @ counts.reshape(last - first, NUM_THRESHOLDS)
    return result


def interval(value: float, samples: NDArray[np.float64], confidence: float = 0.95) -> Interval:
    """The middle part of the draws. value: the figure on the pictures as they are."""
    low, high = _middle(samples, confidence)
    return Interval(value, low, high)


def compare(
    values: tuple[float, float],
    samples: tuple[NDArray[np.float64], NDArray[np.float64]],
    confidence: float = 0.95,
) -> Difference:
    """First run less second, from AP on the pictures as they are and on the same draws of them."""
    difference = samples[0] - samples[1]
    low, high = _middle(difference, confidence)
    better = float(np.mean(difference > 0) + np.mean(difference == 0) / 2)
    return Difference(values[0] - values[1], low, high, better)


def _middle(samples: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    edge = 50 * (1 - confidence)
    low, high = np.percentile(samples, [edge, 100 - edge]).tolist()
    return low, high
