"""Asking a run to stop: Ctrl-C, or the SIGTERM of a cluster that wants its machine back."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_listening: list[list[int]] = []
"""What is asked of a run is asked of what the run is a part of, too."""


@contextmanager
def stopping(say: Callable[[str], None]) -> Iterator[list[int]]:
    """A list that is filled when the run is asked to stop; asked a second time, it stops at once.

    One within another shares what is asked: a run that begins after the outer one was asked to stop is asked, too.
    """
    asked: list[int] = []

    def ask(number: int, frame: FrameType | None) -> None:
        if asked:
            raise KeyboardInterrupt
        for each in _listening:
            each.append(number)
        say("stops after this step, with a checkpoint; once more stops at once")

    before: dict[int, Any] = {}
    _listening.append(asked)
    for outer in _listening[:-1]:
        asked.extend(outer)
    try:
        for wanted in (signal.SIGINT, signal.SIGTERM):
            before[wanted] = signal.signal(wanted, ask)
    except ValueError:  # only the main thread may; a caller with threads stops in its own way
        pass
    try:
        yield asked
    finally:
        _listening[:] = [each for each in _listening if each is not asked]
        for number, handler in before.items():
            signal.signal(number, handler)
