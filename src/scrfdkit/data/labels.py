"""Labelled pictures as values: what every label format is read into and written from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scrfdkit.types import Floats


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """One picture and its faces.

    path: relative to the data set's picture folder, with forward slashes. width, height: in pixels.
    boxes: (N, 4) float32 x1 y1 x2 y2 in pixels. ignore: (N,) bool, faces that neither count nor hurt.
    keypoints: (N, K, 3) float32 x y v, or None where the set has none; v is 1 visible, 0 hidden, -1 not labelled
        (x and y are then -1 too).
    """

    path: str
    width: int
    height: int
    boxes: Floats
    ignore: NDArray[np.bool_]
    keypoints: Floats | None = None

    def __post_init__(self) -> None:
        n = len(self.boxes)
        good = self.boxes.shape == (n, 4) and self.ignore.shape == (n,)
        if self.keypoints is not None:
            good &= self.keypoints.ndim == 3 and self.keypoints.shape[::2] == (n, 3)
        if not good:
            raise ValueError(f"{self.path}: boxes (N, 4), ignore (N,), keypoints (N, K, 3) are needed")
