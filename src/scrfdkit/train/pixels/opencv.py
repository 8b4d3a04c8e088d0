"""Samples from one decoded picture on the CPU, for the workers of a loader."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import cv2
import numpy as np

from scrfdkit.spec import Input
from scrfdkit.train.pixels import OUTSIDE
from scrfdkit.types import Floats, Image

_ORDERS = tuple(permutations(range(3)))
_LEVELS = np.arange(256, dtype=np.float32)


def draw(picture: Image, view: Sequence[float] | Floats, size: int, input: Input, out: Floats | None = None) -> Floats:
    """One sample (3, size, size) float32, RGB, normalised; written into `out` where it is given.

    picture: (h, w, 3) uint8 BGR. view: one row of `crops.VIEW`. The window is resized on bytes, four times less memory
    to move than floats: that rounds to half a grey level before the colours, which contrast and saturation can enlarge.
    """
    left, top, side, flip, brightness, contrast, contrast_first, saturation, hue, order, gray = map(float, view)
    if out is None:
        out = np.empty((3, size, size), np.float32)
    elif out.shape != (3, size, size) or out.dtype != np.float32:
        raise ValueError(f"out: {out.dtype} {out.shape}; float32 (3, {size}, {size}) is needed")
    pixels = _resized(_window(picture, int(left), int(top), int(side)), size)
    if flip:
        pixels = cv2.flip(pixels, 1)
    before, after = (contrast, 1.0) if contrast_first else (1.0, contrast)
    # A byte has 256 values: what is done to each channel by itself, is done to a table.
    table = (_LEVELS + np.float32(brightness)) * np.float32(before)
    sources = _ORDERS[int(order)][::-1]  # of R, G and B
    if saturation == 1 and hue == 0 and not gray:
        table = _normalised(table * np.float32(after), input)
        channels = cv2.split(pixels)
        for plane, source in zip(out, sources, strict=True):
            cv2.LUT(channels[source], table, plane)
        return out
    colours = cv2.LUT(pixels, table)
    if saturation != 1 or hue != 0:
        colours = _turned(colours, saturation, hue)
    cv2.mixChannels([colours], list(out), [n for pair in zip(sources, range(3), strict=True) for n in pair])
    if after != 1:
        out *= np.float32(after)
    if gray:
        out[:] = np.float32(0.299) * out[0] + np.float32(0.587) * out[1] + np.float32(0.114) * out[2]
    return _normalised(out, input)


def _window(picture: Image, left: int, top: int, side: int) -> Image:
    """The square window (side, side, 3); without a copy where it lies inside the picture."""
    height, width = picture.shape[:2]
    x0, x1 = max(left, 0), min(left + side, width)
    y0, y1 = max(top, 0), min(top + side, height)
    if x0 >= x1 or y0 >= y1:
        return np.full((side, side, 3), OUTSIDE, np.uint8)
    part = picture[y0:y1, x0:x1]
    border = (y0 - top, top + side - y1, x0 - left, left + side - x1)
    if not any(border):
        return part
    filled: Image = cv2.copyMakeBorder(part, *border, cv2.BORDER_CONSTANT, value=(OUTSIDE,) * 3)
    return filled


def _resized(window: Image, size: int) -> Image:
    if len(window) == size:
        return window
    resized: Image = cv2.resize(window, (size, size), interpolation=cv2.INTER_LINEAR)
    return resized


def _turned(colours: Floats, saturation: float, hue: float) -> Floats:
    """Saturation multiplied and hue turned by so many degrees; (h, w, 3) float32 BGR, overwritten."""
    hsv = cv2.cvtColor(colours, cv2.COLOR_BGR2HSV, colours)
    if saturation != 1:
        hsv[..., 1] *= np.float32(saturation)
    if hue:
        angle = hsv[..., 0]
        angle += np.float32(hue)
        np.subtract(angle, np.float32(360), out=angle, where=angle > 360)
        np.add(angle, np.float32(360), out=angle, where=angle < 0)
    turned: Floats = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR, hsv)
    return turned


def _normalised(values: Floats, input: Input) -> Floats:
    """Overwrites the values."""
    values -= np.float32(input.mean)
    values *= np.float32(1 / input.std)
    return values
