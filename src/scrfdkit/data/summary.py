"""What a set of labels holds, in numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from scrfdkit.data.labels import LabelledImage

BINS = (4, 8, 16, 32, 64, 128, 256, 512)
"""Edges of the size histogram, in pixels."""


@dataclass(frozen=True)
class Summary:
    """What the set holds. sizes: faces by the geometric mean of their sides, "<4", "4-8", ..., in pixels; ignored faces
    and those without an area are not among them."""

    pictures: int
    pictures_without_faces: int
    faces: int
    ignored: int
    with_landmarks: int
    num_keypoints: int
    sizes: dict[str, int]


def summarize(labels: Sequence[LabelledImage]) -> Summary:
    """Counts of pictures and faces, and the sizes of the faces that are not ignored."""
    counts: Counter[str] = Counter(dict.fromkeys(_bin_names(), 0))
    for m in labels:
        size = np.clip(m.boxes[~m.ignore, 2:] - m.boxes[~m.ignore, :2], 0, None).astype(np.float64)
        side = np.sqrt(size.prod(axis=1))
        for which in np.digitize(side[side > 0], BINS):
            counts[_bin_names()[which]] += 1
    points: list[Any] = [m.keypoints for m in labels if m.keypoints is not None]
    return Summary(
        pictures=len(labels),
        pictures_without_faces=sum(not len(m.boxes) for m in labels),
        faces=sum(len(m.boxes) for m in labels),
        ignored=sum(int(m.ignore.sum()) for m in labels),
        with_landmarks=sum(int((p[:, :, 2] >= 0).any(axis=1).sum()) for p in points),
        num_keypoints=max((p.shape[1] for p in points), default=0),
        sizes=dict(counts),
    )


def _bin_names() -> list[str]:
    between = [f"{low}-{high}" for low, high in pairwise(BINS)]
    return [f"<{BINS[0]}", *between, f">={BINS[-1]}"]
