"""Samples on the CPU against those in plain torch: equal but for the byte that a resized pixel is rounded to."""

from __future__ import annotations

import numpy as np
import pytest
from pixel_samples import LEVELS, drawn, noise, random_views, view

from scrfdkit.spec import Input
from scrfdkit.train.pixels import opencv

PICTURE = noise(120, 90)


@pytest.mark.parametrize("size", [32, 96])
def test_geometry(size: int) -> None:
    for row in random_views(60, colours=False):
        assert np.abs(opencv.draw(PICTURE, row, size, LEVELS) - drawn(PICTURE, row, size)).max() < 1


@pytest.mark.parametrize("seed", range(40))
def test_colours_are_exact_after_the_rounding(seed: int) -> None:
    """The window alone, drawn without colours, is bytes; as a picture it needs no resizing."""
    row = random_views(1, seed)[0]
    bare = row.copy()
    bare[3:] = view()[3:]
    window = opencv.draw(PICTURE, bare, 48, LEVELS)
    assert np.array_equal(window, np.round(window))
    as_picture = np.ascontiguousarray(window[::-1].transpose(1, 2, 0)).astype(np.uint8)
    coloured = row.copy()
    coloured[:3] = 0, 0, 48
    expected = drawn(as_picture, coloured, 48)
    assert np.abs(opencv.draw(PICTURE, row, 48, LEVELS) - expected).max() < 1e-3
    assert np.abs(opencv.draw(as_picture, coloured, 48, LEVELS) - expected).max() < 1e-3


def test_whole_samples_stay_close() -> None:
    """No black, where the HSV formulas jump: half a level, enlarged by contrast and saturation, remains."""
    picture = noise(120, 90, lowest=64)
    worst = [np.abs(opencv.draw(picture, r, 64, LEVELS) - drawn(picture, r, 64)).max() for r in random_views(60)]
    assert max(worst) < 5
    assert np.median(worst) < 1.5


def test_writes_into_a_given_array() -> None:
    batch = np.full((2, 3, 32, 32), np.nan, np.float32)
    for row in (view(side=50), view(side=50, saturation=1.3), view(side=50, gray=1), view(left=900, side=50)):
        made = opencv.draw(PICTURE, row, 32, Input(), batch[1])
        assert np.shares_memory(made, batch)
        assert np.array_equal(batch[1], opencv.draw(PICTURE, row, 32, Input()))
        assert np.isnan(batch[0]).all()


def test_refuses_an_array_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"float32 \(3, 32, 32\) is needed"):
        opencv.draw(PICTURE, view(side=50), 32, Input(), np.empty((3, 32, 31), np.float32))
    with pytest.raises(ValueError, match="float64"):
        opencv.draw(PICTURE, view(side=50), 32, Input(), np.empty((3, 32, 32)))  # type: ignore[arg-type]


def test_leaves_the_picture_as_it_is() -> None:
    before = PICTURE.copy()
    for row in random_views(20):
        opencv.draw(PICTURE, row, 32, Input())
    opencv.draw(PICTURE, view(side=90, saturation=1.5, hue=9), 90, Input())
    assert np.array_equal(PICTURE, before)
