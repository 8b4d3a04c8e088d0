"""The store of decoded pictures: every pixel at its place, sizes, scales, and files that cannot be read."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from bad_pictures import encoded, with_orientation
from pixel_samples import noise

from scrfdkit import image
from scrfdkit.errors import DeviceError, ImageError
from scrfdkit.train.pixels import store
from scrfdkit.train.pixels.store import Store
from scrfdkit.types import Image


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """PNG lying and standing, a JPEG turned by its EXIF tag, one pixel, a WebP."""
    contents = {
        "lying.png": encoded(noise(70, 40), "PNG"),
        "standing.png": encoded(noise(31, 90, 1), "PNG"),
        "turned.jpg": with_orientation(noise(64, 24, 2), 6),
        "dot.png": encoded(noise(1, 1, 3), "PNG"),
        "a.webp": encoded(noise(50, 50, 4), "WEBP"),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return [tmp_path / name for name in contents]


def picture_of(kept: Store, row: int) -> Image:
    """BGR pixels of one picture of a store."""
    width, height = kept.sizes[row].tolist()
    start = int(kept.offsets[row])
    colours = kept.pixels[start : start + width * height].numpy().reshape(height, width)
    return np.stack([colours >> 16, colours >> 8 & 255, colours & 255], -1).astype(np.uint8)


@pytest.mark.parametrize("workers", [1, 4])
def test_pictures_are_kept_as_decoded(files: list[Path], workers: int) -> None:
    told: list[tuple[int, int]] = []
    kept = Store.load(files, "cpu", workers=workers, progress=lambda done, total: told.append((done, total)))
    assert (kept.pixels.dtype, kept.offsets.dtype, kept.sizes.dtype) == (torch.int32, torch.int64, torch.int32)
    assert kept.sizes.tolist() == [[70, 40], [31, 90], [64, 24], [1, 1], [50, 50]]
    assert len(kept.pixels) == sum(width * height for width, height in kept.sizes.tolist())
    assert kept.scales.tolist() == [1] * 5
    for row, path in enumerate(files):
        assert np.array_equal(picture_of(kept, row), image.load(path).pixels)
    assert told == [(i, 5) for i in range(1, 6)]


def test_shrinks_what_is_larger(files: list[Path]) -> None:
    kept = Store.load(files, "cpu", long_side=45)
    assert kept.sizes.tolist() == [[45, 26], [16, 45], [45, 17], [1, 1], [45, 45]]
    assert np.allclose(kept.scales, [45 / 70, 45 / 90, 45 / 64, 1, 45 / 50])
    for row, path in enumerate(files):
        expected = cv2.resize(image.load(path).pixels, kept.sizes[row].tolist(), interpolation=cv2.INTER_AREA)
        assert np.array_equal(picture_of(kept, row), expected)


def test_layout_of_a_pixel() -> None:
    blue_green_red = np.array([[[1, 2, 3], [255, 254, 253]]], np.uint8)
    assert store.packed(blue_green_red).tolist() == [3 | 2 << 8 | 1 << 16, 253 | 254 << 8 | 255 << 16]


def test_pictures_at_hand(files: list[Path]) -> None:
    loaded, made = Store.load(files, "cpu"), Store.of([image.load(path).pixels for path in files], "cpu")
    for one, other in zip(vars(loaded).values(), vars(made).values(), strict=True):
        assert torch.equal(one, other)


def test_no_pictures() -> None:
    kept = Store.load([], "cpu")
    assert (tuple(kept.pixels.shape), tuple(kept.sizes.shape)) == ((0,), (0, 2))


def test_names_a_picture_that_is_not_there(files: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"absent\.jpg: there is no such file"):
        Store.load([*files, tmp_path / "absent.jpg"], "cpu")


def test_names_a_picture_that_breaks_off(files: list[Path]) -> None:
    content = files[2].read_bytes()
    files[2].write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(ImageError, match=r"turned\.jpg: the JPEG is truncated"):
        Store.load(files, "cpu")


def test_names_a_picture_of_another_size_than_promised(files: list[Path]) -> None:
    pixels = torch.zeros(10_000, dtype=torch.int32)
    with pytest.raises(ImageError, match=r"lying\.png: its header promises 7x4, but decoded it is 70x40"):
        store._read(pixels, files[0], (7, 4), (7, 4), 0)
    assert not pixels.any()


def test_says_that_pictures_do_not_fit() -> None:
    device = torch.device("cuda")
    store.require_room(10, 10, device)
    with pytest.raises(DeviceError, match=r"cuda: the decoded pictures take 40\.0 GB and 11\.5 GB are free for them"):
        store.require_room(40_000_000_000, 11_500_000_000, device)
