"""Pictures made from detections: annotated, anonymised, and single faces cut out."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfdkit.types import Detections, Image

Method = Literal["blur", "pixelate", "black"]
Shape = Literal["ellipse", "box"]

FACE_TEMPLATE = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)],
    np.float32,
)
"""Where the five points of a face lie in the 112 x 112 crop that ArcFace-like recognition networks take."""

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_HEIGHT = 22.0  # pixels of a capital letter at font scale 1
_BLACK = (0, 0, 0)
PALETTE = (
    (80, 220, 60),
    (60, 160, 255),
    (255, 170, 40),
    (200, 90, 255),
    (60, 230, 240),
    (240, 230, 60),
    (120, 120, 255),
    (255, 140, 160),
)
"""BGR colours: of faces by track number, and from the second on of a face's key points in their order."""

_CELLS = 6
"""Cells along the longer side of a pixelated face; a blur is as coarse. Eyes and mouth do not show."""


def annotate(
    image: Image, detections: Detections, *, scores: bool = True, keypoints: bool = True, ids: bool = True
) -> Image:
    """A copy with every face's box, score, key points and track number drawn on it.

    Lines and letters grow with the picture, and letters with the face, so that crowds stay legible; a label
    that would lie over a better face's label is left out. Boxes have a dark rim, so that they show on any
    background. Faces with a track number keep one colour.
    """
    out = image.copy()
    line = max(1, round(min(image.shape[:2]) / 400))
    order = np.argsort(-detections.scores, kind="stable")
    for i in reversed(order):  # the best face is drawn last, on top
        _draw_box(out, detections.boxes[i], _colour(detections, i), line)
        if keypoints and detections.keypoints is not None:
            _draw_points(out, detections.keypoints[i], detections.boxes[i], line)
    taken = np.zeros(image.shape[:2], bool)
    for i in order:
        words = [f"#{detections.ids[i]}"] if ids and detections.ids is not None else []
        words += [f"{detections.scores[i]:.2f}"] if scores else []
        if words:
            label, colour = " ".join(words), _colour(detections, i)
            _draw_label(out, label, taken=taken, box=detections.boxes[i], colour=colour, line=line)
    return out


def _colour(detections: Detections, i: int) -> tuple[int, int, int]:
    return PALETTE[0 if detections.ids is None else int(detections.ids[i]) % len(PALETTE)]


def _pixel(point: NDArray[Any]) -> tuple[int, int]:
    """OpenCV takes 32-bit integers; nothing far outside a picture is seen anyway."""
    x, y = np.nan_to_num(np.clip(point, -30000, 30000))
    return round(float(x)), round(float(y))


