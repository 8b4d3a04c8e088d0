"""How one picture becomes several network inputs, by sizes, tiles and rotation, and how faces find the way back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from scrfdkit import letterbox
from scrfdkit.image import Picture
from scrfdkit.letterbox import Placement
from scrfdkit.options import AUTO_LONG_SIDE, Options, Size
from scrfdkit.types import Detections, Image


@dataclass(frozen=True, eq=False)
class View:
    """One input of the network and what it shows.

    pixels: (h, w, 3) uint8 BGR, already cut out and turned. placement: on the canvas.
    origin: top left corner of the tile in the turned picture. whole: (width, height) of the turned picture.
    turn: degrees clockwise that the picture was turned. reduced: the decoder scaled the picture down.
    tile: (width, height) of the tile, None for the whole.
    """

    pixels: Image
    placement: Placement
    turn: int
    reduced: bool
    whole: tuple[int, int]
    origin: tuple[int, int] = (0, 0)
    tile: tuple[int, int] | None = None


def views(picture: Picture, options: Options, fixed: tuple[int, int] | None) -> Iterator[View]:
    """Every input that the options ask for. fixed: (width, height) if the network takes no other size."""
    turns = (0, 90, 180, 270) if options.rotate == "auto" else (int(options.rotate),)
    for turn in turns:
        # np.rot90 turns counterclockwise.
        pixels = np.rot90(picture.pixels, -turn // 90) if turn else picture.pixels
        width, height = picture.extent
        whole = (height, width) if turn in (90, 270) else (width, height)
        for size in options.sizes:
            yield View(pixels, _place(*whole, size, fixed), turn, picture.reduction > 1, whole)
        if options.tile and max(whole) > options.tile:
            full = View(pixels, _place(*whole, options.sizes[0], fixed), turn, picture.reduction > 1, whole)
            yield from _tiles(full, options, fixed)


def _tiles(full: View, options: Options, fixed: tuple[int, int] | None) -> Iterator[View]:
    width, height = full.whole
    for y in _starts(height, options):
        for x in _starts(width, options):
            tile = (min(options.tile, width), min(options.tile, height))
            pixels = full.pixels[y : y + tile[1], x : x + tile[0]]
            placement = _place(*tile, options.sizes[0], fixed)
            yield replace(full, pixels=pixels, placement=placement, origin=(x, y), tile=tile)


def _starts(length: int, options: Options) -> list[int]:
    """Evenly spread tile origins, overlapping by at least the share asked for, the last one flush with the edge."""
    if length <= options.tile:
        return [0]
    step = max(1, int(options.tile * (1 - options.tile_overlap)))
    count = -(-(length - options.tile) // step) + 1
    return [round(i * (length - options.tile) / (count - 1)) for i in range(count)]


def _place(width: int, height: int, size: Size, fixed: tuple[int, int] | None) -> Placement:
    if fixed is not None:
        return letterbox.place_fixed(width, height, fixed)
    if isinstance(size, tuple):
        return letterbox.place_fixed(width, height, size)
    if size == "original":
        return letterbox.place_exact(width, height)
    return letterbox.place_long_side(width, height, AUTO_LONG_SIDE if size == "auto" else int(size))


def decoding_target(options: Options, fixed: tuple[int, int] | None) -> int | None:
    """Long side of a picture that is enough for every view, or None where full resolution is needed."""
    sizes = [fixed] if fixed else [AUTO_LONG_SIDE if size == "auto" else size for size in options.sizes]
    exact = any(isinstance(size, tuple) for size in sizes)
    wanted = not exact if options.fast_decoding is None else options.fast_decoding
    if not wanted or options.tile or "original" in sizes:
        return None
    return max(max(size) if isinstance(size, tuple) else int(size) for size in sizes)


def restore(found: Detections, view: View) -> Detections:
    """Faces in canvas pixels to pixels of the upright original picture as it was given."""
    found = letterbox.unplace(found, view.placement)
    if view.tile is not None:
        found = _without_cut_faces(found, view).shift(*view.origin)
    return _turn_back(found, view.turn, *view.whole)


def _without_cut_faces(found: Detections, view: View) -> Detections:
    """Drops boxes that reach an edge of the tile inside the picture: such a face is cut there, and the neighbouring
    tile, or the whole picture, shows it better."""
    assert view.tile is not None
    margin = 0.005 * max(view.tile)
    low = [margin if start > 0 else -np.inf for start in view.origin]
    high = [
        side - margin if start + side < total else np.inf
        for start, side, total in zip(view.origin, view.tile, view.whole, strict=True)
    ]
    boxes = found.boxes
    cut = (boxes[:, :2] < low).any(axis=1) | (boxes[:, 2:] > high).any(axis=1)
    return found[np.flatnonzero(~cut)]


def _turn_back(found: Detections, turn: int, width: int, height: int) -> Detections:
    """Coordinates in a picture of width x height that was turned clockwise by `turn`, in the picture before that."""
    if turn == 0:
        return found

    def back(points: np.ndarray) -> np.ndarray:
        x, y = points[..., 0], points[..., 1]
        moved = {90: (y, width - x), 180: (width - x, height - y), 270: (height - y, x)}[turn]
        return np.stack(moved, axis=-1).astype(np.float32)

    corners = back(found.boxes.reshape(-1, 2, 2))
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    points = None if found.keypoints is None else back(found.keypoints)
    return replace(found, boxes=boxes, keypoints=points)
