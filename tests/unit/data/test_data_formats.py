"""Every label format: what is written comes back, up to the format's own rounding, and losses are told."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from scrfdkit.data import formats
from scrfdkit.data.labels import LabelledImage
from scrfdkit.data.pictures import folder_of
from scrfdkit.data.reading import LabelError
from scrfdkit.errors import OptionError

FILE_NAMES = {"labelv2": "labelv2.txt", "wider": "gt.txt", "coco": "a.json", "yolo": "y", "voc": "v", "csv": "a.csv"}

_hundredths = st.integers(-5_000, 400_000).map(lambda v: v / 100)
_any_float = st.floats(-(2.0**16), 2.0**16, width=32)
_names = st.text(
    st.characters(codec="utf-8", exclude_characters="/\\:", exclude_categories=["C"]), min_size=1, max_size=8
)


@st.composite
def label_sets(draw: st.DrawFn, coordinates: st.SearchStrategy[float]) -> list[LabelledImage]:
    """Pictures with all there can be: none, one or many faces, ignored ones, any number of key points or none."""
    k = draw(st.sampled_from([0, 0, 1, 2, 5, 5, 68]))
    labels = []
    for number in range(draw(st.integers(1, 4))):
        n = draw(st.integers(0, 3))
        boxes = draw(st.lists(st.lists(coordinates, min_size=4, max_size=4), min_size=n, max_size=n))
        points = None
        if k:
            xy = draw(st.lists(coordinates, min_size=2, max_size=8))
            flags = draw(st.lists(st.sampled_from([-1, 0, 1]), min_size=1, max_size=7))
            points = np.zeros((n, k, 3), np.float32)
            points[:, :, :2] = np.resize(xy, (n, k, 2))
            points[:, :, 2] = np.resize(flags, (n, k))
            points[points[:, :, 2] < 0] = -1
        labels.append(
            LabelledImage(
                f"event {number % 2}/{draw(_names).strip()}_{number}.png",
                draw(st.integers(1, 60)),
                draw(st.integers(1, 60)),
                np.array(boxes, np.float32).reshape(-1, 4),
                np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool),
                points,
            )
        )
    return labels


def round_trip(labels: list[LabelledImage], name: str, *, pictures: bool = False) -> list[LabelledImage]:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / FILE_NAMES[name]
        formats.write(labels, target, name)
        images = Path(folder) / "images" if pictures else None
        if images is not None:
            for m in labels:
                (images / m.path).parent.mkdir(parents=True, exist_ok=True)
                Pillow.new("1", (m.width, m.height)).save(images / m.path)
        assert formats.FORMATS[name].folder or formats.guess(target) == name
        return formats.read(target, format=name, images=images)


def assert_same(one: Iterable[LabelledImage], other: Iterable[LabelledImage], tolerance: float = 0.0) -> None:
    """Equal as sets of pictures; no key points is the same as none that is labelled."""
    first, second = ({m.path: m for m in side} for side in (one, other))
    assert first.keys() == second.keys()
    for path, a in first.items():
        b = second[path]
        assert (a.width, a.height) == (b.width, b.height)
        assert np.array_equal(a.ignore, b.ignore)
        np.testing.assert_allclose(a.boxes, b.boxes, rtol=tolerance / 100, atol=tolerance)
        pair = [m.keypoints for m in (a, b)]
        if any(p is None for p in pair):
            assert all(p is None or (p[:, :, 2] == -1).all() for p in pair)
        else:
            np.testing.assert_allclose(pair[0], pair[1], rtol=tolerance / 100, atol=tolerance)


@settings(max_examples=60, deadline=None)
@given(label_sets(_hundredths | _any_float))
def test_labelv2_and_csv_keep_everything(labels: list[LabelledImage]) -> None:
    for name in ("labelv2", "csv"):
        assert_same(round_trip(labels, name), labels)


@settings(max_examples=60, deadline=None)
@given(label_sets(_hundredths))
def test_coco_keeps_everything(labels: list[LabelledImage]) -> None:
    assert_same(round_trip(labels, "coco"), labels)


@settings(max_examples=40, deadline=None)
@given(label_sets(_any_float))
def test_coco_keeps_odd_numbers_up_to_the_last_bits(labels: list[LabelledImage]) -> None:
    assert_same(round_trip(labels, "coco"), labels, 1e-4)


@settings(max_examples=40, deadline=None)
@given(label_sets(_hundredths | _any_float))
def test_voc_keeps_all_but_key_points(labels: list[LabelledImage]) -> None:
    assert_same(round_trip(labels, "voc"), [replace(m, keypoints=None) for m in labels])


def near(m: LabelledImage) -> LabelledImage:
    """With faces that reach over the edge by half a picture at most: what is further off YOLO does not take."""
    size = np.array([m.width, m.height], np.float32)
    points = None if m.keypoints is None else m.keypoints.copy()
    if points is not None:
        points[:, :, :2] = np.clip(points[:, :, :2], -size / 2, 1.5 * size)
        points[points[:, :, 2] < 0] = -1
    return replace(m, boxes=np.clip(m.boxes, np.tile(-size / 2, 2), np.tile(1.5 * size, 2)), keypoints=points)


@settings(max_examples=40, deadline=None)
@given(label_sets(_hundredths | _any_float))
def test_yolo_keeps_all_but_ignore_flags(labels: list[LabelledImage]) -> None:
    labels = [near(m) for m in labels]
    plain = [replace(m, ignore=np.zeros_like(m.ignore)) for m in labels]
    assert_same(round_trip(labels, "yolo", pictures=True), plain, 2e-4)


@settings(max_examples=40, deadline=None)
@given(label_sets(_hundredths | _any_float))
def test_wider_keeps_whole_pixels(labels: list[LabelledImage]) -> None:
    whole = [replace(m, boxes=np.round(m.boxes), keypoints=None, width=0, height=0) for m in labels]
    assert_same(round_trip(labels, "wider"), whole)


def one(path: str = "a.jpg", **change: object) -> LabelledImage:
    points = np.array([[[1, 2, 1], [-1, -1, -1]], [[-1, -1, -1], [-1, -1, -1]]], np.float32)
    boxes = np.array([[1, 2, 3.5, 4], [5, 6, 7, 8]], np.float32)
    values = {"boxes": boxes, "ignore": np.array([False, True]), "keypoints": points, **change}
    return LabelledImage(path, 10, 12, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "losses"),
    [
        ("labelv2", {}),
        ("coco", {}),
        ("csv", {}),
        ("voc", {"faces' key points": 1}),
        ("wider", {"faces' key points": 1, "boxes' fractions of a pixel": 1, "picture sizes": 1}),
        ("yolo", {"ignore flags (the faces stay, as plain ones)": 1}),
    ],
)
def test_losses_are_counted(tmp_path: Path, name: str, losses: dict[str, int]) -> None:
    assert formats.write([one()], tmp_path / FILE_NAMES[name], name) == losses


def test_written_text(tmp_path: Path) -> None:
    formats.write([one()], tmp_path / "l.txt", "labelv2")
    assert (tmp_path / "l.txt").read_text() == "# a.jpg 10 12\n1 2 3.5 4 1 2 1 -1 -1 -1\n5 6 7 8 1\n"
    formats.write([one()], tmp_path / "w.txt", "wider")
    assert (tmp_path / "w.txt").read_text() == "a.jpg\n2\n1 2 3 2 0 0 0 0 0 0 \n5 6 2 2 0 0 0 1 0 0 \n"
    formats.write([one()], tmp_path / "c.csv", "csv")
    assert (tmp_path / "c.csv").read_text().splitlines() == [
        "file,width,height,x1,y1,x2,y2,ignore,point_1_x,point_1_y,point_1_visible,point_2_x,point_2_y,point_2_visible",
        "a.jpg,10,12,1,2,3.5,4,0,1,2,1,,,",
        "a.jpg,10,12,5,6,7,8,1,,,,,,",
    ]
    formats.write([one()], tmp_path / "y", "yolo")
    assert (tmp_path / "y" / "a.txt").read_text().splitlines()[
        0
    ] == "0 0.225 0.25 0.25 0.1666666667 0.1 0.1666666667 2 0 0 0"


@pytest.mark.parametrize(
    ("labels", "name", "words"),
    [
        ([one("../../home/a.jpg")], "yolo", "leads out"),
        ([one("/etc/a.jpg")], "voc", "leads out"),
        ([one("a.jpg"), one("a.png")], "yolo", "two pictures"),
        ([one("a.jpg"), one("a.jpg")], "csv", "two pictures"),
        ([one("a\nb.jpg")], "labelv2", "control"),
        ([one("\udcff.jpg")], "voc", "Unicode"),
        ([one(), one("b.jpg", keypoints=np.zeros((2, 1, 3), np.float32))], "coco", "number of key points"),
        ([one(boxes=np.full((2, 4), np.nan, np.float32))], "coco", "finite"),
        ([one(boxes=np.array([[1, 2, 3, 4], [90, 2, 95, 4]], np.float32))], "yolo", "a.jpg: .* outside"),
    ],
)
def test_what_no_file_can_hold_is_refused_before_writing(
    tmp_path: Path, labels: list[LabelledImage], name: str, words: str
) -> None:
    with pytest.raises(LabelError, match=words):
        formats.write(labels, tmp_path / "out", name)
    assert not any(tmp_path.iterdir())


def test_sizes_come_from_the_pictures_where_needed(tmp_path: Path) -> None:
    (tmp_path / "gt.txt").write_text("e/a.png\n1\n1 2 3 4 0 0 0 1 0 0\n")
    labels = formats.read(tmp_path / "gt.txt")
    assert (labels[0].width, labels[0].height) == (0, 0)
    with pytest.raises(LabelError, match="--images"):
        formats.write(labels, tmp_path / "out.txt", "labelv2")
    (tmp_path / "images/e").mkdir(parents=True)
    exif = Pillow.Exif()
    exif[0x0112] = 6  # turned on its side
    Pillow.new("RGB", (30, 20)).save(tmp_path / "images/e/a.png", exif=exif)
    labels = formats.read(tmp_path / "gt.txt", images=tmp_path / "images")
    assert (labels[0].width, labels[0].height) == (20, 30)


def test_sizes_that_wider_never_had_are_no_loss(tmp_path: Path) -> None:
    plain = replace(one(keypoints=None, boxes=np.ones((2, 4), np.float32)), width=0, height=0)
    assert formats.write([plain], tmp_path / "w.txt", "wider") == {}


def test_sizes_come_from_pictures_beside_the_labels(tmp_path: Path) -> None:
    (tmp_path / "gt.txt").write_text("e/a.png\n0\nnone.png\n0\nbroken.png\n0\n")
    (tmp_path / "e").mkdir()
    (tmp_path / "broken.png").write_bytes(b"x")
    Pillow.new("1", (30, 20)).save(tmp_path / "e/a.png")
    assert [(m.width, m.height) for m in formats.read(tmp_path / "gt.txt")] == [(30, 20), (0, 0), (0, 0)]


@pytest.mark.parametrize(
    ("labels", "folders", "expected"),
    [
        ("set", ["set/images", "set/labels"], "set/images"),
        ("set/labels", ["set/images", "set/labels"], "set/images"),
        ("set/labels/train", ["set/images/train", "set/labels/train"], "set/images/train"),
        ("set/labels/train/a.txt", ["set/images/train", "set/labels/train"], "set/images/train"),
        ("labels/set/labels", ["labels/set/images", "labels/set/labels", "images/set/labels"], "labels/set/images"),
        ("set/labels", ["set/labels"], "set/labels"),
        ("set", ["set/labels"], "set"),
        ("set/labelv2.txt", ["set/images"], "set"),
        ("voc", ["voc/Annotations", "voc/JPEGImages"], "voc/JPEGImages"),
        ("voc/Annotations", ["voc/Annotations", "voc/JPEGImages"], "voc/JPEGImages"),
    ],
)
def test_where_pictures_are_looked_for(tmp_path: Path, labels: str, folders: list[str], expected: str) -> None:
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    assert folder_of(tmp_path / labels) == tmp_path / expected


def test_pictures_of_a_relative_folder_of_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    monkeypatch.chdir(tmp_path / "labels")
    assert folder_of(".") == tmp_path / "images"
    assert folder_of("a.txt") == tmp_path / "images"
    monkeypatch.chdir(tmp_path)
    assert folder_of("labels") == Path("images")


def test_formats_are_told_apart(tmp_path: Path) -> None:
    for name in ("labelv2", "wider", "coco", "csv", "voc", "yolo"):
        target = tmp_path / name / FILE_NAMES[name]
        formats.write([one()], target, name)
        assert formats.guess(target) == name
    assert formats.guess(tmp_path / "labelv2") == "labelv2"  # a folder with one
    (tmp_path / "odd.txt").write_text("hello\n")
    (tmp_path / "empty").mkdir()
    for path, words in (("odd.txt", "no label format .* --format .*--from"), ("empty", "neither"), ("none", "no such")):
        with pytest.raises(LabelError, match=words):
            formats.guess(tmp_path / path)
    with pytest.raises(OptionError, match="labelv2"):
        formats.read(tmp_path / "odd.txt", format="tfrecord")


def test_real_sets_survive_every_format(shared: Path, tmp_path: Path) -> None:
    source = shared / "data/widerface/train"
    labels = formats.read(source)
    assert (len(labels), sum(len(m.boxes) for m in labels), sum(int(m.ignore.sum()) for m in labels)) == (
        2325,
        29882,
        420,
    )
    for name in ("labelv2", "coco", "csv"):
        formats.write(labels, tmp_path / FILE_NAMES[name], name)
        assert_same(formats.read(tmp_path / FILE_NAMES[name]), labels)


def test_official_ground_truth(shared: Path) -> None:
    reading = formats.scan(shared / "data/widerface/gt/wider_face_val_bbx_gt.txt")
    assert len(reading.images) == 3226
    assert sum(len(m.boxes) for m in reading.images) == 39708
    assert not reading.problems
