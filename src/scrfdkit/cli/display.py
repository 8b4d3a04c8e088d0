"""What a long run shows on standard error: failures as they come, and a bar where somebody is watching."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from scrfdkit.cli.flags import one_line

if TYPE_CHECKING:
    from rich.progress import Progress

    from scrfdkit.files.run import Outcome

_PATIENCE = 1.0  # seconds of work before a bar is worth showing
_REFRESH = 0.1


class Display:
    """Progress of `total` inputs with rate and time left. Only a terminal gets a bar; failures are always told."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._start = self._last = time.monotonic()
        self._bar: Progress | None = None
        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def watch(self, outcome: Outcome, failure: str) -> None:
        """Takes the counts after an input or frame, and its failure, if it was one."""
        if failure:
            self.say(f"failed: {failure}")
        now = time.monotonic()
        if self._terminal and now - self._start > _PATIENCE and now - self._last > _REFRESH:
            self._last = now
            self._show(outcome, now)

    def say(self, text: str) -> None:
        """A line on standard error, above the bar if there is one."""
        text = one_line(text)
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)  # noqa: T201

    def _show(self, outcome: Outcome, now: float) -> None:
        if self._bar is None:
            self._bar = _new_bar(self._total)
            self._bar.start()
        fresh = outcome.inputs - outcome.resumed  # what an earlier run did says nothing about the speed of this one
        rate = fresh / (now - self._start)
        left = (self._total - outcome.inputs) / rate if rate else None
        words = [f"{outcome.frames} frames"] if outcome.frames else [f"{rate:.1f}/s"]
        words += [f"{outcome.faces} faces"]
        words += [f"{len(outcome.failed)} failed"] if outcome.failed else []
        words += [f"{_clock(left)} left"] if left is not None and self._total > 1 else []
        self._bar.update(self._bar.task_ids[0], completed=outcome.inputs, words=" · ".join(words))


def _new_bar(total: int) -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.fields[words]}"))
    bar = Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=4)
    bar.add_task("", total=total, words="")
    return bar


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
