"""The road that published SCRFD figures are measured on, from the parts that every other road is made of.

It differs from plain detection in the padding (mid-grey), in rounding sizes to nearest, in boxes being cut to the
picture before suppression, in the overlap being taken without an extra pixel, and in its thresholds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from scrfdkit import decode, image, letterbox
from scrfdkit.detector import Detector
from scrfdkit.errors import OptionError
from scrfdkit.image import Source
from scrfdkit.layout import levels_of
from scrfdkit.letterbox import MULTIPLE, Placement
from scrfdkit.types import Detections

SCORE_THRESHOLD = 0.02
NMS_THRESHOLD = 0.45
GREY = 127.5
"""Value of the padding; 0 after normalisation."""

VGA = (640, 640)
_LARGEST = 16384

Mode = tuple[int, int] | None
"""(width, height) that pictures are fitted into, or None for each picture's own size."""


def parse_mode(text: str) -> Mode:
    """vga (640x640), original, a number N (NxN) or WxH. Raises OptionError."""
    name = text.strip().lower()
    if name == "original":
        return None
    if name == "vga":
        return VGA
    sides = [int(side) for side in name.split("x")] if re.fullmatch(r"[0-9]{1,6}(x[0-9]{1,6})?", name) else []
    if not sides or not all(MULTIPLE <= side <= _LARGEST for side in sides):
        raise OptionError(f"--mode: {text!r} is not vga, original, a size from {MULTIPLE} to {_LARGEST}, or WxH")
    return sides[0], sides[-1]


def place(width: int, height: int, mode: Mode) -> Placement:
    """A picture of width x height pixels on its canvas: the mode's, its sides raised to multiples of 32."""
    if mode is None:
        return letterbox.place_exact(width, height)
    factor = min(mode[0] / width, mode[1] / height)
    # Half a pixel goes up; Python's own `round` would take the even neighbour.
    size = (max(1, int(width * factor + 0.5)), max(1, int(height * factor + 0.5)))
    canvas = letterbox.place_exact(*mode).canvas
    return replace(letterbox.place_exact(width, height, size), canvas=canvas)


def detect(
    detector: Detector,
    picture: Source,
    mode: Mode = VGA,
    *,
    score_threshold: float = SCORE_THRESHOLD,
    nms_threshold: float = NMS_THRESHOLD,
) -> Detections:
    """Faces of one picture, best first, in its pixels, as the reference's evaluation finds them.

    score_threshold: scores must be above it. The detector's own options do not matter.
    Raises ImageError, and OptionError for a network whose fixed input is not the mode's canvas.
    """
    loaded = image.load(picture)
    placement = place(loaded.width, loaded.height, mode)
    fixed = detector.runtime.input_size
    if fixed is not None and fixed != placement.canvas:
        raise OptionError(
            f"--mode: {placement.canvas[0]}x{placement.canvas[1]} is needed for {loaded.name}, but"
            f" {detector.path or 'this network'} takes {fixed[0]}x{fixed[1]} only"
        )
    blob = letterbox.blank(detector.runtime.batch_size or 1, placement.canvas)
    blob[1:] = 0
    letterbox.draw(loaded.pixels, placement, blob[0], detector.input, fill=GREY)
    outputs = detector.runtime.run(blob)
    levels = levels_of(outputs, detector.layout, placement.canvas, 0)
    faces = decode.decode(levels, score_threshold, logits=detector.layout.logits)
    return finish(faces, placement, score_threshold, nms_threshold)


def finish(
    faces: Detections,
    placement: Placement,
    score_threshold: float = SCORE_THRESHOLD,
    nms_threshold: float = NMS_THRESHOLD,
) -> Detections:
    """Candidates on the canvas to faces in the picture's pixels: cut to it before suppression, scores above the
    threshold."""
    faces = faces[faces.scores > score_threshold].clip(*placement.size)
    return decode.suppress(letterbox.unplace(faces, placement), nms_threshold, offset=0)


def of_detector(detector: Detector, mode: Mode = VGA) -> Callable[[Source], Detections]:
    """`detect` with all but the picture given, for whatever takes such a function."""
    return lambda picture: detect(detector, picture, mode)
