"""What a network sees in training: a batch after augmentation, its faces drawn, as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scrfdkit.data.words import plural
from scrfdkit.sheet import Labelled, contact_sheet
from scrfdkit.spec import Input
from scrfdkit.train.batches import Batch, Source
from scrfdkit.types import Image

MOST = 16
"""Samples on one preview; the first of a larger batch."""


def of_batch(batch: Batch, source: Source) -> Image:
    """The first samples of a batch, with the labels that are learnt from, as `draw_batch` draws them."""
    samples, number = batch.samples, min(MOST, len(batch.images))

    def rows(values_BGn: Tensor) -> list[NDArray[Any]]:
        return [values_BGn[i][samples.face_BG[i]].cpu().numpy() for i in range(number)]

    points = rows(samples.points_BGK3) if source.spec.head.num_keypoints else None
    names = [source.faces.paths[int(i)] for i in batch.pictures[:number]]
    return draw_batch(batch.images[:number], rows(samples.boxes_BG4), points, names, source.spec.input)


def draw_batch(
    images: Tensor,
    boxes: Sequence[NDArray[Any]],
    keypoints: Sequence[NDArray[Any]] | None,
    names: Sequence[str],
    input: Input,
    *,
    centres: Sequence[NDArray[Any]] | None = None,
) -> Image:
    """The first samples of a batch on a contact sheet, (h, w, 3) uint8 BGR.

    images: (B, 3, S, S) RGB as the network takes them, (pixel - mean) / std, of any float type and on any device;
        values that no pixel can have, as colour changes give them, end at black or white, and NaN is black.
    boxes: a (n, 4) x1 y1 x2 y2 a sample, in its pixels. keypoints: a (n, K, 3) x y v a sample, v below 0 not labelled
        and 0 hidden; None for a set without. names: what is written below.
    centres: a (m, 2) x y a sample, drawn as dots: centres of the anchors that are to find a face.
    Raises ValueError for an empty batch, or lists that do not fit it.
    """
    lists: list[Sequence[Any]] = [boxes, names, *(found for found in (keypoints, centres) if found is not None)]
    if not len(images) or any(len(found) != len(images) for found in lists):
        raise ValueError(f"{len(images)} images, with {[len(found) for found in lists]} boxes, names, points, centres")
    pixels = _pixels(images[:MOST], input)
    return contact_sheet(
        [
            Labelled(
                pixels[i],
                np.asarray(boxes[i], np.float32),
                None if keypoints is None else np.asarray(keypoints[i], np.float32),
                dots=None if centres is None else np.asarray(centres[i], np.float32),
                words=(names[i].rsplit("/", 1)[-1], _facts(boxes[i], None if centres is None else centres[i])),
            )
            for i in range(len(pixels))
        ]
    )


def _pixels(images: Tensor, input: Input) -> NDArray[np.uint8]:
    """(b, S, S, 3) BGR."""
    values = images.detach().to("cpu", torch.float32) * input.std + input.mean
    whole = values.nan_to_num(0.0).clamp(0, 255).round().to(torch.uint8)
    return np.ascontiguousarray(whole.flip(1).permute(0, 2, 3, 1).numpy())


def _facts(boxes: NDArray[Any], centres: NDArray[Any] | None) -> str:
    """How large the smallest face is says most about a sample."""
    words = [plural(len(boxes), "face")]
    if len(boxes):
        sides = np.sqrt(np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=1))
        low, high = round(float(sides.min())), round(float(sides.max()))
        words.append(f"{low} pixels" if low == high else f"{low} to {high} pixels")
    if centres is not None:
        words.append(plural(len(centres), "positive anchor"))
    return ", ".join(words)
