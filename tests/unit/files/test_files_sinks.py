"""Every output format, read back by other means."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from scrfdkit.files.records import Record, failure_record, frame_record, picture_record
from scrfdkit.files.sinks import CocoSink, CsvSink, LinesSink, Sink, WiderSink, point_names
from scrfdkit.types import Detections

POINTS = np.arange(20, dtype=np.float32).reshape(2, 5, 2)
TWO = Detections(
    np.array([[10, 20, 30.5, 60.25], [-4, -5, 8, 9]], np.float32), np.array([0.91234, 0.5], np.float32), POINTS
)
TRACKED = Detections(TWO.boxes, TWO.scores, POINTS, np.array([4, 7]))
RECORDS = [
    picture_record("in/a,b.jpg", 640, 480, TWO),
    failure_record("in/broken.jpg", "in/broken.jpg: is empty"),
    picture_record("in/none.jpg", 320, 200, Detections.empty(5)),
    frame_record("in/v.mp4", 12, 0.48, TRACKED),
]


def written(sink: Sink, path: Path, records: list[Record] = RECORDS) -> str:
    for record in records:
        sink.add(record)
    sink.finish()
    return path.read_text()


def test_csv(tmp_path: Path) -> None:
    path = tmp_path / "faces.csv"
    rows = list(csv.DictReader(io.StringIO(written(CsvSink(path, 5), path))))
    assert [(r["file"], r["frame"], r["face"], r["id"]) for r in rows] == [
        ("in/a,b.jpg", "", "0", ""),
        ("in/a,b.jpg", "", "1", ""),
        ("in/v.mp4", "12", "0", "4"),
        ("in/v.mp4", "12", "1", "7"),
    ]
    assert [float(rows[0][k]) for k in ("x1", "y1", "x2", "y2", "score")] == [10, 20, 30.5, 60.25, 0.9123]
    assert float(rows[1]["left_eye_x"]) == 10
    assert float(rows[1]["right_mouth_y"]) == 19
    assert rows[2]["time"] == "0.48"


def test_faces_that_were_filled_in_are_marked_in_csv_and_are_no_results(tmp_path: Path) -> None:
    record = frame_record("in/v.mp4", 3, 0.12, TRACKED, [False, True])
    rows = list(csv.DictReader(io.StringIO(written(CsvSink(tmp_path / "a.csv", 5), tmp_path / "a.csv", [record]))))
    assert [row["bridged"] for row in rows] == ["0", "1"]
    rows = list(csv.DictReader(io.StringIO(written(CsvSink(tmp_path / "b.csv", 5), tmp_path / "b.csv"))))
    assert [row["bridged"] for row in rows] == ["", "", "0", "0"]
    coco = json.loads(written(CocoSink(tmp_path / "c.json", 5), tmp_path / "c.json", [record]))
    assert [a["track_id"] for a in coco["annotations"]] == [4]
    assert len(coco["images"]) == 1
    sink = WiderSink(tmp_path, {"in/v.mp4": (PurePosixPath("v"), "v.mp4")})
    assert written(sink, tmp_path / "v/000003.txt", [record]).splitlines()[1:] == [
        "1",
        "10.00 20.00 20.50 40.25 0.9123",
    ]


def test_faces_of_a_picture_that_could_not_be_drawn_are_results(tmp_path: Path) -> None:
    record = RECORDS[0] | {"error": "in/a,b.jpg: cannot be drawn"}
    assert len(json.loads(written(CocoSink(tmp_path / "c", 5), tmp_path / "c", [record]))["annotations"]) == 2
    sink = WiderSink(tmp_path, {"in/a,b.jpg": (PurePosixPath("a"), "a,b.jpg")})
    assert written(sink, tmp_path / "a.txt", [record]).splitlines()[1] == "2"


@pytest.mark.parametrize("kind", [CsvSink, CocoSink])
def test_a_dash_is_standard_output(
    tmp_path: Path,
    kind: type[CsvSink] | type[CocoSink],
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> None:
    monkeypatch.chdir(tmp_path)
    text = written(kind(tmp_path / "file", 5), tmp_path / "file")
    sink = kind(Path("-"), 5)
    for record in RECORDS:
        sink.add(record)
    sink.finish()
    assert capfdbinary.readouterr().out.decode() == text
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_csv_without_keypoints(tmp_path: Path) -> None:
    path = tmp_path / "faces.csv"
    plain = Detections(TWO.boxes, TWO.scores)
    text = written(CsvSink(path, 0), path, [picture_record("a", 9, 9, plain)])
    assert text.splitlines()[0] == "file,frame,time,face,id,bridged,score,x1,y1,x2,y2"
    assert len(text.splitlines()) == 3


def test_coco_is_a_data_set_and_its_annotations_are_results(tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    coco = json.loads(written(CocoSink(path, 5, lambda _: (100, 50)), path))
    assert [i["file_name"] for i in coco["images"]] == ["in/a,b.jpg", "in/none.jpg", "in/v.mp4#12"]
    assert [(i["width"], i["height"]) for i in coco["images"]] == [(640, 480), (320, 200), (100, 50)]
    (category,) = coco["categories"]
    assert category["name"] == "face"
    assert len(category["keypoints"]) == 5
    images = {image["id"] for image in coco["images"]}
    ids = [annotation["id"] for annotation in coco["annotations"]]
    assert len(set(ids)) == len(ids) == 4
    for annotation in coco["annotations"]:
        assert annotation["image_id"] in images
        assert annotation["category_id"] == category["id"]
        assert len(annotation["keypoints"]) == 15
        assert annotation["num_keypoints"] == 5
        assert annotation["keypoints"][2::3] == [2] * 5
        _, _, width, height = annotation["bbox"]
        assert annotation["area"] == pytest.approx(width * height)
        assert annotation["iscrowd"] == 0
    assert coco["annotations"][0]["bbox"] == [10, 20, 20.5, 40.25]
    assert coco["annotations"][0]["score"] == 0.9123
    assert coco["annotations"][3]["track_id"] == 7


def test_coco_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    coco = json.loads(written(CocoSink(path, 0), path, [failure_record("a", "a: no")]))
    assert coco["images"] == coco["annotations"] == []
    assert "keypoints" not in coco["categories"][0]


def test_wider(tmp_path: Path) -> None:
    names = {
        "in/a,b.jpg": (PurePosixPath("0--Parade/a,b"), "0--Parade/a,b.jpg"),
        "in/none.jpg": (PurePosixPath("none.v2"), "none.v2.jpg"),
        "in/v.mp4": (PurePosixPath("v"), "v.mp4"),
    }
    sink = WiderSink(tmp_path, names)
    lines = written(sink, tmp_path / "0--Parade/a,b.txt").splitlines()
    assert lines[:2] == ["0--Parade/a,b.jpg", "2"]
    assert [float(v) for v in lines[2].split()] == [10, 20, 20.5, 40.25, 0.9123]
    assert [float(v) for v in lines[3].split()] == [-4, -5, 12, 14, 0.5]
    assert (tmp_path / "none.v2.txt").read_text() == "none.v2.jpg\n0\n"
    assert (tmp_path / "v/000012.txt").read_text().startswith("v.mp4#12\n2\n")
    assert sum(1 for p in tmp_path.rglob("*") if p.is_file()) == 3


def test_lines_go_out_one_by_one() -> None:
    stream = io.BytesIO()
    sink = LinesSink(stream, "stream")
    for number, record in enumerate(RECORDS, 1):
        sink.add(record)
        assert stream.getvalue().count(b"\n") == number
    assert [json.loads(line) for line in stream.getvalue().splitlines()] == RECORDS


@pytest.mark.parametrize("kind", [CsvSink, CocoSink])
def test_a_discarded_file_leaves_the_old_one(tmp_path: Path, kind: type[CsvSink] | type[CocoSink]) -> None:
    path = tmp_path / "out"
    path.write_text("old")
    sink = kind(path, 5)
    sink.add(RECORDS[0])
    sink.discard()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_point_names() -> None:
    assert point_names(5)[2] == "nose"
    assert point_names(2) == ("point_1", "point_2")
    assert point_names(0) == ()
