"""`scrfd export`, `verify` and `inspect` together, as their users run them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from toy_set import make
from typer.testing import CliRunner

from scrfdkit.certificate import Certificate
from scrfdkit.cli import app
from scrfdkit.errors import ModelError, OptionError


def scrfd(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [*map(str, words)], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.output


@pytest.fixture(scope="module")
def face(tmp_path_factory: pytest.TempPathFactory, examples: Path) -> Path:
    path = tmp_path_factory.mktemp("export") / "face.onnx"
    said = scrfd("export", "scrfd_500m_kps", "-o", path, "--pictures", examples, "--size", "640x640")
    assert "30 of 30 faces found, 0 more" in said
    assert "ms a run (1 x 640x640, 1 thread(s), cpu)" in said
    return path


def test_verify_and_inspect(face: Path) -> None:
    said = scrfd("verify", face)
    assert f"{face}: the hashes are those of its certificate" in said
    assert said.rstrip().endswith("passed")
    told = json.loads(scrfd("verify", face, "--json"))
    assert told["measured"]["faces"]["pictures"] == 1
    assert (told["file"], told["passed"], told["source"]) == (str(face), True, "scrfd_500m_kps")
    table = scrfd("inspect", face)
    assert "certificate: passed" in table
    assert "batch, 3, 640, 640" in table
    data = json.loads(scrfd("inspect", face, "--json"))
    assert data["certificate"]["files"] == told["files"]
    assert [b["name"] for b in data["bindings"]][:2] == ["input.1", "score_8"]


def test_scores_on_labelled_pictures(tmp_path: Path) -> None:
    toy = make(tmp_path / "toy")
    words = ("export", "scrfd_500m_kps", "-o", tmp_path / "face.onnx", "--size", "320x320", "--data", toy)
    said = scrfd(*words)
    assert "AP: ap " in said
    told = Certificate.from_json((tmp_path / "face.onnx.certificate.json").read_text())
    assert told.measured["ap"]["ap"] == pytest.approx(told.measured["ap_pytorch"]["ap"], abs=0.01)
    assert told.measured["ap"]["ap"] > 50


def test_several_files_make_a_table(face: Path, tmp_path: Path) -> None:
    other = tmp_path / "maps.onnx"
    scrfd("export", "scrfd_500m_kps", "-o", other, "--layout", "maps")
    lines = scrfd("verify", face, other).splitlines()
    rows = [line for line in lines if "onnx fp32" in line]
    assert ["face.onnx" in row for row in rows] == [True, False]
    assert ["maps.onnx" in row for row in rows] == [False, True]
    assert all("1 of 1" in row for row in rows)


def test_one_bad_file_of_several_does_not_hide_the_others(face: Path, tmp_path: Path) -> None:
    said = scrfd("verify", face, tmp_path / "gone.onnx", face, code=2)
    assert "gone.onnx: there is no such file" in said
    assert said.count("passed") == 2
    assert sum("onnx fp32" in line for line in said.splitlines()) == 2


def test_what_cannot_be_open_is_told(tmp_path: Path) -> None:
    for words, message in (
        (("--to", "tflite", "--dynamic"), "--dynamic: tflite files have a fixed size"),
        (("--to", "ncnn", "--batch", "dynamic"), "--batch: ncnn files have a fixed number"),
    ):
        with pytest.raises(OptionError, match=message):
            scrfd("export", "scrfd_500m_kps", "-o", tmp_path / "face", *words)


def test_inspect_looks_into_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "vastai"
    scrfd("export", "scrfd_500m_kps", "--to", "vastai", "-o", folder)
    assert "score_8" in scrfd("inspect", folder)


def test_a_changed_file_fails(face: Path, tmp_path: Path) -> None:
    copy = tmp_path / face.name
    copy.write_bytes(face.read_bytes()[:-1] + b"\x00")
    (tmp_path / f"{face.name}.certificate.json").write_text(Path(f"{face}.certificate.json").read_text())
    for verb in ("verify", "inspect"):
        with pytest.raises(ModelError, match="was changed"):
            scrfd(verb, copy)
    with pytest.raises(ModelError, match="was changed"):
        scrfd("detect", "--model", copy, copy)


def test_a_file_without_a_certificate(face: Path, tmp_path: Path) -> None:
    copy = tmp_path / face.name
    copy.write_bytes(face.read_bytes())
    assert "certificate" not in scrfd("inspect", copy)
    with pytest.raises(ModelError, match="has no certificate"):
        scrfd("verify", copy)


def test_update_writes_what_was_measured(face: Path, tmp_path: Path, examples: Path) -> None:
    copy, record = tmp_path / face.name, tmp_path / f"{face.name}.certificate.json"
    copy.write_bytes(face.read_bytes())
    record.write_text(Path(f"{face}.certificate.json").read_text())
    scrfd("verify", copy, "--pictures", examples / "astronaut.jpg", "--update")
    assert Certificate.from_json(record.read_text()).measured["faces"]["faces"] == 1


def test_mistakes(face: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--pictures: "):
        scrfd("verify", face, "--pictures", tmp_path)
    with pytest.raises(OptionError, match="--gt and --images: name the labels"):
        scrfd("verify", face, "--gt", tmp_path)
    with pytest.raises(OptionError, match="--calibrate: only int8"):
        scrfd("export", "scrfd_500m_kps", "-o", tmp_path / "a.onnx", "--calibrate", face)
    with pytest.raises(OptionError, match=r"--dynamic: and --size"):
        scrfd("export", "scrfd_500m_kps", "-o", tmp_path / "a.onnx", "--size", "64x64", "--dynamic")
