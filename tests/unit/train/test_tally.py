"""What a run tells of its last steps, and how it fits into given minutes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from scrfdkit.train import tally
from scrfdkit.train.processes import Processes
from scrfdkit.train.recipes import find
from scrfdkit.train.run import train
from scrfdkit.train.settings import Settings
from scrfdkit.train.tally import Pace, Tally


class Clock:
    """Time as a test wants it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(tally.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(tally.time, "perf_counter", lambda: self.now)


def test_numbers_are_means_since_the_last_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    told = Tally()
    told.add(torch.tensor([[1.0, 2.0, 3.0, 10.0], [3.0, 4.0, 5.0, 20.0]]))
    told.waited += 1.0
    clock.now += 4
    assert not told.due()
    clock.now += 16
    assert told.due()
    numbers = told.numbers(8, Processes(0, 1, 0, torch.device("cpu")))
    assert numbers.pop("memory") > 2**20
    assert numbers == {
        "scores": 2, "boxes": 3, "keypoints": 4, "gradient": 15, "loss": 9, "pictures_per_second": 0.8, "waiting": 0.05,
    }  # fmt: skip
    assert not told.due()


def paces(clock: Clock, minutes: float, first: float, later: float) -> tuple[int, int]:
    """At which step a run knows its length, and that: its first step takes `first` seconds, each other one `later`."""
    pace = Pace(minutes)
    for done in range(1, 1000):
        clock.now += first if done == 1 else later
        if (steps := pace.steps(done)) is not None:
            assert pace.open == (steps == done + 1 and done == 1)
            return done, steps
    raise AssertionError("it never knew")


@pytest.mark.parametrize(
    ("minutes", "first", "later", "knows", "steps"),
    [
        (10, 30.0, 0.1, 120, 5701),  # compiling does not count as pace
        (5, 45.0, 0.1, 11, 2551),  # nor where it takes more than a tenth of the time
        (10, 2.0, 2.0, 31, 300),  # a tenth of the time is gone
        (1, 20.0, 20.0, 2, 3),  # steps that are long for the time
        (0.01, 5.0, 5.0, 1, 2),  # no time at all
    ],
)
def test_pace(
    monkeypatch: pytest.MonkeyPatch, minutes: float, first: float, later: float, knows: int, steps: int
) -> None:
    found = paces(Clock(monkeypatch), minutes, first, later)
    assert found[0] == knows
    assert abs(found[1] - steps) <= 1


class Silent:
    """Nobody watches."""

    def begin(self, total_steps: int, start_step: int, steps_per_epoch: int) -> None: ...
    def update(self, step: int, numbers: object) -> None: ...
    def say(self, text: str) -> None: ...
    def saving(self, step: int) -> None: ...
    def saved(self, step: int, epoch: int) -> None: ...


def test_a_run_of_given_minutes_ends_by_itself(toy_set: Path, tmp_path: Path) -> None:
    recipe = find("fast").change({"size": 64, "batch": 2})
    chosen = Settings("scrfd_500m_kps", str(toy_set), str(tmp_path / "run"), recipe, device="cpu", minutes=0.05)
    result = train(chosen, Silent())
    assert result.finished
    assert 2 <= result.of < 1000
