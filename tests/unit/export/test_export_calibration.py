"""Pictures for int8: spread evenly, read as the detector reads them, bad ones passed over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scrfdkit import image, steps
from scrfdkit.errors import OptionError
from scrfdkit.export.calibration import MOST, blobs, choose
from scrfdkit.export.contract import Contract
from scrfdkit.export.order import Order
from scrfdkit.options import Options
from scrfdkit.spec import Input


def test_pictures_are_spread_evenly() -> None:
    many = [Path(f"{i}.jpg") for i in range(1000)]
    chosen = choose(many, 4)
    assert [path.stem for path in chosen] == ["0", "250", "500", "750"]
    assert choose(many[:3], 4) == tuple(many[:3])
    assert len(choose(many)) == MOST


@pytest.mark.parametrize("size", [(640, 640), (320, 256)])
def test_blobs_are_what_the_detector_would_run(size: tuple[int, int], examples: Path) -> None:
    paths = (examples / "astronaut.jpg", examples / "solvay_1927.jpg")
    found = list(blobs(Order(Contract(size=size), "int8", paths), Input()))
    assert len(found) == 2
    for blob, path in zip(found, paths, strict=True):
        (batch,) = steps.plan([image.load(path)], Options(input_size=size), size, 1)
        np.testing.assert_array_equal(blob, steps.preprocess(batch, Input(), None))
        assert (blob.shape, blob.dtype) == ((1, 3, size[1], size[0]), np.float32)


def test_unreadable_pictures_are_passed_over(tmp_path: Path, examples: Path) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"no picture")
    order = Order(Contract(size=(64, 64)), "int8", (bad, examples / "astronaut.jpg"))
    assert len(list(blobs(order, Input()))) == 1
    with pytest.raises(OptionError, match="calibrate: none of the pictures can be read"):
        list(blobs(Order(Contract(size=(64, 64)), "int8", (bad,)), Input()))
