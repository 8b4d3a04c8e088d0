"""What must hold for every window of every picture, whoever draws it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pixel_samples import drawn, noise, random_views, view

from scrfdkit.spec import Input
from scrfdkit.train.pixels import opencv
from scrfdkit.types import Floats, Image

Draw = Callable[[Image, Floats, int], Floats]
DRAWS: dict[str, Draw] = {
    "plain": lambda picture, row, size: drawn(picture, row, size, Input()),
    "opencv": lambda picture, row, size: opencv.draw(picture, row, size, Input()),
}

sides = st.integers(1, 90)
places = st.integers(-200, 200)
sizes = st.integers(1, 48)
every_draw = pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
few = settings(max_examples=40, deadline=None)


@every_draw
@few
@given(sides, sides, places, places, st.integers(1, 250), sizes)
def test_flipped_is_mirrored(draw: Draw, width: int, height: int, left: int, top: int, side: int, size: int) -> None:
    picture = noise(width, height)
    straight, flipped = (draw(picture, view(left=left, top=top, side=side, flip=flip, hue=9), size) for flip in (0, 1))
    # Not to the last bit: OpenCV turns the last pixels of a row with other instructions than the first.
    assert np.abs(flipped[:, :, ::-1] - straight).max() < 1e-4


@every_draw
@few
@given(sides, sides, st.integers(1, 250), sizes, st.integers(0, 300), st.booleans(), st.booleans())
def test_beside_the_picture_is_gray(
    draw: Draw, width: int, height: int, side: int, size: int, away: int, before: bool, beside: bool
) -> None:
    left = -side - away if before else width + away
    row = view(left=left if beside else 0, top=0 if beside else -side - away, side=side)
    assert (draw(noise(width, height), row, size) == (128 - 127.5) / 128).all()


@every_draw
@few
@given(sides, st.integers(0, 30), st.integers(0, 30))
def test_without_resizing_pixels_are_copied(draw: Draw, size: int, right: int, below: int) -> None:
    picture = noise(size + right, size + below)
    expected = (picture[:size, :size, ::-1].transpose(2, 0, 1).astype(np.float32) - 127.5) / 128
    assert np.array_equal(draw(picture, view(side=size), size), expected)


@every_draw
@few
@given(sides, sides, places, places, st.integers(1, 250), sizes, st.integers(0, 255))
def test_a_gray_picture_of_the_border_s_level_has_no_edge(
    draw: Draw, width: int, height: int, left: int, top: int, side: int, size: int, seed: int
) -> None:
    row = random_views(1, seed)[0]
    row[:3] = left, top, side
    sample = draw(np.full((height, width, 3), 128, np.uint8), row, size)
    assert np.ptp(sample.reshape(3, -1), axis=1).max() < 1e-5


@few
@given(sides, sides, places, places, st.integers(1, 250), sizes)
def test_both_agree(width: int, height: int, left: int, top: int, side: int, size: int) -> None:
    picture, row = noise(width, height), view(left=left, top=top, side=side)
    one, other = (draw(picture, row, size) for draw in DRAWS.values())
    assert np.abs(one - other).max() < 1 / 128
