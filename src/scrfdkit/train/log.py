"""What a run has to tell, kept: JSON Lines for any program, and TensorBoard's files where that is installed."""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from scrfdkit import atomic
from scrfdkit.errors import ScrfdError
from scrfdkit.types import Image

NAME = "log.jsonl"
BOARD = "tensorboard"
"""Folder of TensorBoard's files, beside the log."""

_RESERVED = ("kind", "step", "epoch", "time")


def read(path: Path) -> list[dict[str, Any]]:
    """Every line of a log, in order: "kind" ("train", "validation" or "event"), "step", "epoch", "time" (seconds since
    1970) and numbers by their names; None is a number that was not finite. A line that was cut off at the end, as in a
    run that was killed, is left out.

    Raises ScrfdError where the file cannot be read, or holds something else than a log.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ScrfdError(f"{path}: cannot be read: {error.strerror or error}") from None
    lines = data.splitlines()
    found = [_parsed(line) for line in lines]
    if found and found[-1] is None and not data.endswith(b"\n"):
        del found[-1]
    for number, line in enumerate(found, 1):
        if line is None:
            raise ScrfdError(f"{path}:{number}: not a line of a training log")
    return [line for line in found if line is not None]


def _parsed(line: bytes) -> dict[str, Any] | None:
    """None for anything but a log's line."""
    try:
        found = json.loads(line)
    except ValueError:  # bytes that are no text, too
        return None
    good = isinstance(found, dict) and type(found.get("step")) is int and isinstance(found.get("kind"), str)
    return found if good else None


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201


class RunLog:
    """The log of a run, in its folder: `log.jsonl`, and `tensorboard/` where that package is installed.

    folder: made if it is not there. resume_step: the step that the run goes on from; what an earlier one told of later
        steps is dropped, so that nothing is told twice. None for a new run, which replaces a log that is there.
    say: takes notes and warnings, one line each; standard error without it.

    Numbers are floats, or anything `float` takes. Once the log is open, nothing that goes wrong with it stops the run:
    a full disk is told once, and lines are written again when there is room. Raises ScrfdError where the log cannot
    be begun, and ValueError for a number that is called "kind", "step", "epoch" or "time".
    """

    def __init__(
        self, folder: Path, resume_step: int | None = None, *, say: Callable[[str], None] | None = None
    ) -> None:
        self.path = folder / NAME
        self._say = say or _tell
        self._warned = False
        atomic.save(self.path, b"" if resume_step is None else _until(self.path, resume_step))
        try:
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND)
            self._size = os.fstat(self._file).st_size
        except OSError as error:
            raise atomic.write_error(self.path, error) from None
        self._board = _open_board(folder / BOARD, 0 if resume_step is None else resume_step + 1, self._say)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def train(self, step: int, epoch: int, numbers: Mapping[str, Any]) -> None:
        """How the training goes: losses by their names, learning rate, speed."""
        self._numbers("train", step, epoch, numbers)

    def validation(self, step: int, epoch: int, numbers: Mapping[str, Any]) -> None:
        """What a look at the validation pictures gave."""
        self._numbers("validation", step, epoch, numbers)

    def event(self, step: int, epoch: int, text: str) -> None:
        """Something that happened, in words."""
        self._line("event", step, epoch, {"text": text})
        clean = text.encode("utf-8", "backslashreplace").decode()  # names of files can be any bytes
        self._on_board(lambda board: board.add_text("events", clean, step))

    def picture(self, step: int, name: str, image: Image) -> None:
        """A BGR picture, for TensorBoard only."""
        rgb = np.ascontiguousarray(image[:, :, ::-1])
        self._on_board(lambda board: board.add_image(name, rgb, step, dataformats="HWC"))

    def recipe(self, text: str, step: int = 0) -> None:
        """The recipe, for TensorBoard only; lines are kept as they are."""
        kept = "".join(f"    {line}\n" for line in text.splitlines())
        self._on_board(lambda board: board.add_text("recipe", kept, step))

    def close(self) -> None:
        """Writes what is waiting; nothing may be told afterwards."""
        self._on_board(lambda board: board.close())
        self._board = None
        if self._file >= 0:
            file, self._file = self._file, -1
            with contextlib.suppress(OSError):
                os.close(file)

    def _numbers(self, kind: str, step: int, epoch: int, numbers: Mapping[str, Any]) -> None:
        if clash := [name for name in _RESERVED if name in numbers]:
            raise ValueError(f"a number cannot be called {clash[0]}")
        values = {name: math.nan if value is None else float(value) for name, value in numbers.items()}
        self._line(kind, step, epoch, {name: _finite(value) for name, value in values.items()})
        self._on_board(lambda board: [board.add_scalar(f"{kind}/{name}", v, step) for name, v in values.items()])

    def _line(self, kind: str, step: int, epoch: int, rest: Mapping[str, Any]) -> None:
        values = {"kind": kind, "step": step, "epoch": epoch, "time": round(time.time(), 3), **rest}
        data = json.dumps(values, allow_nan=False).encode() + b"\n"
        try:
            written = os.write(self._file, data)
            while written < len(data):  # the next try tells the reason
                written += os.write(self._file, data[written:])
            self._size += len(data)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)  # no half line for the next one to be glued to
            if not self._warned:
                self._say(f"warning: {self.path}: cannot be written: {error.strerror or error}; the training goes on")
            self._warned = True

    def _on_board(self, call: Callable[[Any], object]) -> None:
        if self._board is None:
            return
        try:
            call(self._board)
        except Exception as error:  # whatever its thread has died of comes up here
            self._board = None
            folder = self.path.parent / BOARD
            self._say(f"warning: {folder}: cannot be written any more: {error}; the training goes on")


def _finite(value: float) -> float | None:
    """Short, as nobody reads more than seven digits, and None for what JSON has no word for."""
    return float(f"{value:.7g}") if math.isfinite(value) else None


def _until(path: Path, step: int) -> bytes:
    """The lines up to a step; broken ones, which a full disk or a kill leaves behind, are dropped."""
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise ScrfdError(f"{path}: cannot be read: {error.strerror or error}") from None
    return b"".join(line + b"\n" for line in lines if (found := _parsed(line)) and found["step"] <= step)


def _open_board(folder: Path, purge_step: int, say: Callable[[str], None]) -> Any:
    """A writer of TensorBoard's files that tells it to forget later steps, or None where there cannot be one."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        say("note: no TensorBoard files are written: pip install 'scrfdkit[train]' for them")
        return None
    try:
        return SummaryWriter(str(folder), purge_step=purge_step, flush_secs=30)
    except OSError as error:
        raise atomic.write_error(folder, error) from None
