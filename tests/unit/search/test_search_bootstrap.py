"""Ranges of traits: a planted best value is found, and the draws have the distribution that they must have."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from made_outcomes import candidate, done, planted

from scrfdkit.errors import OptionError
from scrfdkit.search.bootstrap import Range, ranges
from scrfdkit.search.candidate import Outcome
from scrfdkit.search.choice import points


@pytest.mark.parametrize("best", [0.15, 0.5, 0.8])
@pytest.mark.parametrize("count", [64, 320])
def test_planted_best_is_found(best: float, count: int) -> None:
    found = ranges(planted(count, best))
    near, other = found["near"], found["other"]
    assert near.low <= best <= near.high
    assert near.high - near.low < 0.4
    assert abs(near.median - best) < 0.1
    assert other.high - other.low > 0.6, "a trait without effect keeps most of what was tried"


def test_draws_have_the_distribution_of_the_best_of_k() -> None:
    """The best of k draws with replacement from n is below rank r with probability ((n - r) / n) ** k."""
    some = planted(64, 0.4)
    found = ranges(some, resamples=20_000)["other"]
    ranked = sorted(some, key=points)
    n, k = len(ranked), 16
    weights = [((r + 1) / n) ** k - (r / n) ** k for r in range(n)]
    values = np.array([one.candidate.traits["other"] for one in ranked])
    assert math.isclose(sum(weights), 1)
    for value, share in ((found.low, 0.025), (found.median, 0.5), (found.high, 0.975)):
        below = float(np.sum(weights, where=values < value - 1e-9))
        up_to = float(np.sum(weights, where=values <= value + 1e-9))
        assert below - 0.015 <= share <= up_to + 0.015


@pytest.mark.parametrize("count", [64, 320, 1000])
def test_fifteen_best_win_nearly_all_draws(count: int) -> None:
    """However many candidates there are; the trait is the place from the top."""
    found = ranges([done(i, 90 - 0.01 * i, {"place": float(i)}) for i in range(1, count + 1)])["place"]
    assert found.low == 1
    assert 10 < found.high <= 16


def test_best_is_the_trait_of_the_highest_score() -> None:
    some = planted(20, 0.5)
    assert ranges(some)["near"].best == max(some, key=points).candidate.traits["near"]


def test_same_seed_same_ranges() -> None:
    some = planted(40, 0.3)
    assert ranges(some, seed=3) == ranges(some, seed=3)
    assert ranges(some, seed=3, resamples=50) != ranges(some, seed=4, resamples=50)


def test_equal_scores_share_the_draws() -> None:
    some = [done(i, 50.0, {"x": float(i)}) for i in range(1, 102)]
    found = ranges(some)["x"]
    assert found.low < 8
    assert 45 < found.median < 57
    assert found.high > 94


def test_whole_share_and_many_draws_in_parts() -> None:
    """A draw of 300 places, 10,000 times, is more than is drawn at once."""
    found = ranges(planted(300, 0.5, noise=0), share=1.0)["near"]
    assert abs(found.median - 0.5) < 0.01


def test_only_finished_ones_take_part() -> None:
    some = planted(30, 0.5)
    outlier = {"near": 99.0, "other": 99.0}
    others = [
        Outcome(candidate(101, outlier), "stopped", 20, 1, {"hard": 99.0}, 99.0),
        Outcome(candidate(102, outlier), "running", 20, 1),
        Outcome(candidate(103, outlier), "failed", error="no memory"),
        Outcome(candidate(104, outlier)),
        replace(done(105, 1.0, outlier), score=None),
        done(106, math.nan, outlier),
    ]
    assert ranges([*some, *others]) == ranges(some)


def test_traits_that_only_some_have_are_left_out() -> None:
    some = planted(10, 0.5)
    some[3] = done(4, 60.0, {"near": 0.1})
    assert list(ranges(some)) == ["near"]


def test_one_value_for_all() -> None:
    some = [done(i, 50.0 + i, {"x": 0.25}) for i in range(4)]
    assert ranges(some) == {"x": Range(0.25, 0.25, 0.25, 0.25)}


def test_too_few_are_told() -> None:
    some = [*planted(3, 0.5), Outcome(candidate(4)), Outcome(candidate(5))]
    with pytest.raises(OptionError, match=r"4 finished candidates or more, and there are 3 of 5: .*scrfd search run"):
        ranges(some)


@pytest.mark.parametrize(
    "options", [{"share": 0.0}, {"share": 1.5}, {"confidence": 1.0}, {"confidence": 0.0}, {"resamples": 0}]
)
def test_numbers_that_mean_nothing(options: dict[str, float]) -> None:
    with pytest.raises(OptionError, match="are needed"):
        ranges(planted(10, 0.5), **options)  # type: ignore[arg-type]
