from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from scrfdkit.data import formats
from scrfdkit.data.labels import LabelledImage
from scrfdkit.data.reading import LabelError
from scrfdkit.errors import ImageError, OptionError, ScrfdError
from scrfdkit.search.holdout import copies, split, write

BOX = (10.0, 10.0, 30.0, 34.0)


def picture(path: str, faces: int = 1, *, ignore: bool = False, size: tuple[int, int] = (64, 48)) -> LabelledImage:
    boxes = np.array([BOX] * faces, np.float32).reshape(-1, 4)
    return LabelledImage(path, *size, boxes, np.full(faces, ignore))


def many(number: int) -> list[LabelledImage]:
    return [picture(f"event {i % 7}/picture_{i}.jpg") for i in range(number)]


def names(part: list[LabelledImage]) -> list[str]:
    return [image.path for image in part]


def saved(folder: Path, labels: list[LabelledImage]) -> Path:
    """Pictures of those names, each of another colour."""
    for number, image in enumerate(labels):
        file = folder / image.path
        file.parent.mkdir(parents=True, exist_ok=True)
        Pillow.new("RGB", (64, 48), (number % 256, number // 256, 7)).save(file, "PNG")
    return folder


def test_each_picture_is_on_one_side_and_the_share_is_nearly_kept() -> None:
    labels = many(4000)
    train, heldout = split(labels, 0.2, seed=3)
    assert sorted(names(train) + names(heldout)) == sorted(names(labels))
    assert not set(names(train)) & set(names(heldout))
    # Within four standard deviations of a fair draw.
    assert abs(len(heldout) / len(labels) - 0.2) < 4 * (0.2 * 0.8 / len(labels)) ** 0.5


def test_sides_depend_on_seed_and_path_alone() -> None:
    labels = many(300)
    heldout = set(names(split(labels, 0.3, seed=5)[1]))
    mixed = list(labels)
    random.Random(0).shuffle(mixed)
    assert set(names(split(mixed, 0.3, seed=5)[1])) == heldout
    assert names(split(mixed, 0.3, seed=5)[1]) == [p for p in names(mixed) if p in heldout]
    more = [picture(f"new/{i}.jpg") for i in range(500)]
    assert set(names(split(more + labels, 0.3, seed=5)[1])) & set(names(labels)) == heldout
    assert set(names(split(labels[:150], 0.3, seed=5)[1])) == heldout & set(names(labels[:150]))
    assert set(names(split(labels, 0.3, seed=6)[1])) != heldout
    # A larger share holds the same pictures out, and others.
    assert set(names(split(labels, 0.4, seed=5)[1])) > heldout


def test_the_same_on_every_machine() -> None:
    """A search that goes on elsewhere, or with a later version, must not train on what it is scored on."""
    _, heldout = split([picture(f"{i}.jpg") for i in range(20)], 0.25, seed=0)
    assert names(heldout) == [f"{i}.jpg" for i in (1, 2, 3, 4, 9, 15, 18)]


def test_pictures_without_faces_are_dealt_out_too() -> None:
    labels = [*many(40), *(picture(f"empty/{i}.jpg", 0) for i in range(100))]
    train, heldout = split(labels, 0.5, seed=0)
    assert all(any(not len(image.boxes) for image in part) for part in (train, heldout))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.5, 20.0, float("nan")])
def test_shares_that_are_none(share: float) -> None:
    with pytest.raises(OptionError, match=r"--holdout .*above 0 and below 1"):
        split(many(9), share, seed=0)


def test_a_side_without_a_face_that_counts() -> None:
    with pytest.raises(OptionError, match=r"--holdout 0.0001: .* 0 of 9 pictures that are held out"):
        split(many(9), 0.0001, seed=0)
    with pytest.raises(OptionError, match=r"--holdout 0.9999: .* 0 of 9 pictures that are left to train on"):
        split(many(9), 0.9999, seed=0)
    labels = many(60)
    out = set(names(split(labels, 0.3, seed=0)[1]))
    ignored = [picture(i.path, 2, ignore=True) if i.path in out else i for i in labels]
    with pytest.raises(OptionError, match="held out"):
        split(ignored, 0.3, seed=0)
    flat = LabelledImage("flat.jpg", 64, 48, np.array([[5, 5, 5, 9]], np.float32), np.array([False]))
    with pytest.raises(OptionError, match="left to train on"):  # its box has no width: nothing can find it
        split([*(i for i in labels if i.path in out), flat], 0.3, seed=0)


