"""The many ways that label files are written by others, and the many ways that they are broken."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from scrfdkit.data import formats
from scrfdkit.data.check import check
from scrfdkit.data.reading import LabelError, whole
from scrfdkit.errors import ScrfdError


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return path


def picture(path: Path, size: tuple[int, int] = (100, 50)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.new("1", size).save(path)


def test_labelv2_variants(tmp_path: Path) -> None:
    """4, 5, 4 + 3 K and 5 + 3 K numbers, in one file, with Windows line ends, a byte order mark and old file names."""
    five = "10 11 1 20 21 0 -1 -1 -1 40 41 1 50 51 1"
    lines = [
        "\ufeff# dir name/b c.jpg 640 480",
        "1 2 3 4",
        "",
        "5 6 7 8 1",
        f"1.5 2 3e1 4 {five}",
        f"1 2 3 4 {five} 1",
        f"1 2 3 4 {five} 0.82",
        "#\tnone.jpg\t10\t20",
        "# ev\\last.jpg 5 5",
        "0 0 1 1 0",
        "# \udce9.jpg 5 5",
    ]
    reading = formats.scan(put(tmp_path / "l.txt", "\r\n".join(lines)), strict=True)
    first, second, third, fourth = reading.images
    assert [m.path for m in reading.images] == ["dir name/b c.jpg", "none.jpg", "ev/last.jpg", "\udce9.jpg"]
    assert (first.width, first.height) == (640, 480)
    assert first.boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [1.5, 2, 30, 4], [1, 2, 3, 4], [1, 2, 3, 4]]
    assert first.ignore.tolist() == [False, True, False, True, False]
    assert first.keypoints is not None
    assert (first.keypoints[:2] == -1).all()
    assert first.keypoints[2].tolist() == [[10, 11, 1], [20, 21, 0], [-1, -1, -1], [40, 41, 1], [50, 51, 1]]
    assert second.boxes.shape == (0, 4)
    assert second.keypoints is not None
    assert second.keypoints.shape == (0, 5, 3)
    assert third.ignore.tolist() == [False]
    assert reading.places[0].image == 1
    assert reading.places[0].faces.tolist() == [2, 4, 5, 6, 7]
    assert reading.places[2].of(0) == f"{tmp_path}/l.txt:10"
    assert reading.not_read == {"scores at the end of faces with key points": 1}
    assert len(fourth.boxes) == 0


def test_wider_as_published(tmp_path: Path) -> None:
    text = "e/a.jpg\n2\n1 2 3 4 2 0 0 1 2 1 \n5 6 0 8 0 0 0 0 0 0 \n"
    text += "e/none.jpg\n0\n0 0 0 0 0 0 0 0 0 0 \ne/b.jpg\n0\ne/c.jpg\n1\n1 1 1 1\n"
    reading = formats.scan(put(tmp_path / "gt.txt", text), strict=True)
    assert [(m.path, len(m.boxes)) for m in reading.images] == [
        ("e/a.jpg", 2),
        ("e/none.jpg", 0),
        ("e/b.jpg", 0),
        ("e/c.jpg", 1),
    ]
    assert reading.images[0].boxes.tolist() == [[1, 2, 4, 6], [5, 6, 5, 14]]
    assert reading.images[0].ignore.tolist() == [True, False]
    assert list(reading.not_read.values()) == [1]
    assert reading.places[3].faces.tolist() == [12]


def coco(**change: object) -> str:
    content = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 10, "height": 20}, {"id": "x", "file_name": "b.jpg"}],
        "annotations": [
            {"id": 5, "image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4], "keypoints": [1, 2, 2, 3, 4, 1, 0, 0, 0]},
            {"id": 6, "image_id": 7, "category_id": 3, "bbox": [1, 2, 0, 4], "iscrowd": 1},
            {"id": 8, "image_id": "x", "category_id": 1, "bbox": [0, 0, 9, 9]},
        ],
        "categories": [{"id": 1, "name": "person"}, {"id": 3, "name": "Face"}],
    }
    return json.dumps(content | change)


def test_coco_takes_the_faces(tmp_path: Path) -> None:
    reading = formats.scan(put(tmp_path / "a.json", coco()), strict=True)
    first, second = reading.images
    assert first.boxes.tolist() == [[1, 2, 4, 6], [1, 2, 1, 6]]
    assert first.ignore.tolist() == [False, True]
    assert first.keypoints is not None
    assert first.keypoints[0].tolist() == [[1, 2, 1], [3, 4, 0], [-1, -1, -1]]
    assert (second.path, second.width, len(second.boxes)) == ("b.jpg", 0, 0)
    assert reading.not_read == {"annotations of other categories": 1}
    assert reading.places[0].of(1).endswith("a.json: annotation 6")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("0 0.5 0.5 0.2 0.4", None),
        ("0 0.5 0.5 0.2 0.4 0.1 0.2 0.3 0.4", [[10, 10, 1], [30, 20, 1]]),
        ("0 0.5 0.5 0.2 0.4 0.1 0.2 2 0.3 0.4 1 0 0 0", [[10, 10, 1], [30, 20, 0], [-1, -1, -1]]),
        ("0 0.5 0.5 0.2 0.4 0.1 0.2 0.3 0.4 0 0", [[10, 10, 1], [30, 20, 1], [-1, -1, -1]]),
    ],
    ids=["plain", "x y", "x y v", "six numbers that are x y"],
)
def test_yolo_variants(tmp_path: Path, line: str, expected: list[list[float]] | None) -> None:
    picture(tmp_path / "images/train/e/a.b.png")
    picture(tmp_path / "images/train/background.png")
    put(tmp_path / "labels/train/e/a.b.txt", line + "\n")
    put(tmp_path / "labels/train/classes.txt", "face\n")
    labels = formats.read(tmp_path / "labels/train")  # the pictures are found where YOLO has them
    assert [m.path for m in labels] == ["e/a.b.png", "background.png"]
    np.testing.assert_allclose(labels[0].boxes, [[40, 15, 60, 35]], atol=1e-5)
    assert (labels[0].width, labels[0].height, len(labels[1].boxes)) == (100, 50, 0)
    if expected is None:
        assert labels[0].keypoints is None
    else:
        assert labels[0].keypoints is not None
        np.testing.assert_allclose(labels[0].keypoints[0], expected, atol=1e-5)


def test_yolo_is_told_the_shape_of_key_points(tmp_path: Path) -> None:
    """0 0.2 0 0.4 0 0.6: three points x y, or two x y v whose v happen to be 0."""
    picture(tmp_path / "images/a.png")
    put(tmp_path / "labels/a.txt", "0 0.5 0.5 0.2 0.4 0.1 0.2 0 0.4 0.1 1")
    for dims, k in ((2, 3), (3, 2)):
        put(tmp_path / "data.yaml", f"path: .\nkpt_shape: [{k}, {dims}]\n")
        points = formats.read(tmp_path)[0].keypoints
        assert points is not None
        assert points.shape == (1, k, 3)


VOC = """<?xml version="1.0"?>
<annotation>
  <folder>x</folder><filename>a &amp; b.jpg</filename>
  <size><width>100</width><height>50</height><depth>3</depth></size>
  <object><name>face</name><difficult>1</difficult>
    <bndbox><xmin>1</xmin><ymin>2.5</ymin><xmax>30</xmax><ymax>40</ymax></bndbox>
    <part><name>nose</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></part></object>
  <object>
    <name>hat</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></object>
