"""Which candidate wins: by score, by measured time, or everyone that nobody beats in both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from scrfdkit.errors import OptionError
from scrfdkit.search.candidate import Outcome

Objective = Literal["hard", "latency", "pareto"]
"""hard: the highest score. latency: the fastest of those close to it. pareto: the front of score against time."""


def finished(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """Those that may be compared, in the order given: trained for all their epochs and scored.

    Not the stopped ones: their scores are of fewer epochs, and so lower than what the networks are able to.
    """
    return [one for one in outcomes if one.state == "done" and one.score is not None and math.isfinite(one.score)]


def points(outcome: Outcome) -> float:
    """The score of a finished candidate. Raises ValueError for one without."""
    if outcome.score is None:
        raise ValueError(f"candidate {outcome.candidate.name} has no score")
    return outcome.score


def front(costs: Sequence[float], scores: Sequence[float]) -> list[int]:
    """Places of the points that no other beats: none has at most the cost and at least the score, and one of them
    better. By rising cost, and so by rising score; points that are equal in both stand or fall together.

    Raises ValueError for lists of different lengths.
    """
    if len(costs) != len(scores):
        raise ValueError(f"{len(costs)} costs and {len(scores)} scores")
    kept: list[int] = []
    best = (-math.inf, math.inf)  # score and cost of the last one kept
    for i in sorted(range(len(costs)), key=lambda i: (costs[i], -scores[i], i)):
        if scores[i] > best[0] or (scores[i], costs[i]) == best:
            kept.append(i)
            best = (scores[i], costs[i])
    return kept


def choose(
    outcomes: Sequence[Outcome], milliseconds: Mapping[int, float] | None, objective: Objective, within: float = 1.0
) -> list[Outcome]:
    """The winners among the finished candidates; [] where none has finished.

    milliseconds: a picture, by a candidate's number; only "hard" does without.
    hard: the highest score. latency: the fastest of those whose score is at most `within` points below the highest.
    pareto: the whole front of score against time, highest score first. Equals are told apart by score, then by number.

    Raises OptionError for another objective, for `within` below 0, and where a time is needed that was not measured.
    """
    if objective not in get_args(Objective):
        raise OptionError(f"--objective {objective}: known are {', '.join(get_args(Objective))}")
    if not within >= 0:
        raise OptionError(f"--within {within:g}: points of the score, 0 or more, are needed")
    ranked = sorted(finished(outcomes), key=lambda one: (-points(one), one.candidate.number))
    if objective == "hard" or not ranked:
        return ranked[:1]
    if objective == "latency":
        least = points(ranked[0]) - within
        ranked = [one for one in ranked if points(one) >= least]
    times = _times(ranked, milliseconds or {}, objective)
    if objective == "latency":
        return [min(zip(times, ranked, strict=True), key=lambda pair: pair[0])[1]]
    return [ranked[i] for i in sorted(front(times, [points(one) for one in ranked]))]


def _times(outcomes: Sequence[Outcome], milliseconds: Mapping[int, float], objective: Objective) -> list[float]:
    missing = [one.candidate.name for one in outcomes if one.candidate.number not in milliseconds]
    if missing:
        names = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise OptionError(
            f"--objective {objective}: {len(missing)} of the {len(outcomes)} candidates to choose from have no measured"
            f" latency ({names}): measure with `scrfd search report DIR --latency`, or take --objective hard"
        )
    return [milliseconds[one.candidate.number] for one in outcomes]
