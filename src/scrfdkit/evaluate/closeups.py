"""Close-ups: pictures cut so that one face fills a given share of a square frame, and how well such faces are found."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np

from scrfdkit import image
from scrfdkit.data.labels import LabelledImage
from scrfdkit.data.words import plural
from scrfdkit.errors import ImageError, ScrfdError
from scrfdkit.evaluate.run import unreadable
from scrfdkit.types import Detections, Floats, Image

SHARES = (0.40, 0.55, 0.70, 0.85, 0.95)
"""The face's longer side over the frame's side."""

BASELINE = 0.2
"""The share that the same faces are looked at for comparison: large enough for every detector."""

GREY = 128
"""Value of what is outside the picture, as training has it around its crops."""

MIN_FACE = 128
"""Pixels of the longer side of faces that are used. The network's 640 pixels enlarge them up to 4.75 times."""

_JITTER = 0.05  # of the frame's side, by which the face's middle is off the frame's, at most
_LARGEST_FACE = 1024  # pixels; larger ones are shrunk to it, which bounds the memory of their frames

Detect: TypeAlias = Callable[[Image], Detections]


class CloseUpError(ScrfdError):
    """Labels without any face that a close-up can be made of."""


@dataclass(frozen=True)
class Subject:
    """A face to be looked at: the number of its picture, its own number there, and where it stands in its frames.

    offset: x and y in [-1, 1], the face's middle less the frame's, as part of the largest distance that they may have.
    """

    picture: int
    face: int
    offset: tuple[float, float]


@dataclass(frozen=True, eq=False)
class CloseUp:
    """One frame. pixels: (side, side, 3) uint8 BGR. labels: its faces, all of them ignored but for the subject."""

    pixels: Image
    labels: LabelledImage


@dataclass(frozen=True, eq=False)
class Seen:
    """What a detector said to the close-ups of one share: the labels of each, and what was found in it."""

    share: float
    labels: tuple[LabelledImage, ...]
    detections: tuple[Detections, ...]


Views: TypeAlias = "list[tuple[LabelledImage, Detections]]"
Mapper: TypeAlias = Callable[
    [Callable[[Subject], "Views | ImageError"], Sequence[Subject]], "Iterable[Views | ImageError]"
]
"""Whatever goes through the subjects in order: `map`, or a pool of threads."""


def choose(
    labels: Sequence[LabelledImage], *, num: int = 0, min_face: float = MIN_FACE, seed: int = 0
) -> list[Subject]:
    """Faces to make close-ups of: of each picture the largest one that is suitable, in the order of the pictures.

    Suitable is a face that is not ignored, lies wholly inside its picture and has a longer side of at least `min_face`
    pixels. num: at most so many, drawn with the seed, which also says where they stand in their frames; 0 for all.
    Raises CloseUpError where no face is suitable.
    """
    largest = [(number, _largest(each, min_face)) for number, each in enumerate(labels)]
    suitable = [(number, face) for number, face in largest if face is not None]
    if not suitable:
        unknown = sum(not (each.width and each.height) for each in labels)
        hint = f"; the size of {unknown} of them is not known: name their folder with --images" if unknown else ""
        raise CloseUpError(
            f"no face of {plural(len(labels), 'picture')} has {min_face:g} pixels and lies wholly inside it{hint}"
        )
    random = np.random.default_rng(seed)
    # Drawn for every face, so that those of a smaller `num` are among those of a larger one, at the same places.
    offsets = random.uniform(-1, 1, (len(suitable), 2)).tolist()
    picked = sorted(random.permutation(len(suitable))[: num or None].tolist())
    return [Subject(suitable[i][0], suitable[i][1], (offsets[i][0], offsets[i][1])) for i in picked]


def _largest(each: LabelledImage, min_face: float) -> int | None:
    boxes = each.boxes
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0)
    inside = (boxes[:, :2] >= 0).all(axis=1) & (boxes[:, 2:] <= (each.width, each.height)).all(axis=1)
    sides[each.ignore | ~inside | (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)] = 0
    face = int(sides.argmax()) if len(sides) else 0
    return face if len(sides) and sides[face] >= max(min_face, 1) else None


