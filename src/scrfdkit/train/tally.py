"""What happened since it was last told: losses, speed, waiting; and how many steps fit into given minutes."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from scrfdkit.machine import resident_bytes
from scrfdkit.train import criterion
from scrfdkit.train.processes import Processes
from scrfdkit.train.step import RESULT

_EVERY_SECONDS = 10.0
_EVERY_STEPS = 100


class Tally:
    """Results of steps and seconds of waiting, until they are told."""

    def __init__(self) -> None:
        self.waited = 0.0
        self._results: list[Tensor] = []
        self._since = time.perf_counter()

    def add(self, results: Tensor) -> None:
        """results: (n, 4) of n steps, in the order of RESULT."""
        self._results += results.unbind()

    def due(self) -> bool:
        """Whether there is enough to tell."""
        late = time.perf_counter() - self._since > _EVERY_SECONDS
        return bool(self._results) and (late or len(self._results) >= _EVERY_STEPS)

    def numbers(self, batch: int, together: Processes) -> dict[str, float]:
        """Means over steps and processes, pictures a second, the share of time spent waiting for pictures, memory."""
        spent = max(time.perf_counter() - self._since, 1e-9)
        mean = torch.stack(self._results).mean(0)
        mean = together.total(mean.to(together.device)).cpu() / together.world
        numbers: dict[str, float] = dict(zip(RESULT, mean.tolist(), strict=True))
        numbers["loss"] = sum(numbers[name] for name in criterion.NAMES)
        numbers["pictures_per_second"] = len(self._results) * batch / spent
        numbers["waiting"] = self.waited / spent
        numbers["memory"] = float(memory_bytes(together.device))
        self.restart()
        return numbers

    def restart(self) -> None:
        """Forgets everything, also the time since: what came between was no training."""
        self._results.clear()
        self._since, self.waited = time.perf_counter(), 0.0


class Pace:
    """Finds out in the first steps of a run how many fit into the minutes it may take.

    minutes: 0 for a run that may take any time. spent: seconds that it took before it was resumed.
    """

    FIRST = 20
    """Steps that are not measured if there is time: the first ones compile, are drawn, and fill the caches."""
    LAST = 120
    LEAST = 10
    """Steps that are measured unless half of the time is gone."""

    def __init__(self, minutes: float, spent: float = 0.0) -> None:
        self.open = minutes > 0
        self._seconds = 60 * minutes
        self._began = time.monotonic() - spent
        self._from: tuple[int, float] | None = None

    @property
    def spent(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    def steps(self, done: int) -> int | None:
        """How many steps the whole run will have; told once, when LAST are done or a tenth of the time is gone.

        To be asked only where all `done` steps are really done: a GPU is told its steps ahead of doing them.
        """
        if not self.open:
            return None
        gone = self.spent / self._seconds
        if self._from is None or (done <= self.FIRST and gone < 0.1):
            self._from = done, self.spent
            return done + 1 if gone >= 1 else None
        measured = done - self._from[0]
        if not (done >= self.LAST or (gone > 0.1 and measured >= self.LEAST) or gone > 0.5):
            return None
        self.open = False
        pace = (self.spent - self._from[1]) / measured
        return done + max(1, int((self._seconds - self.spent) / pace))


def memory_bytes(device: torch.device) -> int:
    """What a run needs: on CUDA the most that its tensors have had at one time, else what the process has in RAM."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resident_bytes()
