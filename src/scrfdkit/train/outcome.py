"""How a run ends, and who is told on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from scrfdkit.errors import ScrfdError


class TrainingError(ScrfdError):
    """A run that cannot go on: the message names the step and its pictures, and what to do."""


class Watcher(Protocol):
    """Who is told of a run's progress. `saving`, `saved`: of every checkpoint, before and after it is written. What
    these methods raise ends the run at once."""

    def begin(self, total_steps: int, start_step: int, steps_per_epoch: int) -> None: ...
    def update(self, step: int, numbers: Mapping[str, float]) -> None: ...
    def say(self, text: str) -> None: ...
    def saving(self, step: int) -> None: ...
    def saved(self, step: int, epoch: int) -> None: ...


@dataclass(frozen=True)
class Result:
    """How a run ended: after `steps` of `of`. last, best: weight files, None where there is none. score: of the best,
    with its "step"."""

    steps: int
    of: int
    last: Path | None
    best: Path | None
    score: dict[str, float] = field(default_factory=dict)

    @property
    def finished(self) -> bool:
        """Whether it went to its end, and was not stopped before."""
        return self.steps >= self.of
