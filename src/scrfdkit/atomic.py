"""Whole files or none: everything is written beside its place and renamed into it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from pathlib import Path
from typing import BinaryIO, Protocol

from scrfdkit.errors import ScrfdError


def partial_path(path: Path, *, keep_suffix: bool = False) -> Path:
    """Where a file is built: a hidden name in the same folder, the same one each time, so that none are left over.

    keep_suffix: for writers that go by it, it ends the hidden name too.
    """
    stem, suffix = (path.stem, path.suffix) if keep_suffix else (path.name, "")
    name = f".{stem}.partial{suffix}"
    if len(os.fsencode(name)) > 255:
        name = f".{hashlib.sha256(os.fsencode(stem)).hexdigest()}.partial{suffix}"
    return path.with_name(name)


def exists(path: Path) -> bool:
    """Whether there is anything. Unlike `Path.exists` this never raises: False also for a name that is too long or
    that one may not look up, as opening it tells the reason better. So do `is_file` and `is_folder`."""
    return os.path.exists(path)  # noqa: PTH110


def is_file(path: Path) -> bool:
    """Whether there is a regular file, or a link to one."""
    return os.path.isfile(path)  # noqa: PTH113


def is_folder(path: Path) -> bool:
    """Whether there is a folder, or a link to one."""
    return os.path.isdir(path)  # noqa: PTH112


def is_special(path: Path) -> bool:
    """Whether the path is a device, a pipe or a socket: these are written to, never replaced."""
    return exists(path) and not is_file(path) and not is_folder(path)


def sha256(path: Path) -> str:
    """Hex digest of a file's content. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_error(path: Path | str, error: OSError) -> ScrfdError:
    """The error to raise where a file cannot be written."""
    return ScrfdError(f"{path}: cannot be written: {error.strerror or error}")


def make_folder(path: Path) -> None:
    """Makes a folder and its parents. Raises ScrfdError where it cannot be made or written to."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise ScrfdError(f"{path}: cannot be written: you have no permission to add files to this folder")


def save(path: Path, data: bytes) -> None:
    """Writes a whole file, with any folders it needs. Raises ScrfdError, leaving what was there before."""
    target = AtomicFile(path)
    try:
        target.write(data)
        target.commit()
    except ScrfdError:
        target.discard()
        raise


class AtomicFile:
    """A file that grows beside its place until `commit` moves it there. A link is followed, a device written to.

    Its methods raise ScrfdError, naming the file, where it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._special = is_special(path)
        # A pipe behind /dev/stdout has no path of its own to go to.
        self._target = path if self._special else Path(os.path.realpath(path))
        self._partial = self._target if self._special else partial_path(self._target)
        try:
            if not self._special:
                self._target.parent.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO | None = self._partial.open("wb")
        except OSError as error:
            raise write_error(path, error) from None

    def write(self, data: bytes) -> None:
        """Adds to the end."""
        assert self._file is not None, "written to after commit or discard"
        try:
            self._file.write(data)
        except OSError as error:
            raise write_error(self.path, error) from None

    def commit(self) -> None:
        """Moves what was written to its place."""
        assert self._file is not None, "committed twice"
        file, self._file = self._file, None
        try:
            try:
                file.flush()
            finally:
                file.close()
            if not self._special:
                self._partial.replace(self._target)
        except OSError as error:
            self._remove()
            raise write_error(self.path, error) from None

    def discard(self) -> None:
        """Removes what was written; does nothing after `commit`."""
        file, self._file = self._file, None
        if file is None:
            return
        with contextlib.suppress(OSError):
            file.close()  # writes what is buffered, which is not wanted any more
        self._remove()

    def _remove(self) -> None:
        if not self._special:
            self._partial.unlink(missing_ok=True)


class Growing(Protocol):
    """Something that is written from front to back; then exactly one of `commit` and `discard` is called."""

    def write(self, data: bytes) -> None: ...
    def commit(self) -> None: ...
    def discard(self) -> None: ...


class StandardOutput:
    """Standard output, written to like an `AtomicFile`; what was sent cannot be taken back.

    Its methods raise BrokenPipeError where the reader has gone, and ScrfdError where it cannot be written.
    """

    def write(self, data: bytes) -> None:
        """Adds to the end."""
        try:
            sys.stdout.buffer.write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise write_error("standard output", error) from None

    def commit(self) -> None:
        """Sends what is waiting."""
        try:
            sys.stdout.buffer.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise write_error("standard output", error) from None

    def discard(self) -> None:
        """Does nothing."""


def growing(path: Path) -> Growing:
    """Where to write what is asked for under this name: a file, or standard output for "-"."""
    return StandardOutput() if path == Path("-") else AtomicFile(path)
