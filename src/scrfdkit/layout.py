"""Which of a network's outputs is what, told by shape: any exporter's order and names will do. Pure numpy.

Rows: (B, N, C) or, in old exports, (N, C), with C = 1 score, 4 distances, 2K key-point offsets.
Maps: (B, A * C, h, w) as the convolutions put them out, as TensorRT and Vastai flows want them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrfdkit.decode import Level
from scrfdkit.errors import ModelError
from scrfdkit.spec import ModelSpec
from scrfdkit.types import Floats


@dataclass(frozen=True)
class Layout:
    """Places of the outputs, a number a level from the finest: scores, boxes, keypoints (empty without landmarks).

    maps: NCHW maps instead of rows. batched: the outputs have a batch axis. logits: scores lack their sigmoid.
    """

    strides: tuple[int, ...]
    num_anchors: int
    num_keypoints: int
    scores: tuple[int, ...]
    boxes: tuple[int, ...]
    keypoints: tuple[int, ...]
    maps: bool
    batched: bool
    logits: bool


def identify(outputs: Sequence[NDArray[Any]], canvas: tuple[int, int]) -> Layout:
    """Works out the layout from the outputs for one blank picture on a canvas of (width, height) pixels.

    Scores outside [0, 1] are taken for logits: on a blank picture every logit of a detector is far below zero.
    Raises ModelError, listing the shapes, if this is no SCRFD head.
    """
    shapes = [tuple(o.shape) for o in outputs]
    ranks = {len(s) for s in shapes}
    if len(ranks) != 1 or not ranks <= {2, 3, 4}:
        raise _not_scrfd(shapes, "every output must have 2, 3 or 4 axes, all the same number")
    maps, batched = ranks == {4}, ranks != {2}
    groups: dict[int, list[int]] = {}
    for index, shape in enumerate(shapes):
        groups.setdefault(shape[-2] * shape[-1] if maps else shape[-2], []).append(index)
    levels = [groups[size] for size in sorted(groups, reverse=True)]
    if len(levels) < 2 or {len(level) for level in levels} not in ({2}, {3}):
        raise _not_scrfd(shapes, "2 outputs a level are needed, or 3 with key points")
    channels = [shape[1] if maps else shape[-1] for shape in shapes]
    num_anchors, num_keypoints, places = _roles(levels, channels, maps, shapes)
    strides = tuple(8 << i for i in range(len(levels)))
    cells = [_cells(canvas, stride) for stride in strides]
    if not maps:
        num_anchors = shapes[places[0][0]][-2] // (cells[0][0] * cells[0][1])
    for stride, (down, across), place in zip(strides, cells, places, strict=True):
        shape = shapes[place[0]]
        if shape[-2:] != (down, across) if maps else shape[-2] != down * across * num_anchors:
            raise _not_scrfd(shapes, f"stride {stride} of a {canvas[0]}x{canvas[1]} input does not give these sizes")
    columns = list(zip(*places, strict=True))
    scores = [outputs[i] for i in columns[0]]
    return Layout(
        strides=strides,
        num_anchors=num_anchors,
        num_keypoints=num_keypoints,
        scores=columns[0],
        boxes=columns[1],
        keypoints=columns[2] if len(columns) > 2 else (),
        maps=maps,
        batched=batched,
        logits=any(bool((s < 0).any() or (s > 1).any()) for s in scores),
    )


def _roles(
    levels: list[list[int]], channels: list[int], maps: bool, shapes: list[tuple[int, ...]]
) -> tuple[int, int, list[tuple[int, ...]]]:
    """Anchors (1 for rows, where it shows in their number), key points, and (score, box[, keypoint]) a level."""
    places: list[tuple[int, ...]] = []
    anchors = min(channels)
    points = 0
    for level in levels:
        score = min(level, key=lambda i: channels[i])
        others = [i for i in level if i != score]
        box = next((i for i in others if channels[i] == 4 * anchors), None)
        if channels[score] != anchors or box is None or (not maps and anchors != 1):
            raise _not_scrfd(shapes, "a score and four distances an anchor are needed on every level")
        rest = [i for i in others if i != box]
        found = channels[rest[0]] if rest else 0
        if found % (2 * anchors) or (places and found != points * 2 * anchors):
            raise _not_scrfd(shapes, "key points are two numbers each, as many on every level")
        points = found // (2 * anchors)
        places.append((score, box, *rest))
    return anchors, points, places


def _cells(canvas: tuple[int, int], stride: int) -> tuple[int, int]:
    return -(-canvas[1] // stride), -(-canvas[0] // stride)


def _not_scrfd(shapes: list[tuple[int, ...]], reason: str) -> ModelError:
    return ModelError(f"these outputs are not an SCRFD head: {reason}; shapes are {shapes}")


def levels_of(outputs: Sequence[NDArray[Any]], layout: Layout, canvas: tuple[int, int], index: int) -> list[Level]:
    """The levels of picture `index` of a batch, as `decode` takes them; views where the layout allows."""

    def rows(place: int, width: int) -> Floats:
        array = outputs[place]
        if not layout.batched:
            return array.reshape(-1, width)
        array = array[index]
        return np.reshape(np.moveaxis(array, 0, -1) if layout.maps else array, (-1, width))

    levels = []
    for i, stride in enumerate(layout.strides):
        offsets = rows(layout.keypoints[i], 2 * layout.num_keypoints) if layout.keypoints else None
        scores, boxes = rows(layout.scores[i], 1)[:, 0], rows(layout.boxes[i], 4)
        levels.append(Level(stride, _cells(canvas, stride), scores, boxes, offsets))
    return levels


def head_names(spec: ModelSpec) -> list[str]:
    """Names of the head's tensors in the order that a network gives them: those of the official files."""
    kinds = ("score", "bbox", "kps") if spec.head.num_keypoints else ("score", "bbox")
    return [f"{kind}_{stride}" for kind in kinds for stride in spec.head.strides]


def head_widths(spec: ModelSpec) -> list[int]:
    """Numbers an anchor of each tensor of `head_names`: 1, 4 or 2K."""
    kinds = (1, 4, 2 * spec.head.num_keypoints) if spec.head.num_keypoints else (1, 4)
    return [width for width in kinds for _ in spec.head.strides]
