"""Pictures as `vamp` reads them: one .npz file each, and a list of these."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scrfdkit import atomic, image, letterbox
from scrfdkit.data import pictures as headers
from scrfdkit.errors import OptionError
from scrfdkit.evaluate import reference
from scrfdkit.spec import Input
from scrfdkit.vastai import npz

LIST = "list.txt"
_MARKS = ".packed"
"""Folder of what tells which picture a file is of, as the file itself must hold no more than its one array."""

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
    """Writes a picture, (3, H, W) uint8 RGB, upright; False where that was done before and the picture is the same.

    canvas: (width, height) to letterbox it onto, in the top left corner as the evaluation does it, so that a device
    of that input size has nothing to resize; None leaves it at its own size.
    Raises ImageError for a picture that cannot be read, ScrfdError where the file cannot be written.
    """
    mark, known = target.parent / _MARKS / f"{target.name}.json", _mark(picture)
    if _is_done(picture, target, canvas, mark, known):
        return False
    buffer = io.BytesIO()
    np.savez(buffer, input_0=_planes(picture, canvas))
    try:  # first, or a stop before the new one is written would leave that of another picture
        mark.unlink(missing_ok=True)
    except OSError as error:
        raise atomic.write_error(mark, error) from None
    atomic.save(target, buffer.getvalue())
    if known is not None:
        atomic.save(mark, known)
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


def _mark(picture: Path) -> bytes | None:
    """Where a picture is, how large and how old; None where that cannot be looked up, as reading it will tell."""
    try:
        state = picture.stat()
        return json.dumps([str(picture.resolve()), state.st_size, state.st_mtime_ns]).encode()
    except (OSError, RuntimeError):  # the latter for links in a circle
        return None


def _is_done(picture: Path, target: Path, canvas: tuple[int, int] | None, mark: Path, known: bytes | None) -> bool:
    if known is None or not atomic.is_file(target):
        return False
    width, height = canvas or headers.size(picture)
    try:
        return mark.read_bytes() == known and npz.shape(target, "input_0") == (3, height, width)
    except (OSError, ValueError):
        return False