def close_up(labels: LabelledImage, pixels: Image, subject: Subject, share: float, *, fill: int = GREY) -> CloseUp:
    """The square in which the face's longer side is `share` of the frame's side, cut out pixel for pixel.

    pixels: (H, W, 3) uint8 BGR, the labelled picture, which is shrunk first if the face is larger than 1024 pixels.
    share: above 0, at most 1. The face is wholly inside, its middle off the frame's by up to 5 % of the side on each
    axis. What is outside the picture has the value `fill`. Other faces are cut to the frame and ignored.
    """
    labels, pixels = _bounded(labels, pixels, subject.face)
    box = labels.boxes[subject.face].astype(np.float64)
    long = float((box[2:] - box[:2]).max())
    # A pixel more than the face, so that whole pixels hold it wherever it begins.
    side = max(round(long / share), math.ceil(long) + 1)
    slack = (side - (box[2:] - box[:2])) / 2
    middle = (box[:2] + box[2:]) / 2 - np.array(subject.offset) * np.minimum(_JITTER * side, slack)
    corner = np.clip(np.round(middle - side / 2), np.ceil(box[2:] - side), np.floor(box[:2]))
    left, top = corner.astype(int).tolist()
    return CloseUp(_cut(pixels, left, top, side, fill), _moved(labels, subject.face, left, top, side))


def _bounded(labels: LabelledImage, pixels: Image, face: int) -> tuple[LabelledImage, Image]:
    """Picture and labels shrunk so far that the face is no larger than need be."""
    box = labels.boxes[face]
    factor = _LARGEST_FACE / float((box[2:] - box[:2]).max())
    if factor >= 1:
        return labels, pixels
    height, width = pixels.shape[:2]
    size = max(1, round(width * factor)), max(1, round(height * factor))
    x, y = size[0] / width, size[1] / height
    points = None if labels.keypoints is None else labels.keypoints.copy()
    if points is not None:
        points[points[:, :, 2] >= 0] *= np.array([x, y, 1], np.float32)
    boxes = labels.boxes * np.array([x, y, x, y], np.float32)
    small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    return replace(labels, width=size[0], height=size[1], boxes=boxes, keypoints=points), small


def _cut(pixels: Image, left: int, top: int, side: int, fill: int) -> Image:
    frame = np.full((side, side, 3), fill, np.uint8)
    x, y = max(left, 0), max(top, 0)
    part = pixels[y : max(top + side, 0), x : max(left + side, 0)]
    frame[y - top : y - top + part.shape[0], x - left : x - left + part.shape[1]] = part
    return frame


def _moved(labels: LabelledImage, face: int, left: int, top: int, side: int) -> LabelledImage:
    """The labels as the frame has them: the face as it is, others cut to the frame, without points, and ignored."""
    boxes = labels.boxes - np.array([left, top, left, top], np.float32)
    cut = np.clip(boxes, 0, side)
    others = np.arange(len(boxes)) != face
    boxes = np.where(others[:, None], cut, boxes).astype(np.float32)
    keep = ~others | (cut[:, 2:] > cut[:, :2]).all(axis=1)
    points: Floats | None = None
    if labels.keypoints is not None:
        points = np.full_like(labels.keypoints, -1)
        known = labels.keypoints[face, :, 2] >= 0
        points[face, known] = labels.keypoints[face, known] - np.array([left, top, 0], np.float32)
        points = points[keep]
    return LabelledImage(labels.path, side, side, boxes[keep], others[keep], points)


def look(
    labels: Sequence[LabelledImage],
    files: Sequence[Path],
    subjects: Sequence[Subject],
    shares: Sequence[float],
    detect: Detect,
    *,
    fill: int = GREY,
    mapper: Mapper = map,
) -> tuple[list[Seen], list[str]]:
    """Looks at the close-ups of every subject at every share: what was seen, share by share, and notes.

    labels, files: of the pictures that the subjects name by number. detect: takes (side, side, 3) uint8 BGR.
    Pictures that cannot be read are left out, with a note. Raises what `detect` raises, and ImageError if no picture
    can be read.
    """

    def views(subject: Subject) -> Views | ImageError:
        each = labels[subject.picture]
        try:
            pixels = image.load(files[subject.picture]).pixels
        except ImageError as error:
            return error
        frames = (close_up(each, pixels, subject, share, fill=fill) for share in shares)
        return [(frame.labels, detect(frame.pixels)) for frame in frames]

    rows: list[Views] = []
    broken: list[ImageError] = []
    for outcome in mapper(views, subjects):
        if isinstance(outcome, ImageError):
            broken.append(outcome)
        else:
            rows.append(outcome)
    if broken and not rows:
        raise broken[0]
    columns = [Seen(share, *zip(*(row[i] for row in rows), strict=True)) for i, share in enumerate(shares)]
    return columns, list(unreadable(broken))