def _draw_box(image: Image, box: NDArray[Any], colour: tuple[int, int, int], line: int) -> None:
    (x1, y1), (x2, y2) = _pixel(box[:2]), _pixel(box[2:])
    rim = max(1, line // 3)
    small = min(x2 - x1, y2 - y1) < 10 * line  # an inner rim would hide a small face
    bands = [(line // 2 + rim, rim, _BLACK), (line // 2, line, colour)]
    bands += [] if small else [(line // 2 - line, rim, _BLACK)]
    for out, width, tint in bands:  # each a frame of `width` pixels that starts `out` pixels outside the box
        left, top, right, bottom = x1 - out, y1 - out, x2 + out, y2 + out
        for a, b in (
            ((left, top), (right, top + width - 1)),
            ((left, bottom - width + 1), (right, bottom)),
            ((left, top), (left + width - 1, bottom)),
            ((right - width + 1, top), (right, bottom)),
        ):
            cv2.rectangle(image, a, b, tint, -1)


def _draw_points(image: Image, points: NDArray[Any], box: NDArray[Any], line: int) -> None:
    side = float(min(box[2] - box[0], box[3] - box[1]))
    # On a small face dots of the picture's size would hide it.
    radius = max(1, min(round(1.5 * line), round(side / 20)))
    for i, point in enumerate(points):
        if radius > 1:
            cv2.circle(image, _pixel(point), radius + 1, _BLACK, -1, cv2.LINE_AA)
        cv2.circle(image, _pixel(point), radius, PALETTE[(i + 1) % len(PALETTE)], -1, cv2.LINE_AA)


def _draw_label(
    image: Image,
    text: str,
    *,
    taken: NDArray[np.bool_],
    box: NDArray[Any],
    colour: tuple[int, int, int],
    line: int,
) -> None:
    """Above the box, else below it, else inside its upper edge: the first that is free of other labels."""
    height, width = image.shape[:2]
    largest = max(9.0, min(height, width) / 36)
    letters = float(np.clip((box[2] - box[0]) / 4, 9.0, largest))
    scale, stroke = letters / _FONT_HEIGHT, max(1, round(letters / 11))
    (text_width, text_height), _ = cv2.getTextSize(text, _FONT, scale, stroke)
    pad = max(2, round(letters / 5))
    label_width, label_height = text_width + 2 * pad, text_height + 2 * pad
    (left, top), (_, bottom) = _pixel(box[:2]), _pixel(box[2:])
    x = max(0, min(left - line // 2, width - label_width))
    for y in (top - line - label_height, bottom + line + 1, max(0, top)):
        area = (slice(y, y + label_height), slice(x, x + label_width))
        if y >= 0 and y + label_height <= height and not taken[area].any():
            taken[area] = True
            cv2.rectangle(image, (x, y), (x + label_width - 1, y + label_height - 1), colour, -1)
            cv2.putText(image, text, (x + pad, y + pad + text_height), _FONT, scale, _BLACK, stroke, cv2.LINE_AA)
            return


def anonymize(
    image: Image,
    detections: Detections,
    method: Method = "blur",
    *,
    margin: float = 0.25,
    shape: Shape = "ellipse",
) -> Image:
    """A copy whose faces cannot be read.

    method: "blur", "pixelate" (six cells along what is covered, whatever its size) or "black". Only black leaves
        nothing of the face behind; the other two stop people who look, and are no proof against a program.
    margin: by how much of its width and height a box grows on every side. From 0.21 on the ellipse covers the
        whole box.
    Boxes may reach over the edge of the picture; their size, not what is left of them, decides the strength.
    Raises ValueError for an unknown method or shape, or a negative margin.
    """
    if method not in get_args(Method):
        raise ValueError(f"method: {method!r} is not one of {get_args(Method)}")
    if shape not in get_args(Shape):
        raise ValueError(f"shape: {shape!r} is not one of {get_args(Shape)}")
    if not margin >= 0:
        raise ValueError(f"margin: {margin} is negative")
    out = image.copy()
    for box in detections.boxes:
        _hide(out, _grow(box, margin), method, shape)
    return out


def _grow(box: NDArray[Any], margin: float) -> NDArray[np.float64]:
    low, high = np.asarray(box[:2], np.float64), np.asarray(box[2:], np.float64)
    return np.concatenate([low - margin * (high - low), high + margin * (high - low)])


def _window(box: NDArray[Any], shape: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """The whole pixels that a box touches inside the picture, as x1 y1 x2 y2, or None if there are none."""
    if not np.isfinite(box).all():
        return None
    height, width = shape[:2]
    x1, y1 = (math.floor(max(0.0, v)) for v in box[:2])
    x2, y2 = math.ceil(min(float(width), box[2])), math.ceil(min(float(height), box[3]))
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def _hide(image: Image, box: NDArray[np.float64], method: Method, shape: Shape) -> None:
    window = _window(box, image.shape)
    if window is None:
        return
    x1, y1, x2, y2 = window
    area = image[y1:y2, x1:x2]
    if method == "black":
        hidden = np.zeros_like(area)
    else:
        hidden = _coarse(area, float(max(box[2] - box[0], box[3] - box[1])), smooth=method == "blur")
    if shape == "box":
        area[:] = hidden
        return
    # Pixel centres against the ellipse in the box; half a pixel more takes in its rim.
    across = (np.arange(x1, x2) + 0.5 - (box[0] + box[2]) / 2) / ((box[2] - box[0]) / 2 + 0.5)
    down = (np.arange(y1, y2) + 0.5 - (box[1] + box[3]) / 2) / ((box[3] - box[1]) / 2 + 0.5)
    inside = across[None, :] ** 2 + down[:, None] ** 2 <= 1
    area[inside] = hidden[inside]


def _coarse(area: Image, side: float, smooth: bool) -> Image:
    """The area in cells of side / 6 pixels, with sharp edges or blended into each other."""
    cell = max(2.0, side / _CELLS)
    height, width = area.shape[:2]
    small = (max(1, round(width / cell)), max(1, round(height / cell)))
    cells = cv2.resize(area, small, interpolation=cv2.INTER_AREA)
    kind = cv2.INTER_CUBIC if smooth else cv2.INTER_NEAREST
    return np.asarray(cv2.resize(cells, (width, height), interpolation=kind), np.uint8)


def similarity(source: NDArray[Any], target: NDArray[Any]) -> NDArray[np.float64]:
    """The 2 x 3 matrix that turns, scales and moves `source` points onto `target` best.

    Both are (K, 2); best means least squares: Umeyama, "Least-squares estimation of transformation parameters
    between two point patterns", 1991. Raises ValueError where the source points coincide or are not finite:
    there is no such matrix then.
    """
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    middle, goal = source.mean(axis=0), target.mean(axis=0)
    spread = float(((source - middle) ** 2).sum()) / len(source)
    if not (math.isfinite(spread) and spread > 1e-12):
        raise ValueError("key points that coincide or are not finite cannot be aligned")
    u, strengths, vt = np.linalg.svd((target - goal).T @ (source - middle) / len(source))
    signs = np.array([1.0, np.sign(np.linalg.det(u @ vt))])  # a turn, never a mirror image
    linear = (float((strengths * signs).sum()) / spread) * (u @ np.diag(signs) @ vt)
    return np.hstack([linear, (goal - linear @ middle)[:, None]])


def align(image: Image, keypoints_52: NDArray[Any], size: int = 112) -> Image:
    """One face turned upright and scaled to (size, size, 3), ready for face recognition.

    keypoints_52: (5, 2), the order of `Detections.keypoints`. Pixels from outside the picture are black.
    Raises ValueError for another shape, for points that coincide, or for a size below one pixel.
    """
    if size < 1:
        raise ValueError(f"size: {size} is not a number of pixels from 1")
    if np.shape(keypoints_52) != (5, 2):
        raise ValueError(f"align needs five key points, shape (5, 2), got {np.shape(keypoints_52)}")
    matrix = similarity(keypoints_52, FACE_TEMPLATE * (size / 112))
    shrink = math.sqrt(abs(float(np.linalg.det(matrix[:, :2]))))
    if shrink < 0.5:
        image, matrix = _reduced(image, matrix, size, shrink)
    return np.asarray(cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR), np.uint8)


def _reduced(image: Image, matrix: NDArray[np.float64], size: int, shrink: float) -> tuple[Image, NDArray[np.float64]]:
    """The part of the picture that `matrix` shows, made smaller by averaging, and the matrix that fits it.

    A bilinear warp looks at four pixels only and would alias where many fall onto one.
    """
    back = np.asarray(cv2.invertAffineTransform(matrix), np.float64)
    corners = np.array([(x, y, 1) for x in (0, size) for y in (0, size)]) @ back.T
    margin = 2 / shrink
    window = _window(np.concatenate([corners.min(axis=0) - margin, corners.max(axis=0) + margin]), image.shape)
    if window is None:
        return image, matrix
    x1, y1, x2, y2 = window
    width, height = max(1, round((x2 - x1) * shrink)), max(1, round((y2 - y1) * shrink))
    fx, fy = (x2 - x1) / width, (y2 - y1) / height
    # A pixel's index is its centre: index i of the small picture lies at (i + 0.5) f - 0.5 of the part.
    small_to_full = np.array([[fx, 0, x1 + (fx - 1) / 2], [0, fy, y1 + (fy - 1) / 2], [0, 0, 1]])
    small = cv2.resize(image[y1:y2, x1:x2], (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8), matrix @ small_to_full


def is_visible(box: NDArray[Any], width: int, height: int) -> bool:
    """Whether any of the box lies inside a picture of width x height. Then `crop` finds something of it."""
    return _window(np.asarray(box, np.float64), (height, width)) is not None


def crop(image: Image, box: NDArray[Any], margin: float = 0.25) -> Image:
    """A copy of the part of the picture in the box, grown by `margin` of its size on every side.

    Raises ValueError where nothing of it lies inside the picture.
    """
    window = _window(_grow(np.asarray(box), margin), image.shape)
    if window is None:
        raise ValueError(f"box {np.asarray(box).tolist()} lies outside the picture of shape {image.shape}")
    x1, y1, x2, y2 = window
    return image[y1:y2, x1:x2].copy()
