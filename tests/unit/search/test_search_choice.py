"""The front against every pair of points, and the three objectives on candidates whose order is known."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_outcomes import candidate, done

from scrfdkit.errors import OptionError
from scrfdkit.search.candidate import Outcome
from scrfdkit.search.choice import Objective, choose, finished, front

NUMBERS = st.one_of(st.integers(0, 6).map(float), st.floats(0, 100))


def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] <= b[0] and a[1] >= b[1] and a != b


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=30))
def test_front_is_what_no_other_beats(pairs: list[tuple[float, float]]) -> None:
    found = front([cost for cost, _ in pairs], [score for _, score in pairs])
    assert set(found) == {i for i, one in enumerate(pairs) if not any(beats(other, one) for other in pairs)}
    assert len(found) == len(set(found))
    chosen = [pairs[i] for i in found]
    assert chosen == sorted(chosen)
    assert [score for _, score in chosen] == sorted(score for _, score in chosen)


def test_front_of_lists_that_do_not_match() -> None:
    with pytest.raises(ValueError, match="2 costs and 1 scores"):
        front([1, 2], [1])


SOME = [done(1, 70.0), done(2, 71.0), done(3, 70.2), done(4, 65.0), done(5, 71.0), done(6, 60.0)]
TIMES = {1: 3.0, 2: 5.0, 3: 3.0, 4: 2.0, 5: 6.0, 6: 2.5}


def numbers(outcomes: list[Outcome]) -> list[int]:
    return [one.candidate.number for one in outcomes]


@pytest.mark.parametrize(
    ("objective", "within", "winners"),
    [
        ("hard", 1.0, [2]),
        ("latency", 1.0, [3]),  # as fast as 1, and better
        ("latency", 0.5, [2]),
        ("latency", 6.0, [4]),
        ("latency", 0.0, [2]),
        ("latency", 100.0, [4]),
        ("pareto", 1.0, [2, 3, 4]),
    ],
)
def test_winners(objective: Objective, within: float, winners: list[int]) -> None:
    assert numbers(choose(SOME, TIMES, objective, within)) == winners
    assert numbers(choose(SOME[::-1], TIMES, objective, within)) == winners, "whatever the order"


def test_equals_on_the_front_are_all_there() -> None:
    assert numbers(choose(SOME, dict.fromkeys(TIMES, 3.0), "pareto")) == [2, 5]


@pytest.mark.parametrize("objective", ["hard", "latency", "pareto"])
def test_only_finished_ones_win(objective: Objective) -> None:
    others = [
        Outcome(candidate(7), "stopped", 20, 1, {"hard": 99.0}, 99.0),
        Outcome(candidate(8), "running"),
        Outcome(candidate(9), "failed"),
        done(10, math.nan),
    ]
    times = TIMES | {7: 0.1, 8: 0.1, 9: 0.1, 10: 0.1}
    assert choose([*others, *SOME], times, objective) == choose(SOME, TIMES, objective)
    assert choose(others, times, objective) == []
    assert finished([*others, *SOME]) == SOME


def test_hard_needs_no_times() -> None:
    assert numbers(choose(SOME, None, "hard")) == [2]


@pytest.mark.parametrize("times", [None, {}, {1: 3.0, 2: 5.0}])
@pytest.mark.parametrize("objective", ["latency", "pareto"])
def test_missing_times_are_told(objective: Objective, times: dict[int, float] | None) -> None:
    with pytest.raises(OptionError, match=rf"--objective {objective}: .*scrfd search report DIR --latency"):
        choose(SOME, times, objective)


def test_times_of_candidates_far_below_are_not_needed() -> None:
    assert numbers(choose(SOME, {1: 3.0, 2: 5.0, 3: 3.0, 5: 6.0}, "latency")) == [3]


def test_mistakes_are_named() -> None:
    with pytest.raises(OptionError, match="--objective fast: known are hard, latency, pareto"):
        choose(SOME, TIMES, "fast")  # type: ignore[arg-type]
    for within in (-1.0, math.nan):
        with pytest.raises(OptionError, match="--within"):
            choose(SOME, TIMES, "latency", within)
