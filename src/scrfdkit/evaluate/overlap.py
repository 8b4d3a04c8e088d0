"""Which face each detection lies on, for millions of detections at once.

Two boxes that overlap enough have middles near each other. So detections are sorted by picture and middle once, those
near each face are looked up in that order, and exact overlaps are computed for these few alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

_AT_ONCE = 1 << 21  # pairs compared in one go, which bounds the memory
_BUCKETS = 1 << 16  # places of a middle: 16-bit numbers are sorted several times faster than any others


def best_face(
    num_found: NDArray[Any], found: NDArray[Any], num_faces: NDArray[Any], faces: NDArray[Any], overlap: float | None
) -> NDArray[np.int64]:
    """(D,) index of the face that each detection overlaps most, the first of equals, or -1 for less than `overlap`.

    num_found, num_faces: (I,) detections and faces a picture. found (D, 4), faces (F, 4): x y w h, finite, picture
    after picture. IoU is taken with one pixel added to widths and heights, as WIDER FACE has it.
    overlap: smallest IoU, above 0; None for any, where the face's box, edges included, holds the detection's middle.
    """
    best = np.full(len(found), -1, np.int64)
    if not len(found) or not len(faces):
        return best
    # How far apart middles can be, in widths of the face: beyond this no detection of any size overlaps enough.
    share = 0.5 if overlap is None else (1 - overlap) * max(1.0, 0.5 / overlap)
    rounding = 0.01 + 1e-6 * float(np.abs(faces).max())  # more than float32 loses
    reach = (faces[:, 2:] + 1) * share + rounding
    pairs = list(_near(num_found, _middles(found), num_faces, _middles(faces), reach.astype(np.float32)))
    rows, columns = (np.concatenate(side) for side in zip(*pairs, strict=True))
    a, b = _corners(found[rows]), _corners(faces[columns])
    value = _iou(a, b)
    good = _holds_middle(a, b) if overlap is None else value >= overlap
    rows, columns, value = rows[good], columns[good], value[good]
    # Written from the last to the first and from the worst to the best, so that what stays is the first best.
    order = np.lexsort((-columns, value))
    best[rows[order]] = columns[order]
    return best


def overlaps(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """(A, B) IoU of every box of (A, 4) with every one of (B, 4), x y w h, with the same extra pixel."""
    first, second = np.repeat(_corners(a), len(b), axis=0), np.tile(_corners(b), (len(a), 1))
    value = _iou(first, second).reshape(len(a), len(b))
    return np.where(np.isfinite(value), np.maximum(value, 0), 0)


def as_xywh(xyxy: NDArray[Any]) -> NDArray[Any]:
    """(N, 4) x1 y1 x2 y2 as x y w h, of the same type."""
    return np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)


def _near(
    num_found: NDArray[Any],
    found: NDArray[np.float32],
    num_faces: NDArray[Any],
    faces: NDArray[np.float32],
    reach: NDArray[np.float32],
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Detections and faces whose middles are at most `reach` apart on both axes, as two lists of indices."""
    low, high = faces[:, 0] - reach[:, 0], faces[:, 0] + reach[:, 0]
    bucket, first, last = (_bucket(x, low.min(), high.max()) for x in (found[:, 0], low, high))
    kind = np.uint16 if len(num_found) <= _BUCKETS else np.int64
    picture = np.repeat(np.arange(len(num_found), dtype=kind), num_found)
    order = np.lexsort((bucket, picture))
    key = picture[order].astype(np.int64) * _BUCKETS + bucket[order]
    base = np.repeat(np.arange(len(num_faces)), num_faces) * _BUCKETS
    start = np.searchsorted(key, base + first, "left")
    # A face of negative width, of which WIDER FACE has one, would be near fewer than none.
    num = np.maximum(0, np.searchsorted(key, base + last, "right") - start)
    across = found[:, 1][order]
    ends = np.cumsum(num)
    face = 0
    while face < len(faces):
        done = ends[face - 1] if face else 0
        stop = max(face + 1, int(np.searchsorted(ends, done + _AT_ONCE, "right")))
        some = slice(face, stop)
        column = np.repeat(np.arange(face, stop), num[some])
        place = np.arange(len(column)) + (start[some] - (ends[some] - num[some] - done))[column - face]
        close = np.abs(across[place] - faces[column, 1]) <= reach[column, 1]
        yield order[place[close]], column[close]
        face = stop


def _bucket(x: NDArray[np.float32], low: np.float32, high: np.float32) -> NDArray[np.uint16]:
    """Numbers that rise with x; everything outside [low, high] shares the first or the last."""
    scale = np.float32((_BUCKETS - 1) / max(float(high - low), 1e-6))
    return ((np.clip(x, low, high) - low) * scale).astype(np.uint16)


def _middles(xywh: NDArray[Any]) -> NDArray[np.float32]:
    middle: NDArray[np.float32] = (xywh[:, :2] + (xywh[:, 2:] + 1) / 2).astype(np.float32)
    return middle


def _corners(xywh: NDArray[Any]) -> NDArray[np.float64]:
    """Corners with the protocol's extra pixel.

    The far corner is rounded to the precision that the boxes come in, as the reference's float32 detections are: on
    the edge of an overlap of exactly a half, that decides.
    """
    if xywh.dtype.kind != "f":
        xywh = xywh.astype(np.float64)
    far = (xywh[:, :2] + xywh[:, 2:]).astype(np.float64) + 1
    return np.concatenate([xywh[:, :2].astype(np.float64), far], axis=1)


@np.errstate(divide="ignore", invalid="ignore")
def _iou(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    shared = np.maximum(0, np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0]))
    shared *= np.maximum(0, np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1]))
    area_a, area_b = ((c[:, 2] - c[:, 0]) * (c[:, 3] - c[:, 1]) for c in (a, b))
    value: NDArray[np.float64] = shared / (area_a + area_b - shared)
    return value


def _holds_middle(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Both boxes without the extra pixel."""
    middle = (a[:, :2] + a[:, 2:] - 1) / 2
    return np.asarray(((middle >= b[:, :2]) & (middle <= b[:, 2:] - 1)).all(axis=1))
