"""`scrfd eval close-ups` as its users run it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from scrfdkit import Detector, weights
from scrfdkit.data import formats
from scrfdkit.data.labels import LabelledImage

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


def scrfd(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scrfdkit", "eval", "close-ups", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=120, check=False)


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory, examples: Path) -> Path:
    """A photograph labelled by the detector itself, and one that is not there."""
    folder = tmp_path_factory.mktemp("album")
    shutil.copy(examples / "astronaut.jpg", folder)
    faces = Detector.open(device="cpu", threads=1).detect(folder / "astronaut.jpg")
    assert faces.keypoints is not None and len(faces) == 1
    points = np.concatenate([faces.keypoints, np.ones((1, 5, 1), np.float32)], axis=2)
    none = np.zeros(1, bool)
    labels = [
        LabelledImage("astronaut.jpg", 512, 512, faces.boxes, none, points),
        LabelledImage("gone.jpg", 512, 512, faces.boxes, none, points),
    ]
    formats.write(labels, folder / "labelv2.txt", "labelv2")
    return folder


def test_json_and_table(album: Path) -> None:
    words = ("--labels", album, "--model", weights.embedded(), "--min-face", 64, "--share", 0.4, "--jobs", 1)
    done = scrfd(*words, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["faces"], record["min_face"], record["size"]) == (1, 64, ["auto"])
    assert record["notes"] == ["1 of 2 labelled pictures are there: faces are from these alone"]
    (row,) = record["rows"]
    assert row["name"] == weights.embedded().stem
    assert (row["baseline"]["share"], row["baseline"]["found"], row["baseline"]["faces"]) == (0.2, 1, 1)
    assert [each["share"] for each in row["shares"]] == [0.4]
    assert row["found"] == row["shares"][0]["found"] == 1
    assert row["shares"][0]["mean_iou"] > 0.8
    assert row["shares"][0]["landmarks"]["median"] < 0.1
    done = scrfd(*words, "--model", weights.embedded(), "--size", "320", "--size", "128")
    assert done.returncode == 0, done.stderr
    assert "1 face, each filling these shares" in done.stdout
    for cell in ("20 %", "40 %", "all but 20 %", "mean IoU of found", "median landmark error", "(2)"):
        assert cell in done.stdout
    assert done.stderr.startswith("warning: 1 of 2 labelled pictures are there")


def test_the_same_again(album: Path) -> None:
    words = ("--labels", album, "--model", weights.embedded(), "--min-face", 64, "--json", "--seed")
    assert scrfd(*words, 5).stdout == scrfd(*words, 5).stdout != scrfd(*words, 6).stdout


def test_kept_close_ups_are_a_labelled_set(album: Path, tmp_path: Path) -> None:
    done = scrfd("--labels", album, "--min-face", 64, "--save-pictures", tmp_path / "kept", "--fill", 0)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr.splitlines()[0] == f"wrote 6 close-ups to {tmp_path / 'kept'}"
    labels = formats.read(tmp_path / "kept")
    assert [each.path.split("/")[0] for each in labels] == ["0.2", "0.4", "0.55", "0.7", "0.85", "0.95"]
    for each in labels:
        picture = cv2.imread(str(tmp_path / "kept" / each.path))
        assert picture.shape == (each.height, each.width, 3)
        sides = each.boxes[0, 2:] - each.boxes[0, :2]
        assert sides.max() / each.width == pytest.approx(float(each.path.split("/")[0]), abs=0.01)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--model or --save-pictures: nothing to do"),
        (["--model", "x.onnx", "--share", "1.2"], "--share: 1.2 is not a share"),
        (["--model", "x.onnx", "--baseline", "0.01"], "--baseline: 0.01 is not a share"),
        (["--model", "x.onnx", "--share", "nan"], "--share: nan is not a share"),
        (["--model", "x.onnx", "--size", "big"], "--size: 'big' is not"),
        (["--model", "x.onnx", "--format", "word"], "--format: 'word' is not one of"),
        (["--model", "x.onnx"], "no face of 1 picture has 128 pixels"),
        (["--model", "x.onnx", "--min-face", "64"], "x.onnx: there is no such file"),
        (["--save-pictures", "labelv2.txt"], "labelv2.txt is a file; name a folder"),
    ],
)
def test_mistakes_are_one_line(album: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str) -> None:
    monkeypatch.chdir(album)
    done = scrfd("--labels", ".", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_official_networks_differ_as_their_users_say(shared: Path) -> None:
    """Landmark heads with batch normalisation lose large faces, the others do not."""
    official = shared / "weights" / "official"
    done = scrfd(
        *("--labels", shared / "data" / "widerface" / "val", "--num", 12, "--share", 0.4, "--share", 0.95, "--json"),
        *("--model", official / "scrfd_500m.onnx", "--model", official / "scrfd_500m_kps.onnx"),
    )
    assert done.returncode == 0, done.stderr
    group, batch = json.loads(done.stdout)["rows"]
    assert group["baseline"]["faces"] == 12
    assert min(group["baseline"]["found"], batch["baseline"]["found"]) > 0.8
    assert batch["shares"][0]["found"] > 0.8
    assert group["shares"][1]["found"] > 0.7
    assert batch["shares"][1]["found"] < 0.3
