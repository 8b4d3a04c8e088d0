"""The values that travel between rooms: pictures and the faces found in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.uint8]
"""A picture: (height, width, 3) uint8, channels in BGR order, as OpenCV has them."""

Floats: TypeAlias = NDArray[np.float32]


FIVE_POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")


def point_names(num_keypoints: int) -> tuple[str, ...]:
    """Names of a network's key points: those of the usual five, else numbers."""
    if num_keypoints == len(FIVE_POINTS):
        return FIVE_POINTS
    return tuple(f"point_{i + 1}" for i in range(num_keypoints))


@dataclass(frozen=True, eq=False)
class Detections:
    """Faces of one picture, in picture pixels.

    boxes: (N, 4) float32, x1 y1 x2 y2; not clipped to the picture.
    scores: (N,) float32 in [0, 1].
    keypoints: (N, K, 2) float32 x y, or None where the network has none. The five points of the official
        networks are left eye, right eye, nose, left and right mouth corner, left and right as seen in the picture.
    ids: (N,) int64 track numbers in a tracked video, else None.

    Zero faces are arrays of the same ranks with N = 0. Raises ValueError where the shapes disagree.
    """

    boxes: Floats
    scores: Floats
    keypoints: Floats | None = None
    ids: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        n = len(self.boxes)
        good = self.boxes.shape == (n, 4) and self.scores.shape == (n,)
        if self.keypoints is not None:
            good &= self.keypoints.ndim == 3 and self.keypoints.shape[::2] == (n, 2)
        if self.ids is not None:
            good &= self.ids.shape == (n,)
        if not good:
            shapes = [getattr(x, "shape", None) for x in (self.boxes, self.scores, self.keypoints, self.ids)]
            raise ValueError(f"boxes (N, 4), scores (N,), keypoints (N, K, 2), ids (N,) are needed; got {shapes}")

    @classmethod
    def empty(cls, num_keypoints: int = 0) -> Detections:
        """No faces: boxes (0, 4), scores (0,), keypoints (0, num_keypoints, 2), or None for 0."""
        points = np.zeros((0, num_keypoints, 2), np.float32) if num_keypoints else None
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), points)

    @classmethod
    def concatenate(cls, parts: Sequence[Detections]) -> Detections:
        """All faces of several values, in order; key points and ids are kept only if every part has them."""
        if not parts:
            return cls.empty()

        def join(arrays: list[Any]) -> Any:
            return None if any(a is None for a in arrays) else np.concatenate(arrays)

        return cls(
            join([p.boxes for p in parts]),
            join([p.scores for p in parts]),
            join([p.keypoints for p in parts]),
            join([p.ids for p in parts]),
        )

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Detections]:
        """The faces one by one, each as a value with N = 1."""
        return (self[i : i + 1] for i in range(len(self)))

    def __getitem__(self, which: int | slice | Sequence[int] | NDArray[Any]) -> Detections:
        """Some of the faces: a slice, a boolean mask or an array of indices; a number gives a value with N = 1.

        Raises IndexError for a number that is out of range.
        """
        if isinstance(which, Integral):
            which = [int(which)]
        return Detections(
            self.boxes[which],
            self.scores[which],
            None if self.keypoints is None else self.keypoints[which],
            None if self.ids is None else self.ids[which],
        )

    def sort(self) -> Detections:
        """By falling score; equal scores keep their order."""
        return self[np.argsort(-self.scores, kind="stable")]

    def scale(self, x: float, y: float) -> Detections:
        """Coordinates multiplied by x and y."""
        factors = np.array([x, y], np.float32)
        points = None if self.keypoints is None else self.keypoints * factors
        return replace(self, boxes=self.boxes * np.tile(factors, 2), keypoints=points)

    def shift(self, x: float, y: float) -> Detections:
        """Coordinates moved by x and y pixels."""
        offset = np.array([x, y], np.float32)
        points = None if self.keypoints is None else self.keypoints + offset
        return replace(self, boxes=self.boxes + np.tile(offset, 2), keypoints=points)

    def clip(self, width: int, height: int) -> Detections:
        """Boxes cut to the picture [0, width] x [0, height]; key points stay where they are."""
        limit = np.array([width, height, width, height], np.float32)
        return replace(self, boxes=np.clip(self.boxes, 0, limit))

    def to_dict(self, digits: int = 2) -> list[dict[str, Any]]:
        """One plain dictionary a face, ready for JSON: box, score, keypoints and id where there are any."""
        faces: list[dict[str, Any]] = []
        for i in range(len(self)):
            face: dict[str, Any] = {
                "box": [round(v, digits) for v in self.boxes[i].tolist()],
                "score": round(float(self.scores[i]), 4),
            }
            if self.keypoints is not None:
                face["keypoints"] = [[round(v, digits) for v in p] for p in self.keypoints[i].tolist()]
            if self.ids is not None:
                face["id"] = int(self.ids[i])
            faces.append(face)
        return faces

    @classmethod
    def from_dict(cls, faces: Sequence[dict[str, Any]], num_keypoints: int = 0) -> Detections:
        """The inverse of `to_dict`, up to its rounding."""
        if not faces:
            return cls.empty(num_keypoints)
        points = [f.get("keypoints") for f in faces]
        ids = [f.get("id") for f in faces]
        return cls(
            np.array([f["box"] for f in faces], np.float32),
            np.array([f["score"] for f in faces], np.float32),
            None if any(p is None for p in points) else np.array(points, np.float32),
            None if any(i is None for i in ids) else np.array(ids, np.int64),
        )
