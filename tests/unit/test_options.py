from __future__ import annotations

import math

import numpy as np
import pytest

from scrfdkit.errors import OptionError
from scrfdkit.options import Options, parse_size


@pytest.mark.parametrize(
    ("value", "sizes"),
    [
        ("auto", ("auto",)),
        ("original", ("original",)),
        (1280, (1280,)),
        ((640, 480), ((640, 480),)),
        ([640, 128], (640, 128)),
        ([(640, 640), (128, 128)], ((640, 640), (128, 128))),
        ([(640, 640), "auto"], ((640, 640), "auto")),
    ],
)
def test_sizes(value: object, sizes: tuple[object, ...]) -> None:
    options = Options(input_size=value)
    assert options.sizes == sizes
    assert options.override(score_threshold=0.3).sizes == sizes


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("score_threshold", 1.5),
        ("score_threshold", math.nan),
        ("score_threshold", "0.5"),
        ("score_threshold", True),
        ("nms_threshold", -0.1),
        ("input_size", "vga"),
        ("input_size", (640, 481)),
        ("input_size", (640, 0)),
        ("input_size", (640,)),
        ("input_size", []),
        ("input_size", 0),
        ("input_size", 10**6),
        ("input_size", (32 * 10**4, 32)),
        ("input_size", np.array([640, 640])),
        ("rotate", np.array([90])),
        ("fast_decoding", "yes"),
        ("max_faces", -1),
        ("max_faces", 1.0),
        ("rank", "score"),
        ("tile", 10),
        ("tile_overlap", 0.95),
        ("rotate", 45),
        ("batch_size", 0),
        ("max_pixels", 0),
    ],
)
def test_bad_values_name_their_option(name: str, value: object) -> None:
    with pytest.raises(OptionError, match=name):
        Options(**{name: value})


def test_numpy_numbers_are_numbers() -> None:
    options = Options(
        score_threshold=np.float32(0.25),
        max_faces=np.int64(3),
        input_size=(np.int64(640), np.int32(480)),
        tile=np.int16(64),
    )
    assert options.sizes == ((640, 480),)
    assert options.override(input_size=np.int64(320)).sizes == (320,)


def test_unknown_option() -> None:
    with pytest.raises(OptionError, match="threshold"):
        Options().override(threshold=0.3)


@pytest.mark.parametrize(
    ("text", "size"),
    [("auto", "auto"), ("original", "original"), ("1280", 1280), ("640x480", (640, 480)), ("640X480", (640, 480))],
)
def test_sizes_from_flags(text: str, size: object) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "640x", "640x480x3", "-640", "640.5", "0", "640x481", "huge"])
def test_bad_sizes_from_flags(text: str) -> None:
    with pytest.raises(OptionError, match="--size"):
        parse_size(text)
