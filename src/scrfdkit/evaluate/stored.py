"""Calibrated thresholds inside weight files, whose tensors stay as they are to the last bit.

In .safetensors files they stand in the metadata, under `thresholds` of the metrics. In .onnx files they are the entry
`thresholds` of `metadata_props`; the file is taken apart and put together by its outermost fields alone, so that
neither the onnx package nor the graph is touched.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scrfdkit.errors import WeightError
from scrfdkit.model import header

KEY = "thresholds"

_METADATA_PROPS = 14  # of ModelProto
_LENGTH_DELIMITED = 2


def read_thresholds(path: Path) -> dict[str, Any]:
    """What was stored, by name of the goal; empty where nothing was. Raises WeightError for other kinds of files."""
    if path.suffix == ".safetensors":
        metrics = _metrics(path, header.read(path, whole=False)[1].metadata)
        return dict(metrics.get(KEY, {}))
    if path.suffix != ".onnx":
        raise _wrong_kind(path)
    content = _content(path)
    for number, start, stop in _fields(path, content, 0, len(content)):
        if number == _METADATA_PROPS:
            entry = _entry(path, content, start, stop)
            if entry.get(1) == KEY.encode():
                return _dictionary(path, entry.get(2, b""))
    return {}


def with_thresholds(path: Path, thresholds: Mapping[str, Any]) -> bytes:
    """The content of the file with these thresholds, added to those it has; equal names are replaced.

    Raises WeightError for a file that is neither .safetensors of this package nor .onnx.
    """
    every = {**read_thresholds(path), **thresholds}
    if path.suffix == ".safetensors":
        return _safetensors(path, every)
    content = _content(path)
    kept, at = bytearray(), 0
    for number, start, stop in _fields(path, content, 0, len(content)):
        if number != _METADATA_PROPS or _entry(path, content, start, stop).get(1) != KEY.encode():
            kept += content[at:stop]
        at = stop
    entry = _field(1, KEY.encode()) + _field(2, json.dumps(every).encode())
    return bytes(kept) + _field(_METADATA_PROPS, entry)


def _safetensors(path: Path, thresholds: Mapping[str, Any]) -> bytes:
    data, layout = header.read(path, whole=True)
    metadata = dict(layout.metadata)
    metadata["metrics"] = json.dumps({**_metrics(path, metadata), KEY: thresholds})
    tensors = {
        k: {"dtype": e.dtype, "shape": e.shape, "data_offsets": [e.start, e.stop]} for k, e in layout.entries.items()
    }
    text = json.dumps({"__metadata__": metadata, **tensors}).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + data[layout.offset :]


def _metrics(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    if "metrics" not in metadata:
        raise WeightError(f"{path}: is no weight file of this package; `scrfd convert` makes one of it")
    return _dictionary(path, metadata["metrics"])


def _wrong_kind(path: Path) -> WeightError:
    return WeightError(f"{path}: thresholds are stored in .safetensors and .onnx files; `scrfd convert` makes one")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightError(f"{path}: cannot be read: {error.strerror or error}") from None


def _fields(path: Path, data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, first byte of the content and byte after it of every field of a protobuf message."""
    while at < end:
        tag, at = _varint(path, data, at, end)
        kind, start = tag & 7, at
        if kind == 0:
            _, at = _varint(path, data, at, end)
        elif kind == _LENGTH_DELIMITED:
            length, start = _varint(path, data, at, end)
            at = start + length
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            at = end + 1
        if at > end or tag >> 3 == 0:
            raise WeightError(f"{path}: not an ONNX file, or cut short")
        yield tag >> 3, start, at


def _entry(path: Path, data: bytes, start: int, stop: int) -> dict[int, bytes]:
    """Key (1) and value (2) of an entry of metadata_props."""
    return {number: data[first:last] for number, first, last in _fields(path, data, start, stop)}


def _dictionary(path: Path, text: str | bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise WeightError(f"{path}: what it holds under {KEY} or metrics is no JSON object")
    return value


def _varint(path: Path, data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 64:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise WeightError(f"{path}: not an ONNX file, or cut short")


def _field(number: int, content: bytes) -> bytes:
    return _encode(number << 3 | _LENGTH_DELIMITED) + _encode(len(content)) + content


def _encode(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
