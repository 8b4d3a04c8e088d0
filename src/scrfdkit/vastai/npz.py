"""Members of .npz files, whose headers are held against the file before memory is taken for what they claim."""

from __future__ import annotations

import lzma
import math
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_MOST_BYTES = 1 << 30
_KINDS = "fiu"
_DAMAGE = (
    *(OSError, ValueError, KeyError, EOFError, TypeError, SyntaxError, OverflowError, MemoryError),
    *(RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, tokenize.TokenError),
)
"""What is raised for damaged, encrypted (RuntimeError) and unknown (NotImplementedError, one of these) members."""


def read(path: Path, prefix: str) -> dict[str, NDArray[Any]]:
    """The arrays with such names. Raises ValueError, saying why, for a file that is none or has anything but numbers
    in them."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if sum(member.file_size for member in members) > _MOST_BYTES:
                raise ValueError(f"it unpacks to more than {_MOST_BYTES} bytes")
            wanted = [member for member in members if member.filename.startswith(prefix)]
            return {member.filename.removesuffix(".npy"): _array(archive, member) for member in wanted}
    except _DAMAGE as error:
        raise ValueError(_reason(error)) from None


def shape(path: Path, name: str) -> tuple[int, ...]:
    """Of one array, from its header. Raises ValueError as `read` does."""
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo(f"{name}.npy")
            with archive.open(member) as file:
                return _header(file, member.file_size)[0]
    except _DAMAGE as error:
        raise ValueError(_reason(error)) from None


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(member) as file:
        sides, by_columns, dtype = _header(file, member.file_size)
        values = np.frombuffer(file.read(), dtype)
    return values.reshape(sides, order="F" if by_columns else "C")


def _header(file: Any, num_bytes: int) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type of a member of so many bytes; the file is then where the numbers begin."""
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"its arrays are of version {version}, which those of numbers are not")
    sides, by_columns, dtype = _HEADERS[version](file)
    if dtype.kind not in _KINDS:
        raise ValueError(f"it has an array of {dtype}, not of numbers")
    if min(sides, default=0) < 0 or math.prod(sides) * dtype.itemsize != num_bytes - file.tell():
        raise ValueError(f"an array is said to be {sides} {dtype}, and {num_bytes - file.tell()} bytes are there")
    return sides, by_columns, dtype


def _reason(error: BaseException) -> str:
    return str(error) or type(error).__name__
