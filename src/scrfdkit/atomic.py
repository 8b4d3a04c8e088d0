"""Whole files or none: everything is written beside its place and renamed into it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from scrfdkit.errors import ScrfdError


def partial_path(path: Path) -> Path:
    """Where a file is built: a hidden name in the same folder, the same one each time, so that none are left over."""
    name = f".{path.name}.partial"
    if len(os.fsencode(name)) > 255:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()}.partial"
    return path.with_name(name)


def is_special(path: Path) -> bool:
    """Whether the path is a device, a pipe or a socket: these are written to, never replaced."""
    return path.exists() and not path.is_file() and not path.is_dir()


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
        self._target = Path(os.path.realpath(path))
        self._special = is_special(self._target)
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
