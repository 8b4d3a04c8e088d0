"""The learning rate of a step."""

from __future__ import annotations

import math

import pytest

from scrfdkit.train.recipe import Schedule
from scrfdkit.train.schedule import learning_rate, warmup_steps

EPOCH = 403
STEPS = 640 * EPOCH


def reference(step: int) -> float:
    return learning_rate(Schedule(), 0.01, step, STEPS)


@pytest.mark.parametrize(("step", "lr"), [(0, 1e-5), (750, 0.005005), (1499, 0.00999334), (1500, 0.01)])
def test_warmup_is_the_references(step: int, lr: float) -> None:
    assert reference(step) == pytest.approx(lr, rel=1e-9)


@pytest.mark.parametrize(
    ("epoch", "before", "after"), [(440, 0.01, 0.001), (544, 0.001, 0.0001)], ids=["first drop", "second drop"]
)
def test_the_rate_drops_with_the_first_step_of_an_epoch(epoch: int, before: float, after: float) -> None:
    assert reference(epoch * EPOCH - 1) == pytest.approx(before, rel=1e-12)
    assert reference(epoch * EPOCH) == pytest.approx(after, rel=1e-12)
    assert reference(STEPS - 1) == pytest.approx(0.0001, rel=1e-12)


def test_drops_are_shares_of_any_run() -> None:
    rates = [learning_rate(Schedule(warmup=0), 1.0, step, 80) for step in range(80)]
    assert [round(1 / rate) for rate in rates] == [1] * 55 + [10] * 13 + [100] * 12  # the reference's 55, 68 and 80


def test_warmup_takes_a_tenth_of_a_short_run() -> None:
    schedule = Schedule(warmup=1500, start=0.0)
    assert warmup_steps(schedule, 200) == 20
    assert warmup_steps(schedule, 15_000) == warmup_steps(schedule, 10**6) == 1500
    assert learning_rate(schedule, 1.0, 10, 200) == pytest.approx(0.5)
    assert learning_rate(schedule, 1.0, 20, 200) == 1.0
    assert learning_rate(schedule, 1.0, 0, 5) == 1.0


def test_cosine_begins_at_the_highest_rate_and_ends_at_the_lowest() -> None:
    schedule = Schedule(shape="cosine", warmup=0, end=0.1, flat=0.9)
    rates = [learning_rate(schedule, 2.0, step, 101) for step in range(101)]
    assert rates[0] == 2.0
    assert rates[50] == pytest.approx(1.1)
    assert rates[100] == pytest.approx(0.2)
    assert rates == sorted(rates, reverse=True)
    assert learning_rate(schedule, 2.0, 500, 101) == pytest.approx(0.2)


def test_flat_cosine_stays_then_falls() -> None:
    schedule = Schedule(shape="flat-cosine", warmup=0, end=0.0, flat=0.25)
    rates = [learning_rate(schedule, 1.0, step, 401) for step in range(401)]
    assert set(rates[:101]) == {1.0}
    assert rates[102] < 1.0
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)
    middle = (250 - 100.25) / (400 - 100.25)
    assert rates[250] == pytest.approx(0.5 * (1 + math.cos(math.pi * middle)))


@pytest.mark.parametrize("shape", ["cosine", "flat-cosine", "step"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_the_shortest_runs_have_finite_rates(shape: str, steps: int) -> None:
    schedule = Schedule(shape=shape, flat=1.0)  # type: ignore[arg-type]
    assert all(0 < learning_rate(schedule, 1.0, step, steps) <= 1 for step in range(steps))
