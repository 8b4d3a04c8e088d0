"""Pictures as `vamp` reads them."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from scrfdkit import image, letterbox
from scrfdkit.errors import ImageError, OptionError, ScrfdError
from scrfdkit.evaluate import reference
from scrfdkit.spec import Input
from scrfdkit.vastai import pack


def planes(path: Path) -> np.ndarray:
    with np.load(path) as file:
        assert file.files == ["input_0"]
        return file["input_0"]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "event" / "a.png"
    path.parent.mkdir()
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (30, 50, 3), np.uint8))
    return path


def test_pixels_at_their_own_size(picture: Path, tmp_path: Path) -> None:
    target = tmp_path / "out/a.npz"
    assert pack.pack(picture, target)
    found = planes(target)
    assert (found.shape, found.dtype) == ((3, 30, 50), np.uint8)
    bgr = cv2.imread(str(picture))
    assert bgr is not None
    assert np.array_equal(found, bgr[:, :, ::-1].transpose(2, 0, 1))
    assert sorted(p.name for p in target.parent.iterdir()) == [".packed", "a.npz"]


def test_pictures_lie_as_they_are_seen(tmp_path: Path) -> None:
    from PIL import Image as Pillow

    exif = Pillow.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Pillow.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    pack.pack(tmp_path / "a.jpg", tmp_path / "a.npz")
    assert planes(tmp_path / "a.npz").shape == (3, 40, 20)
    assert not pack.pack(tmp_path / "a.jpg", tmp_path / "a.npz")


def test_letterboxed_as_the_evaluation_does(examples: Path, tmp_path: Path) -> None:
    source = examples / "solvay_1927.jpg"
    pack.pack(source, tmp_path / "a.npz", (320, 320))
    loaded = image.load(source)
    blob = letterbox.blank(1, (320, 320))
    placement = reference.place(loaded.width, loaded.height, (320, 320))
    letterbox.draw(loaded.pixels, placement, blob[0], Input(), fill=reference.GREY)
    found = (planes(tmp_path / "a.npz") - np.float32(127.5)) / 128
    down = placement.size[1]
    assert np.array_equal(found[:, :down], blob[0, :, :down])
    assert np.abs(found[:, down:]).max() <= 0.5 / 128  # bytes have no 127.5


def test_done_once_and_again_when_something_changed(picture: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.npz"
    assert pack.pack(picture, target)
    assert not pack.pack(picture, target)
    assert pack.pack(picture, target, (64, 64))
    assert not pack.pack(picture, target, (64, 64))
    assert pack.pack(picture, target)
    target.write_bytes(target.read_bytes()[:100])
    assert pack.pack(picture, target)
    for later in (10, -10):
        moment = target.stat().st_mtime + later
        os.utime(picture, (moment, moment))
        assert pack.pack(picture, target)
        assert not pack.pack(picture, target)


def test_a_picture_of_the_same_name_and_size_from_another_folder(picture: Path, tmp_path: Path) -> None:
    """Older than what is there, so that no times tell it."""
    other, target = tmp_path / "other" / "a.png", tmp_path / "out" / "a.npz"
    other.parent.mkdir()
    cv2.imwrite(str(other), np.zeros((30, 50, 3), np.uint8))
    os.utime(other, (0, 0))
    assert pack.pack(picture, target)
    assert pack.pack(other, target)
    assert not planes(target).any()
    assert not pack.pack(other, target)
    link = tmp_path / "link.png"
    link.symlink_to(other)
    assert not pack.pack(link, target)
    (target.parent / ".packed" / "a.npz.json").write_text("[")
    assert pack.pack(other, target)


def test_what_cannot_be_packed(picture: Path, tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(ImageError, match=r"b\.jpg"):
        pack.pack(tmp_path / "b.jpg", tmp_path / "b.npz")
    assert not (tmp_path / "b.npz").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ScrfdError, match="file"):
        pack.pack(picture, tmp_path / "file/a.npz")


def test_plan_and_list(tmp_path: Path) -> None:
    pictures = [Path("x/a.jpg"), Path("y/b.c.jpg")]
    plan = pack.plan(pictures, Path("out"))
    assert plan == [(pictures[0], Path("out/a.npz")), (pictures[1], Path("out/b.c.npz"))]
    with pytest.raises(OptionError, match=r"y/a\.png: has the name of x/a\.jpg"):
        pack.plan([Path("x/a.jpg"), Path("y/a.png")], Path("out"))
    pack.write_list(tmp_path / "list.txt", [target for _, target in plan])
    assert (tmp_path / "list.txt").read_text() == f"{Path.cwd()}/out/a.npz\n{Path.cwd()}/out/b.c.npz\n"