def test_copies_go_by_content(tmp_path: Path) -> None:
    for name, data in {"b": b"one", "c/a": b"one", "d": b"two", "e": b"three", "f": b"one"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    found = copies(["f", "c/a", "b", "d", "e", "b"], tmp_path)
    assert found == {"b": "b", "c/a": "b", "f": "b"}


def test_copies_stay_together(tmp_path: Path) -> None:
    labels = many(60)
    images = saved(tmp_path / "images", labels)
    twins = [picture(f"copies/{i}.jpg") for i in range(60)]
    for image, twin in zip(labels, twins, strict=True):
        (images / twin.path).parent.mkdir(exist_ok=True)
        shutil.copy(images / image.path, images / twin.path)
    formats.write([*labels, *twins], tmp_path / "labels.txt", "labelv2")
    made = write(tmp_path / "labels.txt", None, images, 0.5, 0, tmp_path / "out")
    out = {image.path for image in formats.read(made.heldout)}
    assert 20 < len(out) < 100
    assert all((image.path in out) == (twin.path in out) for image, twin in zip(labels, twins, strict=True))
    # By themselves they would have parted.
    alone = set(names(split([*labels, *twins], 0.5, 0)[1]))
    assert any((image.path in alone) != (twin.path in alone) for image, twin in zip(labels, twins, strict=True))


def test_written_parts_are_the_labels(toy_set: Path, tmp_path: Path) -> None:
    made = write(toy_set, None, None, 0.4, 1, tmp_path / "data")
    source = {image.path: image for image in formats.read(toy_set)}
    parts = formats.read(made.train), formats.read(made.heldout)
    assert (made.train, made.heldout) == (tmp_path / "data/train.txt", tmp_path / "data/heldout.txt")
    assert made.images == toy_set / "images"
    assert (made.num_train, made.num_heldout) == (len(parts[0]), len(parts[1]))
    assert made.num_train_faces + made.num_heldout_faces == sum(len(image.boxes) for image in source.values())
    for image in (*parts[0], *parts[1]):
        old = source.pop(image.path)
        assert (image.width, image.height) == (old.width, old.height)
        assert np.array_equal(image.boxes, old.boxes)
        assert old.keypoints is not None
        assert image.keypoints is not None
        assert np.array_equal(image.keypoints, old.keypoints)
    assert not source


@pytest.mark.parametrize("format", ["wider", "coco", "yolo", "voc", "csv"])
@pytest.mark.parametrize("told", [True, False])
def test_every_format_becomes_labelv2_with_sizes(format: str, told: bool, tmp_path: Path) -> None:
    """Told or not where the pictures are, and though some formats do not say how large they are."""
    labels = [picture(f"{i}.png") for i in range(12)]
    images = saved(tmp_path / "images", labels)
    path = tmp_path / {"coco": "all.json", "csv": "all.csv", "wider": "all.txt"}.get(format, "labels")
    formats.write(labels, path, format)
    made = write(path, format, images if told else None, 0.5, 0, tmp_path / "out")
    assert made.images == images
    found = [*formats.read(made.train), *formats.read(made.heldout)]
    assert len(found) == 12
    assert {(image.width, image.height) for image in found} == {(64, 48)}
    assert all(np.allclose(image.boxes, [BOX], atol=0.01) for image in found)


def test_odd_names(tmp_path: Path) -> None:
    odd = [
        "a  b.png",
        "#1.png",
        "große Übung/絵.png",
        "x\u2028y.png",
        "tab’s/%20.png",
        "😀.png",
        os.fsdecode(b"caf\xe9.png"),
    ]
    labels = [picture(name) for name in odd] + [picture(f"{i}.png") for i in range(9)]
    images = saved(tmp_path / "pictures", labels)
    formats.write(labels, tmp_path / "labels.txt", "labelv2")
    made = write(tmp_path / "labels.txt", "labelv2", images, 0.5, 2, tmp_path / "out")
    train, heldout = formats.read(made.train), formats.read(made.heldout)
    assert sorted(names(train) + names(heldout)) == sorted(names(labels))
    assert all((made.images / name).is_file() for name in names(train) + names(heldout))
    assert set(names(heldout)) == set(names(split(labels, 0.5, 2)[1]))


def test_missing_pictures(tmp_path: Path) -> None:
    labels = many(12)
    images = saved(tmp_path / "images", labels)
    formats.write(labels, tmp_path / "labels.txt", "labelv2")
    (images / labels[4].path).unlink()
    with pytest.raises(ImageError, match=r"event 4/picture_4.jpg: .* 1 of 12 are missing; .*--images"):
        write(tmp_path / "labels.txt", None, None, 0.5, 0, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_labels_that_make_no_sense(tmp_path: Path) -> None:
    bad = tmp_path / "bad.txt"
    bad.write_text("# a.png 64 48\n1 2 3\n")
    with pytest.raises(LabelError, match=r"bad.txt:2"):
        write(bad, None, None, 0.5, 0, tmp_path / "out")
    bad.write_text("")
    with pytest.raises(LabelError, match="holds no pictures"):
        write(bad, "labelv2", None, 0.5, 0, tmp_path / "out")


def test_what_could_not_be_scored_is_told_at_once(tmp_path: Path) -> None:
    """Result files have no suffixes: 3.png and 3.jpg would be one picture."""
    labels = [picture(f"{i}.png") for i in range(20)] + [picture(f"{i}.jpg") for i in range(20)]
    images = saved(tmp_path / "images", labels)
    formats.write(labels, tmp_path / "labels.txt", "labelv2")
    with pytest.raises(ScrfdError, match="have the same name; rename one"):
        write(tmp_path / "labels.txt", None, images, 0.8, 0, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_was_not_read_is_told(tmp_path: Path) -> None:
    labels = many(12)
    saved(tmp_path / "images", labels)
    lines = [f"# {image.path} 64 48\n10 10 30 34 12 12 1 0.9\n" for image in labels]
    (tmp_path / "labels.txt").write_text("".join(lines))
    made = write(tmp_path / "labels.txt", None, None, 0.5, 0, tmp_path / "out")
    assert made.notes == ("not read: 12 x scores at the end of faces with key points",)
    assert "held out" in made.words()
