"""The preview shows the pixels that the network gets, whatever they went through, with their labels in place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scrfdkit.spec import Input
from scrfdkit.train.preview import MOST, draw_batch

INPUT = Input()
EMPTY = np.zeros((0, 4), np.float32)


def as_sample(bgr: np.ndarray) -> torch.Tensor:
    """(1, 3, S, S) as the network takes it, by the definition of the input."""
    planes = bgr[:, :, ::-1].astype(np.float32).transpose(2, 0, 1)
    return torch.from_numpy((planes - INPUT.mean) / INPUT.std)[None]


def test_pixels_come_back() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (480, 480, 3), dtype=np.uint8)
    sheet = draw_batch(as_sample(pixels), [EMPTY], None, ["e/a.jpg"], INPUT)
    assert (sheet[8:488, 8:488] == pixels).all()
    half = draw_batch(as_sample(pixels).to(torch.bfloat16), [EMPTY], None, ["e/a.jpg"], INPUT)
    assert np.abs(half[8:488, 8:488].astype(int) - pixels).max() <= 1


def test_values_no_pixel_can_have() -> None:
    images = torch.full((1, 3, 480, 480), 9.0)
    images[0, :, 100:200] = -9
    images[0, :, 300:400] = torch.nan
    sheet = draw_batch(images, [EMPTY], None, ["a"], INPUT)
    assert [int(sheet[8 + y, 20].max()) for y in (0, 99, 100, 199, 200, 300, 399, 400)] == [
        255,
        255,
        0,
        0,
        255,
        0,
        0,
        255,
    ]


def test_labels_lie_where_the_sample_has_them() -> None:
    images = torch.zeros(1, 3, 960, 960)
    boxes = [np.array([[100, 200, 500, 600]], np.float32)]
    points = [np.array([[[300, 400, 1], [200, 300, -1]]], np.float32)]
    sheet = draw_batch(images, boxes, points, ["a"], INPUT, centres=[np.array([[480, 560]], np.float32)])
    gray = 128
    assert (sheet[8 + 400, 8 + 100] == (80, 220, 60)).all()
    assert (sheet[8 + 400, 8 + 300] == (60, 160, 255)).all()  # the first key point
    assert (sheet[8 + 300, 8 + 200] == gray).all()  # the second is not labelled
    assert (sheet[8 + 560, 8 + 480] == (70, 70, 255)).all()  # the centre of an anchor
    small = draw_batch(images[:, :, :120, :120], [boxes[0] / 8], None, ["a"], INPUT)  # enlarged four times
    assert (small[8 + 200, 8 + 50] == (80, 220, 60)).all()


def test_no_more_than_fit() -> None:
    count = MOST + 3
    images = torch.zeros(count, 3, 64, 64)
    sheet = draw_batch(images, [EMPTY] * count, [np.zeros((0, 5, 3))] * count, ["a"] * count, INPUT)
    assert (sheet == draw_batch(images[:MOST], [EMPTY] * MOST, None, ["a"] * MOST, INPUT)).all()


def test_lists_that_do_not_fit() -> None:
    images = torch.zeros(2, 3, 32, 32)
    with pytest.raises(ValueError, match="2 images"):
        draw_batch(images, [EMPTY], None, ["a", "b"], INPUT)
    with pytest.raises(ValueError, match="0 images"):
        draw_batch(images[:0], [], None, [], INPUT)


@pytest.mark.gpu
def test_a_batch_on_the_gpu() -> None:
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    there = draw_batch(images.cuda(), [EMPTY] * 2, None, ["a", "b"], INPUT)
    assert (there == draw_batch(images, [EMPTY] * 2, None, ["a", "b"], INPUT)).all()
