"""Labelled pictures drawn, and many of them on one contact sheet with a key to its colours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfdkit import draw
from scrfdkit.errors import ScrfdError
from scrfdkit.types import Detections, Floats, Image, point_names

_GAP, _LEAST, _USUAL, _MOST, _WIDE = 8, 320, 480, 960, 1920  # pixels: between cells; sides of a cell; a whole sheet
_ROW = 20  # pixels of a line of text
_FACE, _BARE = 0, 2  # of draw.PALETTE: a face, and one without any key point where others have some
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)
_DOT = (70, 70, 255)
_GROUND = 16  # gray


@dataclass(frozen=True, eq=False)
class Labelled:
    """A picture with the faces that it is said to have, for drawing.

    pixels: (h, w, 3) uint8 BGR. boxes: (n, 4) x1 y1 x2 y2 in its pixels. keypoints: (n, K, 3) x y v with v 1 visible,
    0 hidden, below 0 not labelled; None for none. ignore: (n,) bool, None for no face. dots: (m, 2) x y of further
    points to mark, such as centres of anchors. words: lines of text below the picture.
    """

    pixels: Image
    boxes: Floats
    keypoints: Floats | None = None
    ignore: NDArray[np.bool_] | None = None
    dots: Floats | None = None
    words: tuple[str, ...] = ()

    @property
    def ignored(self) -> NDArray[np.bool_]:
        """(n,) bool, whether it was given or not."""
        return np.zeros(len(self.boxes), bool) if self.ignore is None else self.ignore

    @property
    def bare(self) -> NDArray[np.bool_]:
        """(n,) bool: faces without any labelled key point, of a picture whose faces could have some."""
        if self.keypoints is None or not self.keypoints.shape[1]:
            return np.zeros(len(self.boxes), bool)
        return np.asarray((self.keypoints[:, :, 2] < 0).all(axis=1))


def cell_side(number: int) -> int:
    """The longest side in pixels that a picture has on a sheet of so many."""
    return max(_USUAL, min(_MOST, _WIDE // _across(number)))


def fit(picture: Labelled, most: int) -> Labelled:
    """The picture shrunk until its longer side is at most `most` pixels; a very small one is enlarged, as whole
    multiples of its pixels. What is labelled goes along. Lines drawn afterwards stay legible."""
    height, width = picture.pixels.shape[:2]
    longer = max(height, width)
    factor = max(1, min(_USUAL, most) // longer) if longer <= most else most / longer
    if factor == 1:
        return picture
    size = max(1, round(width * factor)), max(1, round(height * factor))
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST
    x, y = np.float32(size[0] / width), np.float32(size[1] / height)
    return replace(
        picture,
        pixels=np.asarray(cv2.resize(picture.pixels, size, interpolation=how), np.uint8),
        boxes=picture.boxes * np.array([x, y, x, y]),
        keypoints=None if picture.keypoints is None else picture.keypoints * np.array([x, y, 1], np.float32),
        dots=None if picture.dots is None else picture.dots * np.array([x, y]),
    )


def mark(picture: Labelled) -> Image:
    """A copy of the pixels with everything that is labelled drawn on it.

    Faces have a solid box, in a second colour where they lack key points that other faces have; ignored ones a frame
    of black and white dashes. Key points have the colours that `draw.annotate` gives them: visible ones filled,
    hidden ones as rings; what is not labelled is not drawn.
    """
    ignore = picture.ignored
    colours = np.where(picture.bare, _BARE, _FACE).astype(np.int64)
    faces = Detections(picture.boxes, np.ones(len(ignore), np.float32), ids=colours)
    out = draw.annotate(picture.pixels, faces[~ignore], scores=False, ids=False)
    line = max(1, round(min(out.shape[:2]) / 400))
    for box in _whole(picture.boxes[ignore]):
        _dashes(out, box, line)
    for x, y in () if picture.dots is None else _whole(picture.dots):
        cv2.circle(out, (x, y), line + 1, _BLACK, -1, cv2.LINE_AA)
        cv2.circle(out, (x, y), line, _DOT, -1, cv2.LINE_AA)
    if picture.keypoints is not None:
        for box, points in zip(picture.boxes, picture.keypoints, strict=True):
            _points(out, box, points, line)
    return out


def contact_sheet(pictures: Sequence[Labelled]) -> Image:
    """All pictures marked, in rows from left to right, their words below each, and a key to the colours at the end.

    Returns (h, w, 3) uint8 BGR. Raises ValueError for no pictures.
    """
    if not pictures:
        raise ValueError("a sheet needs pictures")
    fitted = [fit(picture, cell_side(len(pictures))) for picture in pictures]
    across = _across(len(fitted))
    width = max(_LEAST, *(picture.pixels.shape[1] for picture in fitted))
    total = across * (width + _GAP) + _GAP
    bands = [np.full((_GAP, total, 3), _GROUND, np.uint8)]
    for first in range(0, len(fitted), across):
        cells = fitted[first : first + across]
        height = max(picture.pixels.shape[0] for picture in cells)
        band = np.full((height + max(len(p.words) for p in cells) * _ROW + 4 + _GAP, total, 3), _GROUND, np.uint8)
        for i, picture in enumerate(cells):
            x = _GAP + i * (width + _GAP)
            _draw_cell(band[:-_GAP, x : x + width], picture, height)
        bands.append(band)
    return np.concatenate([*bands, _key(pictures, total)])


def encoded(picture: Image, suffix: str) -> bytes:
    """The bytes of a picture file. Raises ScrfdError where its format cannot hold the size."""
    # JPEG would by default keep a quarter of the colours, and lines of one pixel lose theirs.
    sharp = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444, cv2.IMWRITE_JPEG_QUALITY, 92]
    good, data = cv2.imencode(suffix.lower(), picture, sharp if suffix.lower() in (".jpg", ".jpeg") else [])
    if not good:
        raise ScrfdError(f"a sheet of {picture.shape[1]}x{picture.shape[0]} pixels cannot be written as {suffix}")
    content: Any = data
    return bytes(content.tobytes())


def _across(number: int) -> int:
    """Cells side by side."""
    return max(n for n in range(1, number + 1) if (n - 1) ** 2 < number)


def _whole(values: NDArray[Any]) -> list[list[int]]:
    """OpenCV takes 32-bit integers; nothing far outside a picture is seen anyway."""
    found: list[list[int]] = np.nan_to_num(np.clip(values, -30000, 30000)).round().astype(int).tolist()
    return found


def _dashes(out: Image, box: Sequence[int], line: int) -> None:
    """A frame that shows on any background and looks like no face's."""
    x1, y1, x2, y2 = box
    height, width = out.shape[:2]
    cv2.rectangle(out, (x1, y1), (x2, y2), _BLACK, line)
    dash = 4 * line
    # Only what lies in the picture: a box that reaches far out has no end of dashes.
    for x in range(max(x1, x1 % (2 * dash) - 2 * dash), min(x2, width), 2 * dash):
        for y in (y1, y2):
            cv2.line(out, (x, y), (min(x + dash, x2), y), _WHITE, line)
    for y in range(max(y1, y1 % (2 * dash) - 2 * dash), min(y2, height), 2 * dash):
        for x in (x1, x2):
            cv2.line(out, (x, y), (x, min(y + dash, y2)), _WHITE, line)


