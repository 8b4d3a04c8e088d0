"""Opening a video: PyAV on first use, one spelling for paths, URLs and cameras, and whether a file is all there."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, TypeAlias

from scrfdkit.errors import MissingExtraError, VideoError

Source: TypeAlias = str | Path | int
"""A file, a URL with its scheme (`rtsp://...`), or the number of a camera: 0 is /dev/video0."""

_NETWORK_PATIENCE = 20.0  # seconds a stream may stay silent
_EBML_HEADER, _EBML_SEGMENT = 0x1A45DFA3, 0x18538067


def load_av() -> ModuleType:
    """PyAV. Raises MissingExtraError where it is not installed."""
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("reading and writing video", "video", "av") from error
    module: ModuleType = av
    return module


def name_of(source: Source) -> str:
    """What messages call the source."""
    return f"camera {source}" if isinstance(source, int) else str(source)


def local_file(source: Source) -> Path | None:
    """The file a source stands for, or None for a camera or a URL."""
    if isinstance(source, int) or (isinstance(source, str) and "://" in source):
        return None
    return Path(source)


def open_input(source: Source) -> Any:
    """An open PyAV container. Raises VideoError, saying why, where there is none to open.

    A file is opened as a file whatever its name looks like, and a play list in it may name local files only:
    a video from a stranger must not make this program fetch addresses.
    """
    av = load_av()
    path = local_file(source)
    name = name_of(source)
    if path is not None:
        _check_file(path, name)
        where, options = f"file:{path}", {"protocol_whitelist": "file,crypto,data"}
    else:
        where, options = str(source), {}
    try:
        if isinstance(source, int):
            return av.open(f"/dev/video{source}", format="v4l2")
        patience = None if path is not None else _NETWORK_PATIENCE
        return av.open(where, options=options, metadata_errors="replace", timeout=patience)
    except (av.FFmpegError, OSError, ValueError) as error:
        if isinstance(source, int):
            raise VideoError(f"camera {source}: /dev/video{source} cannot be opened: {reason(error)}") from error
        raise VideoError(f"{name}: not a video that can be opened: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """The plain words of an FFmpeg error, without its number."""
    return str(getattr(error, "strerror", None) or error)


def _check_file(path: Path, name: str) -> None:
    try:
        size = path.stat().st_size
    except OSError as error:
        raise VideoError(f"{name}: {error.strerror}") from error
    if path.is_dir():
        raise VideoError(f"{name}: a folder, not a video file")
    if path.is_file() and size == 0:
        raise VideoError(f"{name}: the file is empty (zero bytes)")


def promised_size(path: Path) -> int | None:
    """How many bytes the file must have by its own headers, or None where its format does not say.

    Decoders play the front of a file that was cut off and stop without a word; only the container's outer frame
    tells. Known are MP4 and MOV (ISO 14496-12 boxes), Matroska and WebM (RFC 8794 elements) and AVI (RIFF).
    """
    with path.open("rb") as file:
        head = file.read(12)
        file.seek(0)
        if head[:4] == b"RIFF":
            return 8 + int(struct.unpack("<I", head[4:8])[0])
        if head[:4] == _EBML_HEADER.to_bytes(4, "big"):
            return _segment_end(file)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
            return _boxes_end(file, os.fstat(file.fileno()).st_size)
    return None


def _boxes_end(file: BinaryIO, size: int) -> int | None:
    """End of the last top-level box. What is no box, such as a tag some writer put at the end, ends the walk."""
    end = 0
    while end < size:
        file.seek(end)
        head = file.read(16)
        if len(head) < 8:
            return end + 8
        length = int.from_bytes(head[:4], "big")
        if not head[4:8].isalnum() or length == 0:
            return None
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:
            return None
        end += length
    return end


def _segment_end(file: BinaryIO) -> int | None:
    """End of the first segment; None for a live recording, whose segment has no length."""
    while True:
        name, length = _number(file, keep_marker=True), _number(file, keep_marker=False)
        if name is None or length is None:
            return None
        if name == _EBML_SEGMENT:
            return file.tell() + length
        file.seek(length, os.SEEK_CUR)


def _number(file: BinaryIO, *, keep_marker: bool) -> int | None:
    """A variable-length integer of RFC 8794; None at the end of the file or for the reserved "unknown" value."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    extra = 8 - first[0].bit_length()
    value = int.from_bytes(first + file.read(extra), "big")
    if keep_marker:
        return value
    value &= (1 << 7 * (extra + 1)) - 1
    return None if value == (1 << 7 * (extra + 1)) - 1 else value
