"""Blobs of real pictures, made as every runtime gets them, for what looks at activations before it quantises them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from scrfdkit import image, steps
from scrfdkit.errors import ImageError, OptionError
from scrfdkit.export.order import USUAL_SIZE, Order
from scrfdkit.options import Options
from scrfdkit.spec import Input
from scrfdkit.types import Floats

MOST = 128
"""Pictures that are looked at, spread evenly over those that are given. The hard AP of scrfd_2.5g_kps in ONNX's int8
was 76.1 with 16, 76.3 with 32 and 64, 76.4 with 128 and 256."""


def choose(pictures: Sequence[Path], most: int = MOST) -> tuple[Path, ...]:
    """At most so many, evenly spread."""
    if len(pictures) <= most:
        return tuple(pictures)
    return tuple(pictures[i * len(pictures) // most] for i in range(most))


def blobs(order: Order, spec: Input) -> Iterator[Floats]:
    """(1, 3, H, W) float32 of each calibration picture that can be read, letterboxed as the detector does.

    Raises OptionError where none can be read.
    """
    size = order.contract.size or USUAL_SIZE
    options, found = Options(input_size=size), 0
    for number, path in enumerate(order.calibration, 1):
        order.say(f"calibrating: picture {number} of {len(order.calibration)}")
        try:
            picture = image.load(path)
        except ImageError:
            continue
        (batch,) = steps.plan([picture], options, size, 1)
        found += 1
        yield steps.preprocess(batch, spec, 1)
    if not found:
        raise OptionError("calibrate: none of the pictures can be read")