def _points(out: Image, box: NDArray[Any], points: NDArray[Any], line: int) -> None:
    side = float(min(box[2] - box[0], box[3] - box[1]))
    # On a small face dots of the picture's size would hide it.
    radius = max(1, min(2 * line + 1, round(side / 24)))
    for i, (at, seen) in enumerate(zip(_whole(points[:, :2]), points[:, 2].tolist(), strict=True)):
        colour = draw.PALETTE[(i + 1) % len(draw.PALETTE)]
        if seen < 0:
            continue
        if seen == 0:
            cv2.circle(out, at, radius + line + 1, _BLACK, line + 2, cv2.LINE_AA)
            cv2.circle(out, at, radius + line + 1, colour, line, cv2.LINE_AA)
            continue
        if radius > 1:
            cv2.circle(out, at, radius + 1, _BLACK, -1, cv2.LINE_AA)
        cv2.circle(out, at, radius, colour, -1, cv2.LINE_AA)


def _draw_cell(out: Image, picture: Labelled, high: int) -> None:
    """The picture in the middle of the upper `high` rows of a cell, and lines of text below."""
    out[:] = 32
    height, width = picture.pixels.shape[:2]
    top, left = (high - height) // 2, (out.shape[1] - width) // 2
    out[top : top + height, left : left + width] = mark(picture)
    for row, words in enumerate(picture.words):
        tint = 235 if row == 0 else 170
        _write(out, _shorten(words, out.shape[1] - 12), 6, high + row * _ROW, (tint, tint, tint))


