"""How to detect: every option of the detector as one frozen value that checks itself."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import Any, TypeAlias

from scrfdkit.errors import OptionError
from scrfdkit.image import MAX_PIXELS
from scrfdkit.letterbox import MULTIPLE

Size: TypeAlias = "str | int | tuple[int, int]"
"""One network input: "auto", "original", a long side, or (width, height)."""

AUTO_LONG_SIDE = 640
MAX_SIDE = 16384
"""Largest side of a network input: its maps take about 3 KB a pixel even in the smallest network."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise OptionError(message)


@dataclass(frozen=True)
class Options:
    """Options of `Detector.open` and, for one call, of `detect`.

    score_threshold: faces below it are dropped. nms_threshold: IoU above which the lower score of two goes.
    input_size: what the network sees. (W, H), multiples of 32: that canvas, the picture in its top left corner, as
        the reference does. "auto": long side 640, the other side padded to a multiple of 32 only, which costs less.
        A number: the same with that long side. "original": the picture's own size.
        A list (not a tuple) of these: all of them, merged before one suppression; [640, 128] finds very large faces.
    max_faces: at most so many, 0 for all. rank: which stay, "area" (largest) or "center" (large and central).
    tile: side in pixels of overlapping tiles that are looked at besides the whole picture; 0 for none. For tiny
        faces in huge pictures. tile_overlap: share of a tile that its neighbours see too.
    rotate: degrees clockwise by which the picture must be turned to stand upright: 0, 90, 180, 270; or "auto":
        all four are tried and the one with the largest sum of scores is kept.
    batch_size: pictures, tiles or sizes a run of the network, at most.
    fast_decoding: let the JPEG decoder take short cuts: shrink pictures at least twice as large as the network's
        input, and spread chroma coarsely. None: yes, but not for a fixed (W, H), which gives the reference's very
        numbers.
    max_pixels: larger pictures are refused before decoding.

    Raises OptionError, naming the option.
    """

    score_threshold: float = 0.5
    nms_threshold: float = 0.4
    input_size: Size | list[Size] = "auto"
    max_faces: int = 0
    rank: str = "area"
    tile: int = 0
    tile_overlap: float = 0.25
    rotate: int | str = 0
    batch_size: int = 8
    fast_decoding: bool | None = None
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        for name in ("score_threshold", "nms_threshold"):
            value = getattr(self, name)
            _require(_is_number(value) and 0 <= value <= 1, f"{name}: {value!r} is not between 0 and 1")
        _require(bool(self.sizes), "input_size: the list is empty")
        _require(_is_whole(self.max_faces, 0), f"max_faces: {self.max_faces!r} is not a number from 0")
        _require(self.rank in ("area", "center"), f"rank: {self.rank!r} is neither 'area' nor 'center'")
        _require(
            _is_whole(self.tile, 0) and (self.tile == 0 or self.tile >= 64),
            f"tile: {self.tile!r} is neither 0 nor a side of at least 64 pixels",
        )
        _require(
            _is_number(self.tile_overlap) and 0 <= self.tile_overlap <= 0.9,
            f"tile_overlap: {self.tile_overlap!r} is not between 0 and 0.9",
        )
        _require(
            self.fast_decoding is None or isinstance(self.fast_decoding, bool),
            f"fast_decoding: {self.fast_decoding!r} is not True, False or None",
        )
        _require(
            isinstance(self.rotate, (str, Integral)) and self.rotate in (0, 90, 180, 270, "auto"),
            f"rotate: {self.rotate!r} is not 0, 90, 180, 270 or 'auto'",
        )
        _require(_is_whole(self.batch_size, 1), f"batch_size: {self.batch_size!r} is not a number from 1")
        _require(_is_whole(self.max_pixels, 1), f"max_pixels: {self.max_pixels!r} is not a number from 1")

    @property
    def sizes(self) -> tuple[Size, ...]:
        """`input_size` as a tuple of one or more sizes."""
        several = self.input_size if isinstance(self.input_size, list) else [self.input_size]
        return tuple(_size(value) for value in several)

    def override(self, **changes: Any) -> Options:
        """The same with some options changed. Raises OptionError for a name that is none."""
        if not changes:
            return self
        unknown = set(changes) - {f.name for f in fields(self)}
        _require(not unknown, f"unknown options {sorted(unknown)}; known are {[f.name for f in fields(self)]}")
        return replace(self, **changes)


_TRUTH = (bool,)  # numbers to Python, but never meant as one


def _is_number(value: Any) -> bool:
    kind: Any = type(value)
    return issubclass(kind, Real) and kind not in _TRUTH and math.isfinite(value)


def _is_whole(value: Any, least: int) -> bool:
    kind: Any = type(value)
    return issubclass(kind, Integral) and kind not in _TRUTH and int(value) >= least


def _size(value: Any, name: str = "input_size") -> Size:
    if isinstance(value, str) and value in ("auto", "original"):
        return value
    if _is_whole(value, 1):
        _require(value <= MAX_SIDE, f"{name}: {value} is over {MAX_SIDE}")
        return int(value)
    if isinstance(value, (tuple, list)) and len(value) == 2 and all(_is_whole(v, 1) for v in value):
        width, height = int(value[0]), int(value[1])
        _require(
            width % MULTIPLE == height % MULTIPLE == 0,
            f"{name}: {width}x{height}: width and height must be multiples of {MULTIPLE}",
        )
        _require(max(width, height) <= MAX_SIDE, f"{name}: {width}x{height}: a side is over {MAX_SIDE}")
        return (width, height)
    raise OptionError(f"{name}: {value!r} is not 'auto', 'original', a long side, or width and height")


def parse_size(text: str, flag: str = "--size") -> Size:
    """A size as a flag gives it: "auto", "original", "640" or "640x480" (width x height). Raises OptionError."""
    parts = text.strip().lower().split("x")
    if all(part.isdecimal() and len(part) < 10 for part in parts):
        numbers = [int(part) for part in parts]
        return _size(numbers[0] if len(numbers) == 1 else tuple(numbers), flag)
    return _size(text, flag)