</annotation>
"""


def test_voc(tmp_path: Path) -> None:
    put(tmp_path / "Annotations/sub/a.xml", VOC)
    reading = formats.scan(tmp_path, strict=True)
    (labels,) = reading.images
    assert (labels.path, labels.width, labels.height) == ("sub/a & b.jpg", 100, 50)
    assert labels.boxes.tolist() == [[1, 2.5, 30, 40]]
    assert labels.ignore.tolist() == [True]
    assert reading.places[0].of(0).endswith("a.xml:5")
    assert reading.not_read == {"objects of other classes": 1}


def test_csv_of_the_detector_reads_as_labels(tmp_path: Path) -> None:
    text = 'score,file,x1,y1,x2,y2,nose_x,nose_y\n0.9,"a, b.jpg",1,2,3,4,5,6\n,c.jpg,,,,,,\n0.8,"a, b.jpg",5,6,7,8,,\n'
    labels = formats.read(put(tmp_path / "a.csv", text))
    assert [m.path for m in labels] == ["a, b.jpg", "c.jpg"]
    assert labels[0].boxes.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    assert labels[0].keypoints is not None
    assert labels[0].keypoints.tolist() == [[[5, 6, 1]], [[-1, -1, -1]]]
    assert len(labels[1].boxes) == 0


def test_what_csv_and_coco_leave_out_is_counted(tmp_path: Path) -> None:
    text = "file,x1,y1,x2,y2,score,nose_x,nose_y,blur\na.jpg,1,2,3,4,0.9,5,6,1\n"
    assert formats.scan(put(tmp_path / "a.csv", text)).not_read == {"columns with other names": 2}
    note = {"id": 4, **_BOX, "bbox": [1, 2, 3, 4]}
    notes = [note, {**note, "segmentation": [[1, 2, 3, 4, 5, 6]]}]
    reading = formats.scan(put(tmp_path / "a.json", coco(annotations=notes)))
    assert reading.not_read == {"annotations' segmentations": 1}


@pytest.mark.parametrize("word", ["9" * 5000, str(1 << 31), "-1", "\u0663", "\u00b2", ""])
def test_no_whole_number(word: str) -> None:
    assert whole(word) is None


@pytest.mark.parametrize(
    ("word", "value"), [("0", 0), ("0012", 12), ("0" * 5000, 0), (str((1 << 31) - 1), (1 << 31) - 1)]
)
def test_whole_numbers(word: str, value: int) -> None:
    assert whole(word) == value


_LONG = "9" * 5000
_HEAD = "# a.jpg 10 10\n"
_BOX = {"image_id": 7, "category_id": 3}
BROKEN = {
    "header": ("l.txt", "# a.jpg 10\n1 2 3 4\n", ":1", "path width height"),
    "header of 5000 digits": ("l.txt", f"# a.jpg {_LONG} 100\n", ":1", "path width height"),
    "ignored by half": ("l.txt", _HEAD + "1 2 30 40 0.5\n", ":2", "last number must be 1"),
    "ignored twice": ("l.txt", _HEAD + "1 2 30 40 2\n", ":2", "last number must be 1"),
    "ignored twice with points": ("l.txt", _HEAD + "1 2 30 40 5 5 1 2\n", ":2", "last number must be 1"),
    "ignored by nan": ("l.txt", _HEAD + "1 2 30 40 5 5 1 nan\n", ":2", "last number must be 1"),
    "one number": ("l.txt", _HEAD + "1\n", ":2", "1 number:"),
    "header of zero": ("l.txt", "# a.jpg 0 5\n", ":1", "above 0"),
    "no header": ("l.txt", "\n1 2 3 4\n# a.jpg 1 1\n", ":2", "before the first"),
    "three numbers": ("l.txt", _HEAD + "1 2 3 4\n1 2 3\n", ":3", "3 numbers"),
    "15 numbers": ("l.txt", _HEAD + "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15\n", ":2", "15 numbers"),
    "word": ("l.txt", _HEAD + "1 2 x 4\n", ":2", "line of numbers"),
    "nan": ("l.txt", _HEAD + "1 2 nan 4\n", ":2", "finite"),
    "infinite": ("l.txt", _HEAD + "1 2 1e99 4\n", ":2", "finite"),
    "flag": ("l.txt", _HEAD + "1 2 3 4 5 5 7\n", ":2", "flag"),
    "half labelled": ("l.txt", _HEAD + "1 2 3 4 5 5 -1\n", ":2", "flag"),
    "nan point": ("l.txt", _HEAD + "1 2 3 4 nan 5 1\n", ":2", "key point"),
    "points differ": ("l.txt", _HEAD + "1 2 3 4 5 5 1\n1 2 3 4 5 5 1 5 5 1\n", ":3", "2 key points"),
    "leaves": ("l.txt", "# ../a.jpg 1 1\n", ":1", "leads out"),
    "name too long": ("l.txt", f"# e/{_LONG[:256]} 1 1\n", ":1", "longer than 255"),
    "path too long": ("l.txt", f"# {'e/' * 3000}a.jpg 1 1\n", ":1", "longer than 2048"),
    "binary": ("l.txt", "#\0\1\2 1 1\n", ":1", "control"),
    "wider count": ("w.txt", "a.jpg\n2\n1 2 3 4\nb.jpg\n0\n", ":1", "2 faces told, 1"),
    "wider one": ("w.txt", "a.jpg\n1\nb.jpg\n0\n", ":1", "1 face told, 0 lines of"),
    "wider 5000 digits": ("w.txt", f"a.jpg\n{_LONG}\n1 2 3 4\n", ":2", "number of faces"),
    "wider invalid": ("w.txt", "a.jpg\n1\n1 2 3 4 0 0 0 2 0 0\n", ":3", "'invalid', must be 0 or 1; got 2"),
    "wider too many": ("w.txt", "a.jpg\n1\n1 2 3 4\n1 2 3 4\n", ":4", "more faces than told"),
    "wider numbers": ("w.txt", "a.jpg\n1\n1 2 3 4 5\n", ":3", "5 numbers"),
    "wider cut": ("w.txt", "a.jpg\n1\n1 2 3 4\nb.jpg\n", ":5", "end of the file"),
    "json": ("a.json", '{"images": [\n}', ":2", "is not JSON"),
    "json results": ("a.json", "[]", "a.json:", "results alone"),
    "json deep": ("a.json", "[" * 100_000, "a.json:", "JSON"),
    "json box": ("a.json", coco(annotations=[{**_BOX, "id": 4, "bbox": [1, 2, 3]}]), "annotation 4", "four finite"),
    "json nan": (
        "a.json",
        coco(annotations=[{**_BOX, "id": 4, "bbox": [1, 2, 3, float("nan")]}]),
        "annotation 4",
        "finite",
    ),
    "json huge": (
        "a.json",
        coco(annotations=[{**_BOX, "id": 4, "bbox": [1, 2, 3, 10**400]}]),
        "annotation 4",
        "finite",
    ),
    "json image": ("a.json", coco(annotations=[{**_BOX, "id": 4, "image_id": 9}]), "annotation 4", "image_id 9"),
    "json crowd": ("a.json", coco(annotations=[{**_BOX, "bbox": [1] * 4, "iscrowd": 0.5}]), "a.json", "iscrowd must"),
    "json points": ("a.json", coco(annotations=[{**_BOX, "bbox": [1] * 4, "keypoints": [1]}]), "a.json", "three for"),
    "json twice": ("a.json", coco(images=[{"id": 7, "file_name": "a"}] * 2), "a.json", "there already"),
    "json classes": (
        "a.json",
        coco(categories=[{"id": 1, "name": "hat"}, {"id": 3, "name": "dog"}]),
        "a.json",
        "'dog'",
    ),
    "json list id": ("a.json", coco(images=[{"id": [], "file_name": "a"}], annotations=[]), "images[0]", "'id'"),
    "csv header": ("a.csv", "file,x1,y1\n", ":1", "x2, y2 missing"),
    "csv short": ("a.csv", "file,x1,y1,x2,y2\na,1,2,3\n", ":2", "4 columns"),
    "csv number": ("a.csv", "file,x1,y1,x2,y2\na,1,2,3,x\n", ":2", "must be numbers"),
    "csv size": ("a.csv", "file,x1,y1,x2,y2,width,height\na,1,2,3,4,5,6\na,1,2,3,4,5,7\n", ":3", "5x7"),
    "csv 5000 digits": ("a.csv", f"file,x1,y1,x2,y2,width,height\na,1,2,3,4,{_LONG},6\n", ":2", "whole numbers"),
    "csv box of 5000 digits": ("a.csv", f"file,x1,y1,x2,y2\na,1,2,3,{_LONG}\n", ":2", "finite"),
    "csv quote": ("a.csv", 'file,x1,y1,x2,y2\n"a"b,1,2,3,4\n', ":2", "not CSV"),
    "xml": ("a.xml", "<annotation>\n<object></annotation>", ":2", "not XML"),
    "xml bomb": ("a.xml", '<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', ":1", "document type"),
    "xml name": ("a.xml", "<annotation></annotation>", "a.xml", "filename"),
    "xml box": ("a.xml", VOC.replace("<xmin>1<", "<xmin>a<"), ":5", "must be numbers"),
    "xml 5000 digits": ("a.xml", VOC.replace(">100<", f">{_LONG}<"), "a.xml", "whole numbers"),
    "xml size": ("a.xml", VOC.replace(">100<", ">-1<"), "a.xml", "whole numbers"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_labels_name_file_and_line(tmp_path: Path, case: str) -> None:
    name, text, at, words = BROKEN[case]
    path = put(tmp_path / name, text)
    kind = {"l.txt": "labelv2", "w.txt": "wider"}.get(name)
    with pytest.raises(LabelError) as caught:
        formats.read(path, format=kind)
    assert str(path) in str(caught.value)
    assert at in str(caught.value)
    assert words in str(caught.value)
    problems = formats.scan(path, format=kind).problems  # goes on where it can, and tells the same
    assert any(f"{p.place}: {p.text}" == str(caught.value) for p in problems)


def test_a_scan_keeps_what_is_sound(tmp_path: Path) -> None:
    text = _HEAD + "1 2 3 4\nx\n5 6 7 8\n# bad\n1 1 1 1\n# b.jpg 5 5\n1 2 3 nan\n2 2 3 3\n"
    reading = formats.scan(put(tmp_path / "l.txt", text))
    assert [(m.path, m.boxes.tolist()) for m in reading.images] == [
        ("a.jpg", [[1, 2, 3, 4], [5, 6, 7, 8]]),
        ("b.jpg", [[2, 2, 3, 3]]),
    ]
    assert [where.faces.tolist() for where in reading.places] == [[2, 4], [9]]
    assert [p.place.rsplit(":", 1)[1] for p in reading.problems] == ["3", "5", "8"]


YOLO = {
    "class": ("7 0.5 0.5 0.1 0.1", ":1", "class 7"),
    "short": ("0 0.5 0.5 0.1", ":1", "four numbers"),
    "odd": ("0 0.5 0.5 0.1 0.1 0.5\n", ":1", "6 numbers"),
    "points differ": ("0 .5 .5 .1 .1 .1 .2 1\n0 .5 .5 .1 .1 .1 .2 1 .3 .4 1", ":2", "2 key points, where"),
    "polygons": (
        "0 .5 .5 .1 .1 .1 .2\n0 .5 .5 .1 .1 .1 .2 .3 .4",
        ":1",
        "7 numbers, where others have 9: .* segmentation",
    ),
    "pixels": ("0 .5 .5 .1 .1\n0 320 240 64 80", ":2", "320: are these pixels"),
    "pixels in a point": ("0 .5 .5 .1 .1 .2 -40 2", ":1", "-40: are these pixels"),
    "5000 digits": (f"0 .5 .5 .1 {_LONG}", ":1", "are these pixels"),
}


@pytest.mark.parametrize("case", YOLO)
def test_broken_yolo_labels(tmp_path: Path, case: str) -> None:
    text, at, words = YOLO[case]
    picture(tmp_path / "images/a.png")
    path = put(tmp_path / "labels/a.txt", text)
    with pytest.raises(LabelError) as caught:
        formats.read(tmp_path)
    assert f"{path}{at}: " in str(caught.value)
    assert re.search(words, str(caught.value))
    assert any(f"{p.place}: {p.text}" == str(caught.value) for p in formats.scan(tmp_path).problems)


def test_yolo_faces_may_reach_over_the_edge(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    put(tmp_path / "labels/a.txt", "0 1.2 -0.1 2 0.5\n")
    np.testing.assert_allclose(formats.read(tmp_path)[0].boxes, [[20, -17.5, 220, 7.5]], atol=1e-4)


def test_yolo_tells_that_numbers_are_taken_for_key_points(tmp_path: Path) -> None:
    """Polygons of four corners, all alike: they cannot be told from four numbers x y of two key points."""
    picture(tmp_path / "images/a.png")
    line = "0 .5 .5 .1 .1 "
    put(tmp_path / "labels/a.txt", line + ".1 .2 .3 .4\n")
    (note,) = formats.scan(tmp_path, strict=True).notes
    assert "segmentation" in note
    put(tmp_path / "data.yaml", "kpt_shape: [2, 2]\n")
    assert formats.scan(tmp_path, strict=True).notes == ()
    (tmp_path / "data.yaml").unlink()
    for sound in (line, line + ".1 .2 2 .3 .4 0\n"):
        put(tmp_path / "labels/a.txt", sound)
        assert formats.scan(tmp_path, strict=True).notes == ()


def test_yolo_slip_among_key_points_is_no_set_of_polygons(tmp_path: Path) -> None:
    picture(tmp_path / "images/a.png")
    face = "0 .5 .5 .1 .1 .1 .2 .3 .4\n"
    put(tmp_path / "labels/a.txt", 20 * face + "0 .5 .5 .1 .1 .1 .2\n")
    reading = formats.scan(tmp_path)
    assert [p.place for p in reading.problems] == [f"{tmp_path}/labels/a.txt:21"]
    assert len(reading.images[0].boxes) == 20
    put(tmp_path / "labels/a.txt", face + "0 .5 .5 .1 .1 .1 .2\n0 .1 .1 .2 .2 .3 .3 .4 .5 .6 .7\n")
    reading = formats.scan(tmp_path)
    assert len(reading.problems) == 3
    assert len(reading.images[0].boxes) == 0


def test_yolo_pictures_beside_their_labels(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    put(tmp_path / "a.txt", "0 .5 .5 .1 .1\n")
    assert [(m.path, len(m.boxes)) for m in formats.read(tmp_path)] == [("a.png", 1)]


def test_yolo_needs_its_pictures(tmp_path: Path) -> None:
    put(tmp_path / "here/a.txt", "0 0.5 0.5 0.1 0.1")
    with pytest.raises(LabelError, match="--images"):
        formats.read(tmp_path / "here")
    (tmp_path / "pictures").mkdir()
    with pytest.raises(LabelError, match="there is no picture a"):
        formats.read(tmp_path / "here", images=tmp_path / "pictures")
    picture(tmp_path / "pictures/a.png")
    picture(tmp_path / "pictures/a.jpg")
    with pytest.raises(LabelError, match="several pictures"):
        formats.read(tmp_path / "here", images=tmp_path / "pictures")


SOUND = {
    "labelv2": "# a.jpg 100 50\n1 2 30 40 5 6 1 -1 -1 -1\n1 2 30 40 1\n# b.jpg 5 5\n",
    "wider": "e/a.jpg\n2\n1 2 3 4 2 0 0 1 2 1 \n5 6 0 8 0 0 0 0 0 0 \nb.jpg\n0\n0 0 0 0 0 0 0 0 0 0 \n",
    "coco": coco(),
    "voc": VOC,
    "csv": "file,width,height,x1,y1,x2,y2,ignore,a_x,a_y,a_visible\na.jpg,9,9,1,2,3,4,1,5,6,0\nb.jpg,,,,,,,,,,\n",
    "yolo": "0 0.5 0.5 0.2 0.4 0.1 0.2 2 0.3 0.4 1\n0 0.5 0.5 0.2 0.4\n",
}
_SCRAPS = st.sampled_from(
    [
        "",
        "\n",
        " ",
        "-",
        "1e999",
        "nan",
        "\0",
        '"',
        ",",
        "{",
        "]",
        "null",
        "<a>",
        "#",
        "\udcff",
        "../",
        "9" * 30,
        "9" * 5000,
    ]
)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(list(SOUND)), st.lists(st.tuples(st.integers(0, 900), st.integers(0, 9), _SCRAPS), min_size=1))
def test_damage_gives_labels_or_an_error_that_names_the_file(kind: str, damage: list[tuple[int, int, str]]) -> None:
    text = SOUND[kind]
    for at, length, scrap in damage:
        at %= len(text) + 1
        text = text[:at] + scrap + text[at + length :]
    with tempfile.TemporaryDirectory() as folder:
        picture(Path(folder) / "images/a.png", (9, 9))
        file = put(Path(folder) / "labels" / {"voc": "a.xml"}.get(kind, "a.txt"), text)
        path = file.parent if kind == "yolo" else file
        check(path, format=kind, images=Path(folder) / "images")
        try:
            labels = formats.read(path, format=kind)
        except ScrfdError as error:
            assert folder in str(error)
        else:
            assert all(np.isfinite(m.boxes).all() for m in labels)