def _write(out: Image, words: str, x: int, y: int, colour: tuple[int, int, int] = (200, 200, 200)) -> None:
    """Words in a row that begins at y. OpenCV's letters are ASCII only."""
    plain = words.encode("ascii", "replace").decode()
    cv2.putText(out, plain, (x, y + 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)


def _long(words: str) -> int:
    """Pixels."""
    (width, _), _ = cv2.getTextSize(words, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)
    return int(width)


def _shorten(words: str, most: int) -> str:
    """Without its middle where it is longer than `most` pixels."""
    short, keep = words, len(words)
    while _long(short) > most:
        keep -= 2
        short = f"{words[: keep // 2]}...{words[len(words) - keep // 2 :]}"
    return short


def _key(pictures: Sequence[Labelled], width: int) -> Image:
    """What the colours mean, as far as they occur, in rows as wide as the sheet."""
    icon, rows, x = 24, [], width
    for drawn, words in _meanings(pictures, icon):
        if x + icon + _long(words) + 24 > width:
            rows.append(np.full((icon + 4, width, 3), _GROUND, np.uint8))
            x = _GAP
        rows[-1][:icon, x : x + icon] = drawn[:, : width - x]
        _write(rows[-1], words, x + icon + 4, 1)
        x += icon + _long(words) + 24
    return np.concatenate(rows) if rows else np.zeros((0, width, 3), np.uint8)


def _meanings(pictures: Sequence[Labelled], icon: int) -> Iterator[tuple[Image, str]]:
    """Each sign, drawn by the very function that draws the pictures, and what it stands for."""
    blank = np.full((icon, icon, 3), _GROUND, np.uint8)
    box, far = np.array([[5, 5, 19, 19]], np.float32), np.array([[-99, -99, -9, -9]], np.float32)
    centre = icon / 2
    plain = [~p.ignored & ~p.bare for p in pictures]
    count = max((0 if p.keypoints is None else p.keypoints.shape[1] for p in pictures), default=0)
    seen = {v for p in pictures if p.keypoints is not None for v in np.unique(p.keypoints[:, :, 2]).tolist()}
    if any(which.any() for which in plain):
        yield mark(Labelled(blank, box)), "face"
    if any((p.bare & ~p.ignored).any() for p in pictures):
        yield mark(Labelled(blank, box, np.full((1, 1, 3), -1, np.float32))), "face without key points"
    if any(p.ignored.any() for p in pictures):
        yield mark(Labelled(blank, box, ignore=np.ones(1, bool))), "ignored"
    if any(v >= 0 for v in seen) and count < len(draw.PALETTE):
        for i, name in enumerate(point_names(count)):
            points = np.full((1, count, 3), -1, np.float32)
            points[0, i] = centre, centre, 1
            yield mark(Labelled(blank, far, points)), name.replace("_", " ")
    if 0 in seen:
        points = np.array([[[centre, centre, 0]]], np.float32)
        yield mark(Labelled(blank, far, points)), "hidden"
    if any(p.dots is not None and len(p.dots) for p in pictures):
        yield mark(Labelled(blank, far, dots=np.array([[centre, centre]], np.float32))), "positive anchor"
