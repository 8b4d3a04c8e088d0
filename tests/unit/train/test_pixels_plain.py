"""Samples in plain torch against the published steps done with OpenCV on floats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pixel_samples import LEVELS, drawn, noise, published, random_views, turned, view

from scrfdkit.spec import Input
from scrfdkit.train.pixels import plain
from scrfdkit.train.pixels.store import Store

LANDSCAPE, PORTRAIT = noise(120, 70), noise(60, 110, 1)
# From here up nothing becomes black, where the HSV formulas jump and rounding decides.
BRIGHT = noise(120, 70, 2, lowest=64)

WINDOWS = {
    "the whole picture": (0, 0, 70),
    "larger on all sides": (-30, -45, 200),
    "one pixel of it, lower right": (119, 69, 40),
    "one pixel of it, upper left": (-39, -39, 40),
    "beside it": (500, -500, 80),
    "one pixel": (17, 23, 1),
    "the left edge": (-5, 10, 33),
    "enlarged inside": (40, 20, 13),
    "half": (10, 2, 64),
}


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS.keys())
@pytest.mark.parametrize("flip", [0, 1])
def test_windows(window: tuple[int, int, int], flip: int) -> None:
    left, top, side = window
    row = view(left=left, top=top, side=side, flip=flip)
    for picture in (LANDSCAPE, PORTRAIT):
        assert np.abs(drawn(picture, row, 32) - published(picture, row, 32)).max() < 1e-3


@pytest.mark.parametrize("seed", range(40))
def test_everything_at_once(seed: int) -> None:
    row = random_views(1, seed)[0]
    assert np.abs(drawn(BRIGHT, row, 32) - published(BRIGHT, row, 32)).max() < 5e-3


@pytest.mark.parametrize("order", range(6))
@pytest.mark.parametrize("brightness", [-32, -100, 40])
def test_colours_of_every_pixel_value_without_resizing(order: int, brightness: int) -> None:
    """Dark pixels too: whole numbers become exactly 0 in every implementation."""
    changes = {"brightness": brightness, "contrast": 1.5, "contrast_first": order % 2, "saturation": 1.4, "hue": -15}
    row = view(side=60, order=order, **changes)
    assert np.abs(drawn(PORTRAIT, row, 60) - published(PORTRAIT, row, 60)).max() < 2e-3


@pytest.mark.parametrize(
    ("saturation", "hue"), [(1.5, 18.0), (0.5, -18.0), (1.0, 180.0), (1.0, -180.0), (1.5, 0.0), (0.0, 5.0)]
)
def test_hsv_as_opencv_has_it(saturation: float, hue: float) -> None:
    values = np.random.default_rng(0).uniform(-200, 400, (200, 203, 3)).astype(np.float32)
    values[::7, :, 1] = values[::7, :, 0]
    values[::5, :, 2] = values[::5, :, 1]
    values[::11] = np.round(values[::11] / 50) * 50
    values[3::17, :, 0] = 0
    values[40] = 0
    values[41] = np.minimum(values[41], 0)
    blue, green, red = torch.from_numpy(values).unbind(-1)
    ours = plain.turn(red, green, blue, torch.tensor(saturation), torch.tensor(hue))
    theirs = turned(values, saturation, hue)[..., ::-1]
    assert np.abs(torch.stack(ours, -1).numpy() - theirs).max() < 2e-3


def test_no_change_of_hue_and_saturation_leaves_negative_values_alone() -> None:
    """OpenCV's way there and back mirrors what is below zero; a sample without these changes does not go it."""
    row = view(side=60, brightness=-200)
    assert np.array_equal(drawn(PORTRAIT, row, 60), published(PORTRAIT, row, 60))
    assert turned(np.array([[[-9, -14, -18]]], np.float32), 1.0, 0.0).max() > -1


def test_a_batch_is_its_samples_one_by_one() -> None:
    pictures, views = [LANDSCAPE, PORTRAIT, BRIGHT], random_views(9)
    rows = torch.arange(9) % 3
    batch = plain.draw(Store.of(pictures, "cpu"), rows, torch.from_numpy(views), 24, LEVELS)
    for i, sample in enumerate(batch.numpy()):
        assert np.array_equal(sample, drawn(pictures[i % 3], views[i], 24))


def test_type_and_memory_format() -> None:
    store = Store.of([LANDSCAPE], "cpu")
    rows, views = torch.zeros(2, dtype=torch.int64), torch.from_numpy(random_views(2))
    exact = plain.draw(store, rows, views, 16, Input())
    assert exact.dtype == torch.float32
    for dtype in (torch.bfloat16, torch.float16):
        sample = plain.draw(store, rows, views, 16, Input(), dtype)
        assert sample.dtype == dtype
        assert sample.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(sample, exact.to(dtype))


def test_pictures_beyond_2_31_pixels(tmp_path: Path) -> None:
    """A sparse file stands for the memory."""
    picture = noise(40, 30)
    start = 2**31 + 12_345
    pixels = torch.from_file(str(tmp_path / "pixels"), shared=True, size=start + 1200, dtype=torch.int32)
    small = Store.of([picture], "cpu")
    pixels[start:] = small.pixels
    large = Store(pixels, torch.tensor([0, start]), small.sizes.repeat(2, 1), small.scales.repeat(2))
    row = torch.from_numpy(view(left=-3, top=-3, side=35))[None]
    sample = plain.draw(large, torch.tensor([1]), row, 20, LEVELS)
    assert torch.equal(sample, plain.draw(small, torch.tensor([0]), row, 20, LEVELS))
