"""What a training shows while it runs: a bar with its numbers on a terminal, elsewhere a line now and then."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_REFRESH = 0.25  # seconds
_SHOWN = {
    "loss": "loss {:.3f}",
    "scores": "scores {:.3f}",
    "boxes": "boxes {:.3f}",
    "keypoints": "points {:.3f}",
    "lr": "lr {:.2g}",
    "pictures_per_second": "{:.1f} pictures/s",
    "waiting": "waiting {:.0%}",
    "memory": "{}",
}
"""Numbers that are shown, in this order, and how."""


class Watch:
    """Progress of a run. To be used in a `with`.

    console: where to write. On a terminal a bar is kept up to date, and gone at the end; elsewhere a line comes every
        `every` seconds and at the last step.
    """

    def __init__(self, console: Console, *, every: float = 30.0) -> None:
        self._console = console
        self._total = self._start = self._step = self._per_epoch = 0
        self._numbers: dict[str, float] = {}
        self._live: Live | None = None
        self._pause = _REFRESH if console.is_terminal else every
        self._begun = self._last = time.monotonic()

    def begin(self, total_steps: int, start_step: int, steps_per_epoch: int) -> None:
        """How many steps the run has, and how many of them were done before it was resumed. steps_per_epoch: for
        "epoch 3/640"; 0 for no such words. May be called again where the total turns out to be another."""
        self._total, self._start, self._per_epoch = total_steps, start_step, steps_per_epoch
        self._step = max(self._step, start_step)
        if not self._numbers:
            self._begun = time.monotonic()

    def __enter__(self) -> Watch:
        self._begun = time.monotonic()
        self._last = self._begun - (self._pause if self._console.is_terminal else 0)
        if self._console.is_terminal:
            # No thread of its own: the numbers change only where `update` is called.
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def update(self, step: int, numbers: Mapping[str, float]) -> None:
        """Takes the steps done so far, and numbers by name: "loss", "scores", "boxes", "keypoints", "lr",
        "pictures_per_second", "waiting" (share of the time, 0 to 1), "memory" (bytes). Others are not shown; one that
        is left out keeps its last value. Cheap enough for every step."""
        self._step = step
        self._numbers.update({name: value for name, value in numbers.items() if name in _SHOWN})
        now = time.monotonic()
        if now - self._last < self._pause and step < self._total:
            return
        self._last = now
        if self._live is not None:
            self._live.update(self._bar(now), refresh=True)
        else:
            self._print(" · ".join([*self._place(now), *self._words()]))

    def say(self, text: str) -> None:
        """A line that stays, above the bar if there is one."""
        self._print("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text))

    def saving(self, step: int) -> None:
        """Shows nothing."""

    def saved(self, step: int, epoch: int) -> None:
        """Shows nothing: checkpoints come every few minutes."""

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def _place(self, now: float) -> list[str]:
        """How far it is, and how long it will take."""
        words = []
        if self._per_epoch:
            epochs = -(-self._total // self._per_epoch)
            words.append(f"epoch {min(self._step // self._per_epoch + 1, epochs)}/{epochs}")
        words.append(f"step {self._step:,}/{self._total:,}")
        # Steps of an earlier run say nothing about the speed of this one.
        if done := self._step - self._start:
            left = (self._total - self._step) * (now - self._begun) / done
            words.append(f"{_clock(left)} left")
        return words

    def _words(self) -> list[str]:
        return [
            form.format(_size(self._numbers[name]) if name == "memory" else self._numbers[name])
            for name, form in _SHOWN.items()
            if name in self._numbers
        ]

    def _bar(self, now: float) -> Group:
        row = Table.grid(padding=(0, 1))
        row.add_row(
            ProgressBar(total=max(self._total, 1), completed=self._step, width=24), Text(" · ".join(self._place(now)))
        )
        return Group(row, Text(" · ".join(self._words()), style="dim"))


def _size(number: float) -> str:
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    clock = f"{hours}:{minutes:02d}:{rest:02d}" if hours or days else f"{minutes}:{rest:02d}"
    return f"{days} d {clock}" if days else clock
