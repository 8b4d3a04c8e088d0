"""Which values of a trait go with high scores: the empirical bootstrap of RegNet, which SCRFD's search uses too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scrfdkit.errors import OptionError
from scrfdkit.search.candidate import Outcome
from scrfdkit.search.choice import finished, points

LEAST = 4
"""Finished candidates, below which a range says nothing."""

_NUMBERS_AT_ONCE = 2_000_000  # which bounds the memory


@dataclass(frozen=True)
class Range:
    """Where the best networks lie along a trait: low to high hold it with the confidence asked for, median is the
    middle of all draws, and best the trait of the candidate with the highest score."""

    low: float
    median: float
    high: float
    best: float


def ranges(
    outcomes: Sequence[Outcome],
    *,
    share: float = 0.25,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Range]:
    """The range of every trait that all finished candidates have, in the order of the first one's traits.

    A draw takes `share` of the finished candidates, with replacement, and keeps the traits of its best one; of equal
    scores the one drawn first. The ranges are the middle part of `resamples` such draws (Radosavovic et al., Designing
    Network Design Spaces, 2020, section 3; Guo et al., Sample and Computation Redistribution, 2021).

    Stopped candidates take no part: a score of fewer epochs is lower than what the network is able to, and would only
    tell which rule stopped it. They are hardly missed: a draw of a quarter is won by one of the 15 best in 97.5 % of
    all draws or more, of how many ever, so a halved search gives the same ranges while it stops none of those. For the
    same reason a range of fewer than 15 candidates is about as wide as all of them.

    Raises OptionError for fewer than 4 finished candidates, and for numbers that mean nothing.
    """
    if not (0 < share <= 1 and 0 < confidence < 1 and resamples >= 1):
        raise OptionError(
            f"share {share:g}, confidence {confidence:g}, resamples {resamples}: a share up to 1, a confidence below 1"
            " and at least one draw are needed"
        )
    some = finished(outcomes)
    if len(some) < LEAST:
        raise OptionError(
            f"ranges of traits need {LEAST} finished candidates or more, and there are {len(some)} of {len(outcomes)}:"
            " let more of them finish with `scrfd search run`"
        )
    names = [name for name in some[0].candidate.traits if all(name in one.candidate.traits for one in some)]
    scores = np.array([points(one) for one in some])
    drawn = _winners(scores, max(1, round(share * len(some))), resamples, np.random.default_rng(seed))
    edge = (1 - confidence) / 2
    found = {}
    for name in names:
        values = np.array([one.candidate.traits[name] for one in some], np.float64)
        low, median, high = np.quantile(values[drawn], (edge, 0.5, 1 - edge)).tolist()
        found[name] = Range(low, median, high, float(values[scores.argmax()]))
    return found


def _winners(scores: NDArray[np.float64], size: int, draws: int, random: np.random.Generator) -> NDArray[np.int64]:
    """(draws,) place of the best of each draw of `size` places."""
    rows = max(1, _NUMBERS_AT_ONCE // size)
    parts = []
    for first in range(0, draws, rows):
        places = random.integers(0, len(scores), (min(rows, draws - first), size))
        best = scores[places].argmax(axis=1)
        parts.append(places[np.arange(len(places)), best])
    return np.concatenate(parts)
