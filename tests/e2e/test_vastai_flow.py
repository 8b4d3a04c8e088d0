"""The whole way over a Vastai device as users walk it, with onnxruntime in place of the device."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import vastai_device
from typer.testing import CliRunner

from scrfdkit import Detector
from scrfdkit.cli import app
from scrfdkit.errors import ScrfdError
from scrfdkit.evaluate import reference, results
from scrfdkit.evaluate.results import Results
from scrfdkit.evaluate.run import run, wider_pictures
from scrfdkit.evaluate.widerface import average_precision, read_ground_truth

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


def scrfd(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scrfdkit", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, examples: Path) -> Path:
    """The embedded network for Vastai in out/, three pictures in event folders in images/, packed in packed/."""
    place = tmp_path_factory.mktemp("vastai")
    for event, name, source in (("0--A", "x", "astronaut"), ("1--B", "a", "solvay_1927"), ("1--B", "y", "astronaut")):
        (place / "images" / event).mkdir(parents=True, exist_ok=True)
        (place / "images" / event / f"{name}.jpg").symlink_to(examples / f"{source}.jpg")
    done = scrfd("export", "scrfd_500m_kps", "--to", "vastai", "-o", f"{place}/out/", "--calibrate", place / "images")
    assert f"what to do with it: {place}/out/README.md" in done.stdout
    done = scrfd("vastai", "pack", place / "images", "-o", place / "packed")
    assert done.stdout == f"3 pictures packed, 0 were there; the list is {place}/packed/list.txt\n"
    return place


def same(found: Results, pictures: Path, detector: Detector) -> None:
    """Exactly the faces that the evaluation finds."""
    assert found.images == ("0--A/x", "1--B/a", "1--B/y")
    start = 0
    for name, count in zip(found.images, found.counts, strict=True):
        faces = reference.detect(detector, pictures / f"{name}.jpg")
        xywh = np.concatenate([faces.boxes[:, :2], faces.boxes[:, 2:] - faces.boxes[:, :2]], axis=1)
        assert count == len(faces)
        assert np.abs(found.boxes[start : start + count] - xywh).max() < 1e-5
        assert np.abs(found.scores[start : start + count] - faces.scores).max() < 1e-8
        start += count


def test_the_exact_way_is_the_evaluation(folder: Path, tmp_path: Path) -> None:
    again = scrfd("vastai", "pack", folder / "images", "-o", folder / "packed")
    assert again.stdout.startswith("0 pictures packed, 3 were there")
    vastai_device.run(folder / "out/maps.onnx", folder / "packed/list.txt", tmp_path / "outputs")
    words = ("--list", folder / "packed/list.txt", "--data", folder / "images", "-o", tmp_path / "results")
    done = scrfd("vastai", "decode", tmp_path / "outputs", *words)
    assert "pictures lay in the corner of the input: " in done.stdout
    assert done.stdout.endswith(f"3 result files in {tmp_path}/results, outputs taken by number\n")
    same(results.read(tmp_path / "results"), folder / "images", Detector.open(folder / "out/maps.onnx", device="cpu"))


def test_pictures_in_the_centre(folder: Path, tmp_path: Path) -> None:
    """Found out by itself; the faces are those of the evaluation, as far as a network sees the same elsewhere."""
    vastai_device.run(folder / "out/maps.onnx", folder / "packed/list.txt", tmp_path / "outputs", "centre")
    words = (
        "vastai",
        "decode",
        tmp_path / "outputs",
        "--list",
        folder / "packed/list.txt",
        "--data",
        folder / "images",
    )
    assert "lay in the centre" in scrfd(*words, "-o", tmp_path / "results").stdout
    scrfd(*words, "-o", tmp_path / "published", "--published")
    detector = Detector.open(folder / "out/maps.onnx", device="cpu")
    faces = reference.detect(detector, folder / "images/1--B/a.jpg", score_threshold=0.5)
    for name, within in (("results", 3.0), ("published", 3.5)):
        found = results.read(tmp_path / name)
        start = int(found.counts[0])
        boxes, scores = (values[start : start + int(found.counts[1])] for values in (found.boxes, found.scores))
        boxes = boxes[scores > 0.5]
        assert abs(len(boxes) - len(faces)) <= 1
        middles = boxes[:, :2] + boxes[:, 2:] / 2
        theirs = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
        nearest = np.linalg.norm(middles[:, None] - theirs, axis=2).min(axis=0)
        assert np.median(nearest) < within
    text = (tmp_path / "published/1--B/a.txt").read_text()
    assert text.startswith("1--B/a\n")
    assert all(float(number).is_integer() for line in text.splitlines()[2:] for number in line.split()[:4])


def test_pictures_letterboxed_here(folder: Path, tmp_path: Path) -> None:
    """A device has nothing to resize then, wherever it would put a smaller picture."""
    scrfd("vastai", "pack", folder / "images", "-o", tmp_path / "packed", "--letterbox", "640x640")
    vastai_device.run(folder / "out/maps.onnx", tmp_path / "packed/list.txt", tmp_path / "outputs", "centre")
    words = ("--list", tmp_path / "packed/list.txt", "--data", folder / "images", "-o", tmp_path / "results")
    assert "lay in the corner" in scrfd("vastai", "decode", tmp_path / "outputs", *words).stdout
    found = results.read(tmp_path / "results")
    faces = reference.detect(Detector.open(folder / "out/maps.onnx", device="cpu"), folder / "images/0--A/x.jpg")
    xywh = np.concatenate([faces.boxes[:, :2], faces.boxes[:, 2:] - faces.boxes[:, :2]], axis=1)
    assert np.abs(found.boxes[0] - xywh[0]).max() < 0.1


def test_what_is_missing_or_broken_is_told(folder: Path, tmp_path: Path) -> None:
    vastai_device.run(folder / "out/maps.onnx", folder / "packed/list.txt", tmp_path / "outputs")
    (tmp_path / "outputs/output_1.npz").unlink()
    (tmp_path / "outputs/output_0.npz").write_bytes(b"PK")
    words = ("--list", folder / "packed/list.txt", "--data", folder / "images", "-o", tmp_path / "results")
    unclear = scrfd("vastai", "decode", tmp_path / "outputs", *words, "--size", "320x320", code=1)
    assert unclear.stderr.count("--size must be the input size of the compiled network") == 1
    done = scrfd("vastai", "decode", tmp_path / "outputs", *words, code=1)
    assert "output_0.npz: cannot be read" in done.stderr
    assert "1 picture without outputs: a" in done.stderr
    assert [p.name for p in (tmp_path / "results").rglob("*.txt")] == ["y.txt"]

    (tmp_path / "images").mkdir()
    (tmp_path / "images/good.jpg").symlink_to(folder / "images/0--A/x.jpg")
    (tmp_path / "images/bad.jpg").write_bytes(b"\xff\xd8")
    done = scrfd("vastai", "pack", tmp_path / "images", "-o", tmp_path / "packed", code=1)
    assert "bad.jpg" in done.stderr
    assert (tmp_path / "packed/list.txt").read_text() == f"{tmp_path}/packed/good.npz\n"


def test_mistakes_name_their_flag(folder: Path, tmp_path: Path) -> None:
    pack = ("vastai", "pack", folder / "images", "-o", tmp_path)
    decode = ("vastai", "decode", tmp_path, "--list", folder / "packed/list.txt", "--data", folder, "-o", tmp_path)
    for words, start in (
        ((*pack, "--letterbox", "640x600"), "--letterbox: 640x600: width and height must be multiples of 32"),
        ((*pack, "--letterbox", "640"), "--letterbox: '640' is not WIDTHxHEIGHT"),
        ((*decode, "--size", "auto"), "--size: 'auto' is not WIDTHxHEIGHT"),
        ((*decode, "--published", "--fed", "corner"), "--fed: the published way has pictures in the centre"),
        (decode, f"{tmp_path}: holds no .npz files of outputs"),
    ):
        with pytest.raises(ScrfdError) as found:
            CliRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
        assert str(found.value).startswith(start)


def test_average_precision_is_the_evaluators(folder: Path, tmp_path: Path, shared: Path) -> None:
    """On twenty of WIDER FACE's pictures, with the graph that the device would have."""
    truth = read_ground_truth(shared / "data/widerface/gt")
    names, files = wider_pictures(shared / "data/widerface", truth)
    chosen = range(0, len(names), len(names) // 20)
    names, files = [names[i] for i in chosen], [files[i] for i in chosen]
    scrfd("vastai", "pack", *files, "-o", tmp_path / "packed")
    vastai_device.run(folder / "out/maps.onnx", tmp_path / "packed/list.txt", tmp_path / "outputs")
    words = ("--list", tmp_path / "packed/list.txt", "--data", shared / "data/widerface", "-o", tmp_path / "results")
    scrfd("vastai", "decode", tmp_path / "outputs", *words)
    detector = Detector.open(folder / "out/maps.onnx", device="cpu", threads=1)
    theirs = run(names, files, reference.of_detector(detector)).results
    scores = []
    for found in (results.read(tmp_path / "results"), theirs):
        some, aligned, _ = results.align(truth, found)
        scores.append({name: curve.ap for name, curve in average_precision(some, aligned).items()})
    assert scores[0] == scores[1]
    assert scores[0]["hard"] > 0.5
