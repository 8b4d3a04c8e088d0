"""Where pictures are looked for, their sizes from their headers, and which one a label without suffix means."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from PIL import Image as Pillow

from scrfdkit import image
from scrfdkit.errors import ImageError

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif"}
)
"""Files that count as pictures of a data set."""

_PAIRS = (("labels", "images"), ("Annotations", "JPEGImages"))
"""Folders of labels, and where those who use them have the pictures (YOLO, VOC)."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")


def folder_of(labels: Path | str) -> Path:
    """Where the pictures of a label file or folder are looked for unless somebody says.

    A folder that holds labels/ and images/ has them in images/; below a folder labels/, they are at the same place
    below its sibling images/; else they are beside the labels. VOC's Annotations/ and JPEGImages/ count the same way.
    """
    path = Path(labels)
    for own, theirs in _PAIRS:
        if (path / own).is_dir() and (path / theirs).is_dir():
            return path / theirs
    folder = path if path.is_dir() else path.parent
    for own, theirs in _PAIRS:
        parts = list((folder if own in folder.parts else folder.absolute()).parts)
        if own in parts:
            last = len(parts) - 1 - parts[::-1].index(own)
            images = Path(*parts[:last], theirs, *parts[last + 1 :])
            if images.is_dir():
                return images
    return folder


def folder_holding(labels: Path | str, paths: Iterable[str]) -> Path:
    """Where the pictures of labels are, by their own paths: `folder_of`, or `images` in it if only that holds some."""
    beside = folder_of(labels)
    names = list(paths)
    places = (beside, beside / "images")
    return next((place for place in places if any((place / name).is_file() for name in names)), beside)


def complete_folder(labels: Path | str, paths: Iterable[str], images: Path | None = None) -> Path:
    """The folder of pictures, all of which are there: `images`, or else `folder_holding`. Raises ImageError, naming the
    first that is missing."""
    names = list(paths)
    folder = images if images is not None else folder_holding(labels, names)
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ImageError(
            f"{folder / missing[0]}: there is no such picture, and {len(missing):,} of {len(names):,} are missing;"
            " name their folder with --images, or remove them from the labels"
        )
    return folder


def size(path: Path) -> tuple[int, int]:
    """Width and height of the upright picture. Raises ImageError, as `image.load` does."""
    try:
        with Pillow.open(path, formats=_FORMATS) as picture:
            lying = image.orientation_of(picture.getexif()) >= 5
            width, height = picture.size
        return (height, width) if lying else (width, height)
    except Exception:  # other formats, and every way to be broken: `load` knows them and gives the reason
        loaded = image.load(path)
        return loaded.width, loaded.height


def by_stem(folder: Path) -> dict[str, list[str]]:
    """Every picture below a folder: its path without suffix -> its paths, relative and with forward slashes."""
    found: dict[str, list[str]] = {}
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if Path(name).suffix.lower() in SUFFIXES:
                path = (Path(place) / name).relative_to(folder).as_posix()
                found.setdefault(stem(path), []).append(path)
    return found


def stem(path: str) -> str:
    """A path without the suffix of its file name: "a.b/c.jpg" -> "a.b/c"."""
    return path[: -len(suffix)] if (suffix := Path(path).suffix) else path
