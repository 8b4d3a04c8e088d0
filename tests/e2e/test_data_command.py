"""`scrfd data`, as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow
from typer.testing import CliRunner, Result

from scrfdkit.cli.data import app
from scrfdkit.errors import ScrfdError


def scrfd(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """labelv2.txt with two pictures: faces with key points, an ignored one; pictures in images/."""
    (tmp_path / "images/e").mkdir(parents=True)
    for number, name in enumerate(("a", "b")):
        Pillow.new("RGB", (200, 100), (90, 90, 90 + number)).save(tmp_path / f"images/e/{name}.png")
    face = "20 20 60 60 30 30 1 50 30 1"
    (tmp_path / "labelv2.txt").write_text(
        f"# e/a.png 200 100\n{face}\n120 20.5 160 60 1\n# e/b.png 200 100\n120 20 160 60\n"
    )
    return tmp_path


def test_convert_there_and_back(source: Path) -> None:
    target, back = source / "yolo", source / "back.txt"
    result = scrfd("convert", source, target, "--to", "yolo")
    assert result.exit_code == 0
    assert "yolo cannot carry: 1 x ignore flags" in result.stderr
    assert "2 pictures, 3 faces" in result.stdout
    result = scrfd("convert", target, back, "--to", "labelv2", "--from", "yolo", "--images", source / "images")
    assert result.exit_code == 0
    assert not result.stderr
    points = " -1 -1 -1 -1 -1 -1"
    expected = (source / "labelv2.txt").read_text().replace("60 1\n#", f"60{points}\n#")
    assert back.read_text() == expected.replace("120 20 160 60\n", f"120 20 160 60{points}\n")


def test_convert_tells_what_was_not_read(tmp_path: Path) -> None:
    (tmp_path / "gt.txt").write_text("e/a.jpg\n1\n1 2 3 4 2 0 0 0 0 0\n")
    result = scrfd("convert", tmp_path / "gt.txt", tmp_path / "a.csv", "--to", "csv")
    assert result.exit_code == 0
    assert "not read: 1 x faces' blur" in result.stderr


def test_convert_refuses_broken_labels_and_writes_nothing(source: Path) -> None:
    with (source / "labelv2.txt").open("a") as file:
        file.write("1 2 3\n")
    result = scrfd("convert", source, source / "a.json", "--to", "coco")
    assert isinstance(result.exception, ScrfdError)
    assert "labelv2.txt:6: 3 numbers" in str(result.exception)
    assert not (source / "a.json").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["convert", "gone.txt", "a.csv", "--to", "csv"], "gone.txt: there is no such"),
        (["convert", "gone.txt", "a.csv", "--to", "xls"], "--to: 'xls'"),
        (["convert", "gone.txt", "a.csv", "--to", "csv", "--from", "xls"], "--from: 'xls'"),
        (["check", "gone.txt", "--format", "xls"], "--format: 'xls'"),
        (["show", "gone.txt", "--format", "xls", "-o", "a.png"], "--format: 'xls'"),
        (["check", "gone.txt", "--format", "csv"], "gone.txt: there is no such"),
        (["show", "gone.txt", "--images", ".", "-o", "a.png"], "gone.txt: there is no such"),
    ],
)
def test_wrong_use(words: list[str], message: str) -> None:
    result = scrfd(*words)
    assert isinstance(result.exception, ScrfdError)
    assert message in str(result.exception)


def test_check(source: Path) -> None:
    result = scrfd("check", source, "--images", source / "images")
    assert result.exit_code == 0
    assert "3 faces, 1 of them ignored, 1 with key points (2 each)" in result.stdout
    assert result.stdout.endswith("0 problems, 0 remarks\n")
    with (source / "labelv2.txt").open("a") as file:
        file.write("5 5 5 5\n" + "".join(f"90 {i} 80 99\n" for i in range(7)) + "# gone.png 5 5\n")
    result = scrfd("check", source, "--images", source / "images")
    assert result.exit_code == 1
    assert f"{source}/labelv2.txt:6: box 5 5 5 5" in result.stdout
    assert "7\n" in result.stdout
    assert "... 2 more; --all prints them" in result.stdout
    assert "gone.png: there is no such file" in result.stdout
    assert "labelv2.txt:13: box" in scrfd("check", source, "--all").stdout


def test_check_tells_what_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "gt.txt").write_text("e/a.jpg\n1\n1 2 30 40 2 0 0 0 0 0\n")
    result = scrfd("check", tmp_path / "gt.txt")
    assert result.exit_code == 0
    assert f"{tmp_path}/gt.txt: 1 x faces' blur" in result.stdout
    assert "1 picture, 0 without faces\n1 face, 0 of them" in result.stdout
    assert result.stdout.endswith("0 problems, 1 remark\n")


def test_yolo_needs_no_folder_of_pictures(source: Path) -> None:
    assert scrfd("convert", source, source / "labels", "--to", "yolo").exit_code == 0
    (source / "labelv2.txt").unlink()
    result = scrfd("check", source)
    assert result.exit_code == 0
    assert "2 pictures, 0 without faces" in result.stdout
    assert scrfd("show", source, "-o", source / "sheet.png").stdout == f"wrote {source}/sheet.png: 2 pictures\n"
    good, data = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (100, 200, 3), np.uint8))
    assert good
    (source / "images/e/a.png").write_bytes(data.tobytes()[: len(data) // 2])  # its size can still be read
    result = scrfd("check", source)
    assert result.exit_code == 1
    assert "unreadable: " in result.stdout
    assert result.stdout.endswith("1 problem, 0 remarks\n")


def test_convert_tells_what_was_assumed_and_lost(source: Path) -> None:
    (source / "labels/e").mkdir(parents=True)
    (source / "labelv2.txt").unlink()
    (source / "labels/e/a.txt").write_text("0 0.5 0.5 0.2 0.2 0.5 0.5 0.51 0.5\n")
    result = scrfd("convert", source, source / "gt.txt", "--to", "wider")
    assert result.exit_code == 0
    assert "note: numbers after the boxes were taken for key points" in result.stderr
    assert "wider cannot carry: 2 x picture sizes" in result.stderr
    assert result.stdout == f"wrote {source}/gt.txt: 2 pictures, 1 face\n"


def test_check_as_json(source: Path) -> None:
    with (source / "labelv2.txt").open("a") as file:
        file.write("5 5 5 5\n")
    result = scrfd("check", source, "--json")
    assert result.exit_code == 1
    content = json.loads(result.stdout)
    assert content["problems"] == 1
    assert content["findings"][0]["kind"] == "empty"
    assert content["summary"]["faces"] == 4
