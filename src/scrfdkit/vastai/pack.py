"""Pictures as `vamp` reads them: one .npz file each, and a list of these."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scrfdkit import atomic, image, letterbox
from scrfdkit.data import pictures as headers
from scrfdkit.errors import OptionError
from scrfdkit.evaluate import reference
from scrfdkit.spec import Input

LIST = "list.txt"

_PIXELS = Input(0.0, 1.0)  # a letterbox that leaves values as they are


def plan(pictures: Sequence[Path], folder: Path) -> list[tuple[Path, Path]]:
    """Every picture and the .npz file that it goes to, all in one folder as `vamp` and its decoders have them.

    Raises OptionError where two pictures have one name: their results could not be told apart.
    """
    taken: dict[str, Path] = {}
    for picture in pictures:
        other = taken.setdefault(picture.stem, picture)
        if other is not picture:
            raise OptionError(f"{picture}: has the name of {other}, and results go by names; rename one of them")
    return [(picture, folder / f"{stem}.npz") for stem, picture in taken.items()]


def pack(picture: Path, target: Path, canvas: tuple[int, int] | None = None) -> bool:
    """Writes a picture, (3, H, W) uint8 RGB, upright; False where that was done before and the picture is no newer.

    canvas: (width, height) to letterbox it onto, in the top left corner as the evaluation does it, so that a device
    of that input size has nothing to resize; None leaves it at its own size.
    Raises ImageError for a picture that cannot be read, ScrfdError where the file cannot be written.
    """
    if _is_done(picture, target, canvas):
        return False
    buffer = io.BytesIO()
    np.savez(buffer, input_0=_planes(picture, canvas))
    atomic.save(target, buffer.getvalue())
    return True


def write_list(path: Path, targets: Sequence[Path]) -> None:
    """The absolute path of every file, a line each. Raises ScrfdError."""
    text = "".join(f"{target.absolute()}\n" for target in targets)
    atomic.save(path, text.encode("utf-8", "surrogateescape"))


def _planes(picture: Path, canvas: tuple[int, int] | None) -> NDArray[np.uint8]:
    loaded = image.load(picture)
    if canvas is None:
        return np.ascontiguousarray(loaded.pixels[:, :, ::-1].transpose(2, 0, 1))
    blob = letterbox.blank(1, canvas)
    placement = reference.place(loaded.width, loaded.height, canvas)
    letterbox.draw(loaded.pixels, placement, blob[0], _PIXELS, fill=reference.GREY)
    planes: NDArray[np.uint8] = np.rint(blob[0]).astype(np.uint8)
    return planes


def _is_done(picture: Path, target: Path, canvas: tuple[int, int] | None) -> bool:
    if not atomic.is_file(target) or not atomic.is_file(picture):
        return False
    if target.stat().st_mtime < picture.stat().st_mtime:
        return False
    width, height = canvas or headers.size(picture)
    return _shape(target) == (3, height, width)


def _shape(path: Path) -> tuple[int, ...] | None:
    """Of the picture in a file, from its header."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("input_0.npy") as file:
            np.lib.format.read_magic(file)
            shape, _, _ = np.lib.format.read_array_header_1_0(file)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None
    return tuple(shape)
