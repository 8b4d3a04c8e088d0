"""The labels of a training set as tensors: every face of every picture in one row, and batches of them padded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scrfdkit.data import pictures
from scrfdkit.data.labels import LabelledImage
from scrfdkit.errors import OptionError
from scrfdkit.types import Floats

SMALLEST_SIDE = 32
"""Pictures with a shorter side are left out, as in the reference: no window of theirs holds a usable face."""


class Padded(NamedTuple):
    """The faces of B pictures, G places each.

    boxes_BG4: x1 y1 x2 y2 in pixels. points_BGK3: x y v, K may be 0; v as in `LabelledImage`. face_BG: a face to be
    found is at this place, neither padding nor ignored. sizes_B2: width and height of the pictures.
    """

    boxes_BG4: Tensor
    points_BGK3: Tensor
    face_BG: Tensor
    sizes_B2: Tensor


@dataclass(frozen=True, eq=False)
class Faces:
    """All labels of a training set, one row a face.

    boxes: (M, 4) float32 x1 y1 x2 y2. points: (M, K, 3) float32 x y v. counts: (M,) bool, False for ignored ones.
    starts: (N + 1,) int64 on the CPU, first row of each picture. sizes: (N, 2) float32 width, height.
    paths: (N,) relative to the pictures' folder.
    """

    boxes: Tensor
    points: Tensor
    counts: Tensor
    starts: Tensor
    sizes: Tensor
    paths: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def num_keypoints(self) -> int:
        """Key points a face."""
        return self.points.shape[1]

    def to(self, device: torch.device | str) -> Faces:
        """A copy on a device; `starts` stays on the CPU, so that a batch's size is known without asking the GPU."""
        moved = {name: getattr(self, name).to(device) for name in ("boxes", "points", "counts", "sizes")}
        return replace(self, **moved)

    def scaled(self, scales: Tensor) -> Faces:
        """For pictures that were resized: scales (N,) factors of their sides."""
        factor = scales.to(self.boxes).repeat_interleave(self.starts.diff().to(scales.device))
        points = self.points.clone()
        points[..., :2] *= factor[:, None, None]
        return replace(self, boxes=self.boxes * factor[:, None], points=points, sizes=self.sizes * scales[:, None])

    def of(self, pictures_B: Tensor) -> Padded:
        """pictures_B: int64 numbers of pictures, on the CPU. G is the number of faces of the fullest of them."""
        device = self.boxes.device
        first = self.starts[pictures_B]
        number = self.starts[pictures_B + 1] - first
        place_G = torch.arange(max(1, int(number.max())))
        there_BG = place_G < number[:, None]
        rows_BG = torch.where(there_BG, first[:, None] + place_G, 0)
        there_BG, rows_BG = there_BG.to(device, non_blocking=True), rows_BG.to(device, non_blocking=True)
        if not len(self.boxes):  # nothing but pictures without faces
            shape = there_BG.shape
            boxes, points = self.boxes.new_zeros(*shape, 4), self.points.new_zeros(*shape, self.num_keypoints, 3)
            return Padded(boxes, points, there_BG, self.sizes[pictures_B.to(device)])
        face_BG = there_BG & self.counts[rows_BG]
        return Padded(self.boxes[rows_BG], self.points[rows_BG], face_BG, self.sizes[pictures_B.to(device)])


class Chosen(NamedTuple):
    """Labels fit for training, and what was left out and why, in words."""

    faces: Faces
    notes: tuple[str, ...]


def choose(labels: Sequence[LabelledImage], folder: Path, num_keypoints: int, *, backgrounds: bool = False) -> Chosen:
    """Labels -> tensors. Pictures without a face to be found are left out, unless `backgrounds` keeps those that have
    no face at all.

    num_keypoints: of the network. Where labels have none, or another number, all count as not labelled; labels with
    another number are an error, since nobody can tell which is which.
    Raises OptionError where nothing is left, and ImageError for a picture whose size is needed and cannot be read.
    """
    left_out: Counter[str] = Counter()
    kept: list[tuple[LabelledImage, Floats]] = []
    for image in labels:
        image = _with_size(image, folder)
        points = _points(image, num_keypoints)
        sound = _sound(image)
        left_out["face without width, height or a place in its picture"] += int((~sound & ~image.ignore).sum())
        if min(image.width, image.height) < SMALLEST_SIDE:
            left_out[f"picture with a side below {SMALLEST_SIDE} pixels"] += 1
        elif not (sound & ~image.ignore).any() and not (backgrounds and not len(image.boxes)):
            reason = "picture whose faces are all ignored" if len(image.boxes) else "picture without faces"
            left_out[reason] += 1
        else:
            bare = replace(image, boxes=image.boxes[sound], ignore=image.ignore[sound], keypoints=None)
            kept.append((bare, points[sound]))
    if not kept:
        raise OptionError("data: no picture has a face to learn from")
    notes = tuple(f"left out: {number:,} x {what}" for what, number in left_out.items() if number)
    return Chosen(_tensors(kept, num_keypoints), notes)


def _with_size(image: LabelledImage, folder: Path) -> LabelledImage:
    if image.width and image.height:
        return image
    width, height = pictures.size(folder / image.path)
    return replace(image, width=width, height=height)


def _sound(image: LabelledImage) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """(N,) boxes with an area whose middle lies inside the picture: only those can ever be in a window."""
    boxes = image.boxes
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = ((middle > 0) & (middle < (image.width, image.height))).all(axis=1)
    return np.asarray(inside & (boxes[:, 2:] > boxes[:, :2]).all(axis=1), bool)


def _points(image: LabelledImage, num_keypoints: int) -> Floats:
    """(N, num_keypoints, 3); what is not labelled is -1 throughout."""
    if image.keypoints is None or not num_keypoints:
        return np.full((len(image.boxes), num_keypoints, 3), -1, np.float32)
    if image.keypoints.shape[1] != num_keypoints:
        raise OptionError(
            f"{image.path}: its faces have {image.keypoints.shape[1]} key points, the network has {num_keypoints};"
            f" train with --keypoints {image.keypoints.shape[1]} to change the network"
        )
    return image.keypoints


def _tensors(kept: Sequence[tuple[LabelledImage, Floats]], num_keypoints: int) -> Faces:
    def joined(arrays: Sequence[Floats], shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(np.concatenate([np.zeros((0, *shape), np.float32), *arrays]).astype(np.float32))

    counts = np.concatenate([np.zeros(0, bool), *(~image.ignore for image, _ in kept)])
    numbers = torch.tensor([0, *(len(image.boxes) for image, _ in kept)])
    return Faces(
        boxes=joined([image.boxes for image, _ in kept], (4,)),
        points=joined([points for _, points in kept], (num_keypoints, 3)),
        counts=torch.from_numpy(counts),
        starts=numbers.cumsum(0),
        sizes=torch.tensor([[image.width, image.height] for image, _ in kept], dtype=torch.float32),
        paths=tuple(image.path for image, _ in kept),
    )
