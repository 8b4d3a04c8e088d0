"""What the user named, as a list of pictures, videos and cameras in a fixed order."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from scrfdkit.atomic import exists, is_folder
from scrfdkit.errors import OptionError

PICTURE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
        *(".heic", ".heif", ".avif", ".jp2", ".pnm", ".ppm", ".pgm", ".pbm", ".tga", ".ico"),
    }
)
VIDEO_SUFFIXES = frozenset(
    {
        *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv"),
        *(".flv", ".3gp", ".ogv", ".mjpeg", ".mjpg", ".y4m"),
    }
)
"""Files of these kinds are taken from folders; a file that is named itself is taken whatever it is called."""

Kind = Literal["picture", "stdin", "video", "camera", "nothing"]


@dataclass(frozen=True)
class Source:
    """One input.

    file: its name in records and messages. kind: how to read it; "nothing" stands for an argument that yielded
        no input, with the reason in `problem`.
    relative: its name below the folder or the fixed part of the pattern that the user gave.
    """

    file: str
    kind: Kind
    relative: PurePosixPath
    problem: str = ""


def expand(arguments: Sequence[str], skip: Collection[Path] = ()) -> list[Source]:
    """All inputs, in the order of the arguments; within a folder or pattern sorted by path.

    arguments: files, folders (searched recursively for known suffixes, hidden names left out), patterns with
        * ? [] **, "-" for a picture on standard input, a number for a camera, and addresses (scheme://) of streams.
    skip: folders not searched, unless named themselves: those that outputs are written to.
    A file named twice, or found twice, is taken once. Raises OptionError for an empty argument.
    """
    skipped = {os.path.realpath(folder) for folder in skip}
    seen: set[str] = set()
    sources: list[Source] = []
    for argument in arguments:
        for source in _expand_one(argument, skipped):
            # Not resolved: a link is an input of its own, with a name of its own.
            key = os.path.abspath(source.file) if source.kind in ("picture", "video") else source.file  # noqa: PTH100
            if key not in seen:
                seen.add(key)
                sources.append(source)
    return sources


def _expand_one(argument: str, skipped: set[str]) -> Iterator[Source]:
    if not argument:
        raise OptionError("an input has an empty name; to search the current folder, name it: .")
    path = Path(argument)
    if argument == "-":
        yield Source("-", "stdin", PurePosixPath("stdin"))
    elif re.match(r"[a-z][a-z0-9+.-]*://", argument, re.IGNORECASE):
        name = re.sub(r"[^\w-]+", "_", argument.split("://", 1)[1]).strip("_") or "stream"
        yield Source(argument, "video", PurePosixPath(name[:100]))
    elif is_folder(path):
        found = False
        for source in _walk(path, PurePosixPath(), skipped, set()):
            found = True
            yield source
        if not found:
            yield _nothing(argument, "no pictures or videos in this folder")
    elif exists(path):
        yield _file(path, PurePosixPath(path.name))
    elif argument.isascii() and argument.isdigit():
        yield Source(argument, "camera", PurePosixPath(f"camera{argument}"))
    elif glob.has_magic(argument):
        yield from _matches(argument, skipped)
    elif (lines := len(argument.splitlines())) > 1:
        first = argument.splitlines()[0]
        problem = f"{first} ...: one argument of {lines} lines, and no file is called that; leave out its quotes"
        yield Source(argument, "nothing", PurePosixPath(), problem)
    else:
        yield _file(path, PurePosixPath(path.name))


def _file(path: Path, relative: PurePosixPath) -> Source:
    return Source(str(path), "video" if path.suffix.lower() in VIDEO_SUFFIXES else "picture", relative)


def _nothing(file: str, problem: str) -> Source:
    return Source(file, "nothing", PurePosixPath(), f"{file}: {problem}")


def _known(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in PICTURE_SUFFIXES | VIDEO_SUFFIXES


def _walk(root: Path, below: PurePosixPath, skipped: set[str], above: set[str]) -> Iterator[Source]:
    """Files under a folder, sorted by name at every level; a link back to a folder above is not followed."""
    here = os.path.realpath(root / below)
    if here in above:
        return
    try:
        entries = sorted(os.scandir(root / below), key=lambda entry: entry.name)
    except OSError as error:
        yield _nothing(str(root / below), f"cannot be searched: {error.strerror or error}")
        return
    for entry in entries:
        relative = below / entry.name
        if entry.name.startswith("."):
            continue
        if is_folder(Path(entry.path)):
            if os.path.realpath(entry.path) not in skipped:
                yield from _walk(root, relative, skipped, above | {here})
        elif _known(entry.name):
            yield _file(root / relative, relative)


def _matches(pattern: str, skipped: set[str]) -> Iterator[Source]:
    """Files that a pattern matches. Its leading parts that exist as they are written are no pattern."""
    path = Path(pattern)
    fixed, rest = Path(path.anchor), list(path.parts[1:] if path.anchor else path.parts)
    while len(rest) > 1 and exists(fixed / rest[0]):
        fixed /= rest.pop(0)
    # "*.xyz" says what is wanted, "*" does not.
    suffix = PurePosixPath(rest[-1]).suffix
    exact = bool(suffix) and not glob.has_magic(suffix)
    found = False
    names = glob.glob(os.path.join(*rest), root_dir=fixed, recursive=True)  # noqa: PTH118, PTH207
    for name in sorted(set(names), key=lambda name: Path(name).parts):
        relative = PurePosixPath(name)
        if is_folder(fixed / name):
            inner: list[Source] = [] if "**" in rest else list(_walk(fixed, relative, skipped, set()))
        else:
            hidden = any(os.path.realpath(fixed / parent) in skipped for parent in relative.parents)
            inner = [_file(fixed / name, relative)] if (exact or _known(name)) and not hidden else []
        found = found or bool(inner)
        yield from inner
    if not found:
        yield _nothing(pattern, "no picture or video matches this pattern")
