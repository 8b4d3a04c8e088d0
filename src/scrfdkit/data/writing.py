"""What every label writer shares: numbers in their shortest form, and the tally of what a format cannot carry."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from scrfdkit.data.labels import LabelledImage
from scrfdkit.types import Floats

Losses: TypeAlias = dict[str, int]
"""What a format cannot carry -> how many of them were lost."""

Encoded: TypeAlias = tuple[dict[str, bytes], Losses]
"""Files by their name, "" for a format of one file, and the losses."""

Encode: TypeAlias = Callable[[Sequence[LabelledImage]], Encoded]


def keypoints_of(labels: Sequence[LabelledImage]) -> int:
    """How many key points a face of the set has, 0 where it has none."""
    return max((m.keypoints.shape[1] for m in labels if m.keypoints is not None), default=0)


def shortest(values: Floats) -> NDArray[np.float64]:
    """The float64 with the fewest digits that is the same float32: 53.77, not 53.77000045776367."""
    rounded = np.array(np.round(values.astype(np.float64), 4), np.float64)
    differ = rounded.astype(np.float32) != values
    if differ.any():
        rounded[differ] = [float(str(value)) for value in values[differ]]
    return rounded


def text(value: float) -> str:
    """A number without a needless ".0"."""
    return repr(value).removesuffix(".0")


def sides(boxes: Floats) -> NDArray[np.float64]:
    """(N, 4) x y w h of corners x1 y1 x2 y2, such that x + w is x2 again in float32, with few digits."""
    corners = shortest(boxes)
    low, high = corners[:, :2], corners[:, 2:]
    size = np.round(high - low, 4)
    differ = (low + size).astype(np.float32) != boxes[:, 2:]
    return np.concatenate([low, np.where(differ, high - low, size)], axis=1)


def count_keypoints(labels: Sequence[LabelledImage]) -> Losses:
    """The loss of a format without key points."""
    faces = sum(int((m.keypoints[:, :, 2] >= 0).any(axis=1).sum()) for m in labels if m.keypoints is not None)
    return {"faces' key points": faces} if faces else {}
