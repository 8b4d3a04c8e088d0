"""The outside of a safetensors file: its header, and the sha256 over its tensors. No torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from scrfdkit.errors import WeightError

MAX_HEADER = 10_000_000
"""Bytes; a real header of the largest network has 0.1 million."""

PathLike = str | os.PathLike[str]


class Entry(NamedTuple):
    """Where a tensor lies in the data that follows the header, in bytes."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class Layout(NamedTuple):
    """A parsed header. offset: where the data begins in the file; num_bytes: how much of it there is."""

    metadata: dict[str, str]
    entries: dict[str, Entry]
    offset: int
    num_bytes: int


def read(path: PathLike, whole: bool) -> tuple[bytes, Layout]:
    """The file's bytes, or only those of its header, and its layout.

    Raises WeightError for a file that is absent, not safetensors, or not as long as its header says.
    """
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            data = file.read(8)
            length = int.from_bytes(data, "little")
            if len(data) < 8 or length > min(MAX_HEADER, size - 8):
                raise WeightError(f"{path}: not a safetensors file, or cut short")
            data += file.read(size if whole else length)
    except OSError as error:
        raise WeightError(f"{path}: cannot be read: {error.strerror or error}") from None
    return data, _layout(path, data[8 : 8 + length], size)


def _layout(path: PathLike, text: bytes, size: int) -> Layout:
    try:
        header = json.loads(text)
        metadata = {str(k): str(v) for k, v in header.pop("__metadata__", {}).items()}
        entries = {k: Entry(v["dtype"], tuple(v["shape"]), *v["data_offsets"]) for k, v in header.items()}
        num_bytes = max((int(entry.stop) for entry in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise WeightError(f"{path}: not a safetensors file: its header cannot be read") from None
    offset = 8 + len(text)
    if num_bytes != size - offset:
        raise WeightError(f"{path}: cut short or damaged: it has {size} bytes, its header says {offset + num_bytes}")
    return Layout(metadata, entries, offset, num_bytes)


def digest(tensors: Mapping[str, tuple[str, tuple[int, ...], bytes | memoryview]]) -> str:
    """sha256 over name, dtype (safetensors' word), shape and little-endian bytes of every tensor, sorted by name."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        dtype, shape, data = tensors[name]
        total.update(f"{name}\0{dtype}\0{','.join(map(str, shape))}\0".encode())
        total.update(data)
    return total.hexdigest()


def ordered(data: bytes) -> bytes:
    """The same file with its metadata sorted: safetensors writes them in random order, and equal content should give
    equal bytes."""
    length = int.from_bytes(data[:8], "little")
    content = json.loads(data[8 : 8 + length])
    content["__metadata__"] = dict(sorted(content.get("__metadata__", {}).items()))
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors are aligned to eight bytes
    return len(text).to_bytes(8, "little") + text + data[8 + length :]
