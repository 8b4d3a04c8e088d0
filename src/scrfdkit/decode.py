"""Raw head rows to faces: anchor centres, distances to boxes and key points, non-maximum suppression. Pure numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrfdkit.types import Detections, Floats


@dataclass(frozen=True, eq=False)
class Level:
    """The head's output on one stride, for one picture, rows ordered by y, then x, then anchor.

    scores: (N,), probabilities or logits. distances: (N, 4) left, top, right, bottom, in strides.
    offsets: (N, 2K) x, y of the key points from the centre, in strides, or None.
    shape: (h, w) of the map, N = h * w * anchors.
    """

    stride: int
    shape: tuple[int, int]
    scores: Floats
    distances: Floats
    offsets: Floats | None


@lru_cache(maxsize=128)
def centres(height: int, width: int, stride: int, num_anchors: int) -> Floats:
    """(h * w * num_anchors, 2) float32 x, y in pixels: cell (x, y) is centred at (x, y) * stride, without a
    half-cell offset; the anchors of a cell follow each other. Read-only, as it is shared."""
    ys, xs = np.mgrid[:height, :width]
    grid = np.stack([xs, ys], axis=-1).reshape(-1, 2).astype(np.float32) * stride
    grid = np.repeat(grid, num_anchors, axis=0)
    grid.setflags(write=False)
    return grid


def decode(levels: Sequence[Level], score_threshold: float, *, logits: bool = False) -> Detections:
    """All rows with score >= score_threshold as faces, in canvas pixels, in level order, before any suppression.

    logits: the scores still lack their sigmoid.
    """
    edge = _logit(score_threshold) if logits else score_threshold
    return Detections.concatenate([_decode_level(level, edge, logits) for level in levels])


def _decode_level(level: Level, edge: float, logits: bool) -> Detections:
    keep = np.flatnonzero(level.scores >= edge)
    num_keypoints = 0 if level.offsets is None else level.offsets.shape[1] // 2
    if not len(keep):
        return Detections.empty(num_keypoints)
    scores = level.scores[keep].astype(np.float32, copy=False)
    if logits:
        scores = _sigmoid(scores)
    height, width = level.shape
    num_anchors = len(level.scores) // (height * width)
    middle = centres(height, width, level.stride, num_anchors)[keep]
    reach = level.distances[keep].astype(np.float32, copy=False) * np.float32(level.stride)
    boxes = np.concatenate([middle - reach[:, :2], middle + reach[:, 2:]], axis=1)
    points = None
    if level.offsets is not None:
        offsets = level.offsets[keep].astype(np.float32, copy=False)
        points = middle[:, None] + offsets.reshape(len(keep), num_keypoints, 2) * np.float32(level.stride)
    return Detections(boxes, scores, points)


def _logit(p: float) -> float:
    if p <= 0:
        return -math.inf
    return math.inf if p >= 1 else math.log(p / (1 - p))


def _sigmoid(x: Floats) -> Floats:
    exp = np.exp(-np.abs(x))
    result: Floats = np.where(x >= 0, 1 / (1 + exp), exp / (1 + exp)).astype(np.float32)
    return result


def encode(boxes: Floats, middle: Floats, stride: int) -> Floats:
    """The inverse of the box part of `decode`: (N, 4) boxes and (N, 2) centres in pixels to distances in strides."""
    return np.asarray(np.concatenate([middle - boxes[:, :2], boxes[:, 2:] - middle], axis=1) / stride, np.float32)


@np.errstate(divide="ignore", invalid="ignore")
def nms(boxes: Floats, scores: Floats, threshold: float, *, offset: float = 1.0) -> NDArray[np.intp]:
    """Indices kept by greedy suppression, by falling score (equal scores in their order).

    A box goes when its IoU with a better kept one is greater than `threshold`. offset: added to widths and heights;
    1 is the convention of the reference's ONNX tool, 0 that of its evaluation.
    """
    order = np.argsort(-scores, kind="stable")
    left, top, right, bottom = np.ascontiguousarray(boxes[order].T)
    areas = (right - left + offset) * (bottom - top + offset)
    kept: list[int] = []
    rest = np.arange(len(order))
    while rest.size:
        best, rest = rest[0], rest[1:]
        kept.append(best)
        if not rest.size:
            break
        across = np.minimum(right[best], right[rest]) - np.maximum(left[best], left[rest]) + offset
        down = np.minimum(bottom[best], bottom[rest]) - np.maximum(top[best], top[rest]) + offset
        shared = np.maximum(0, across) * np.maximum(0, down)
        # Divided, not multiplied out, so that pairs on the very edge fall as they do in the reference. Two boxes
        # without area give 0 / 0, which is no overlap.
        overlap = shared / (areas[best] + areas[rest] - shared)
        rest = rest[~(overlap > threshold)]
    return order[kept]


def suppress(detections: Detections, threshold: float, *, offset: float = 1.0) -> Detections:
    """The faces that `nms` keeps, best first."""
    return detections[nms(detections.boxes, detections.scores, threshold, offset=offset)]


def keep_best(detections: Detections, max_faces: int, rank: str, width: int, height: int) -> Detections:
    """At most `max_faces` faces by the reference's rankings; more than that are ordered by rank, not by score.

    rank "area": largest box first. "center": area minus twice the squared distance of the box's centre from the
    picture's. max_faces 0: all, unchanged.
    """
    if max_faces <= 0 or len(detections) <= max_faces:
        return detections
    boxes = detections.boxes
    value: NDArray[Any] = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    if rank == "center":
        across = (boxes[:, 0] + boxes[:, 2]) / 2 - width // 2
        down = (boxes[:, 1] + boxes[:, 3]) / 2 - height // 2
        value = value - 2 * (across**2 + down**2)
    return detections[np.argsort(-value, kind="stable")[:max_faces]]
