"""Sizes of picture files from their headers, and which picture a label without suffix means."""

from __future__ import annotations

import os
from pathlib import Path

from PIL import Image as Pillow

from scrfdkit import image

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif"}
)
"""Files that count as pictures of a data set."""

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_EXIF_ORIENTATION = 0x0112


def size(path: Path) -> tuple[int, int]:
    """Width and height of the upright picture. Raises ImageError, as `image.load` does."""
    try:
        with Pillow.open(path, formats=_FORMATS) as picture:
            lying = picture.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
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
