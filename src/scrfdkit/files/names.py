"""Where outputs go: names that differ for different inputs, and never an input's own."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from scrfdkit.atomic import exists, is_folder
from scrfdkit.errors import OptionError
from scrfdkit.files.inputs import Source

_SAME = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
_TO_JPEG = frozenset({".jpe", ".jfif", ".mpo", ".heic", ".heif", ".avif", ".jp2"})


def picture_name(source: Source) -> PurePosixPath:
    """What a picture made from this input is called.

    Formats that OpenCV writes keep their suffix; photo formats that it does not become .jpg, all others .png;
    videos and cameras become .mp4.
    """
    name = source.relative
    if source.kind in ("video", "camera"):
        return name.with_name(name.name + ".mp4") if source.kind == "camera" else name.with_suffix(".mp4")
    suffix = name.suffix.lower()
    if suffix in _SAME:
        return name
    return name.with_suffix(".jpg" if suffix in _TO_JPEG else ".png")


def stem(source: Source) -> PurePosixPath:
    """The input's name without its suffix, on which names of crops and label files are built."""
    return source.relative.with_suffix("") if source.kind in ("picture", "video") else source.relative


def distinct(names: Sequence[PurePosixPath]) -> list[PurePosixPath]:
    """The names, those that occur before made different by -2, -3, ... after the stem.

    Names that differ in upper and lower case only count as the same, as some file systems see them. The first
    of several keeps its name, and nobody gets a name that another has by itself.
    """
    own = {_key(name) for name in names}
    taken: set[str] = set()
    result: list[PurePosixPath] = []
    numbers: dict[str, int] = {}
    for name in names:
        chosen, key = name, _key(name)
        while _key(chosen) in taken or (chosen is not name and _key(chosen) in own):
            numbers[key] = numbers.get(key, 1) + 1
            chosen = name.with_name(f"{name.stem}-{numbers[key]}{name.suffix}")
        taken.add(_key(chosen))
        result.append(chosen)
    return result


def _key(name: PurePosixPath) -> str:
    return str(name).casefold()


def output_file(text: str, flag: str) -> Path:
    """The file that a flag names, "-" for standard output. Raises OptionError for what can be no file."""
    path = Path(text)
    if not text:
        raise OptionError(f"{flag}: the name is empty; name a file")
    if text.endswith(os.sep) or is_folder(path):
        raise OptionError(f"{flag}: {text} is a folder; name a file")
    return path


def output_folder(path: Path, flag: str) -> Path:
    """The folder that a flag names, which need not exist. Raises OptionError for what can be no folder."""
    if path == Path("-"):
        raise OptionError(f"{flag}: - is standard output, which takes no folder; name a folder")
    if exists(path) and not is_folder(path):
        raise OptionError(f"{flag}: {path} is a file; name a folder")
    return path


class Guard:
    """Knows the inputs, and refuses outputs that would replace one of them, by whatever name or link."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._inputs: set[tuple[int, int]] = set()
        for source in sources:
            identity = _identity(source.file) if source.kind in ("picture", "video") else None
            if identity is not None:
                self._inputs.add(identity)

    def check(self, path: Path, flag: str) -> Path:
        """The path. Raises OptionError, naming the flag, if it is an input."""
        if _identity(path) in self._inputs:
            raise OptionError(f"{flag}: {path} is one of the inputs and would be overwritten; choose another place")
        return path


def _identity(path: str | Path) -> tuple[int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - a path may be a string that is no valid Path
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino
