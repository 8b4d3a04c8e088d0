"""The one letterbox: a picture on the network's canvas, top left, and the way back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from scrfdkit.spec import Input
from scrfdkit.types import Detections, Floats, Image

MULTIPLE = 32
"""Canvas sides are multiples of the largest stride; other sizes make the network's maps and the anchors disagree."""


@dataclass(frozen=True)
class Placement:
    """Where a picture lies on a canvas: it is resized to `size` and put into the top left corner.

    size, canvas: (width, height) in pixels. scale: (x, y), pixels of the canvas a pixel of the original.
    """

    size: tuple[int, int]
    canvas: tuple[int, int]
    scale: tuple[float, float]


def place_fixed(width: int, height: int, canvas: tuple[int, int]) -> Placement:
    """The reference's rule for a canvas of given size: the shorter side is truncated, one scale serves both axes."""
    across, down = canvas
    if height / width > down / across:
        size = (max(1, int(down / (height / width))), down)
    else:
        size = (across, max(1, int(across * height / width)))
    # The reference divides by the scale of the height whichever side was truncated; its boxes depend on it.
    scale = size[1] / height if size[1] > 1 else size[0] / width
    return Placement(size, canvas, (scale, scale))


def place_long_side(width: int, height: int, long_side: int) -> Placement:
    """The long side becomes `long_side`; the canvas is the resized picture padded to multiples of 32."""
    factor = long_side / max(width, height)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return place_exact(width, height, size)


def place_exact(width: int, height: int, size: tuple[int, int] | None = None) -> Placement:
    """Resized to `size`, or left as it is, on a canvas padded to multiples of 32."""
    size = size or (width, height)
    canvas = (-(-size[0] // MULTIPLE) * MULTIPLE, -(-size[1] // MULTIPLE) * MULTIPLE)
    return Placement(size, canvas, (size[0] / width, size[1] / height))


def blank(batch: int, canvas: tuple[int, int]) -> Floats:
    """An uninitialised blob (batch, 3, H, W) float32 for `draw` to fill."""
    return np.empty((batch, 3, canvas[1], canvas[0]), np.float32)


def draw(
    image: Image, placement: Placement, blob: Floats, spec: Input, *, fill: float = 0.0, reduced: bool = False
) -> None:
    """Resizes (bilinear), normalises and writes one picture into its slot of a blob.

    image: (h, w, 3) uint8 BGR. blob: (3, H, W) float32, overwritten: RGB planes, (pixel - mean) / std.
    fill: pixel value around the picture; the reference's ONNX tool pads black (0), its evaluation mid-grey (127.5).
    reduced: the decoder scaled the picture down, by averaging; it is then resized by cubic interpolation, which
        restores the sharpness that small faces need (hard AP -0.16 instead of -0.71, see benchmarks/README.md).
    """
    across, down = placement.size
    if image.shape[1::-1] != placement.size:
        how = cv2.INTER_CUBIC if reduced else cv2.INTER_LINEAR
        image = cv2.resize(image, placement.size, interpolation=how)
    background = (fill - spec.mean) / spec.std
    blob[:, down:] = background
    blob[:, :down, across:] = background
    # Three passes over a plane that fits the cache beat one that converts as it multiplies. Exact in float32 for
    # the standard mean and std, which are dyadic.
    factor, offset = np.float32(1 / spec.std), np.float32(spec.mean / spec.std)
    for plane, channel in zip(blob, reversed(cv2.split(image)), strict=True):
        target = plane[:down, :across]
        np.copyto(target, channel)
        target *= factor
        target -= offset


def unplace(detections: Detections, placement: Placement) -> Detections:
    """Canvas pixels back to picture pixels."""
    # Divided, as the reference does, not multiplied by the inverse: a last bit can decide over a suppression.
    scale = np.array(placement.scale, np.float32)
    points = None if detections.keypoints is None else detections.keypoints / scale
    boxes = np.asarray(detections.boxes / np.tile(scale, 2), np.float32)
    return replace(detections, boxes=boxes, keypoints=points)
