"""A trained network with its description, used by the commands as a name of the zoo is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

from typer.testing import CliRunner

from scrfdkit.cli import app
from scrfdkit.network import Network, Weights, save
from scrfdkit.spec import Backbone, Head, ModelSpec, Neck

SPEC = ModelSpec(
    Backbone("separable", (8, 16), (2, 1, 2, 1), (16, 24, 32, 48)),
    Neck(16),
    Head(depth=1, channels=32, norm="bn", groups=0, shared=False, depthwise=True, scale=False, num_keypoints=5),
)
SMALL = ("--size", "96", "--batch", "2", "--steps", "1", "--workers", "1", "--threads", "1", "--device", "cpu")


def train(*words: object) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "scrfdkit", "train", *map(str, words), *SMALL, "--val-every", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def scrfd(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == code, done.output
    return done.stdout


def test_from_a_description_to_a_detector(toy_set: Path, examples: Path, tmp_path: Path) -> None:
    path, run = tmp_path / "winner.json", tmp_path / "run"
    save(path, Network("small-7", SPEC, source="a search"))
    assert "weights" in scrfd("info", path)
    assert json.loads(scrfd("info", path, "--json"))["file"]["weights"] == "none"
    said = train("--model", path, "--data", toy_set, "--licence", "mine", "-o", run)
    assert "all weights are fresh" in said

    save(path, Network("small-7", SPEC, Weights.of(run / "last.safetensors"), {"hard": 1.5}, "a search"))
    told = json.loads(scrfd("info", path, "--json"))
    assert (told["name"], told["spec"]) == ("small-7", json.loads(SPEC.to_json()))
    assert (told["file"]["licence"], told["file"]["measured"]) == ("mine", {"hard": 1.5})
    assert told["file"]["weights"] == str(run / "last.safetensors")
    assert "problem" not in told["file"]

    lines = scrfd("export", path, "-o", tmp_path / "small.onnx").splitlines()
    assert lines[0].startswith("small-7 for onnx, fp32")
    assert "licence: mine" in lines
    assert scrfd("verify", tmp_path / "small.onnx").endswith("passed\n")
    assert scrfd("verify", tmp_path / "small.onnx", "--against", path).endswith("passed\n")
    exported = json.loads(scrfd("info", tmp_path / "small.onnx", "--json"))["file"]
    assert exported["source"] == "a search; trained from random weights"
    assert exported["metrics"] == {"step": 1, "hard": 1.5}

    photo, size = examples / "astronaut.jpg", ("--size", "320x320", "--score", "0", "--max-faces", "3")
    for model in (path, tmp_path / "small.onnx"):
        assert len(json.loads(scrfd("detect", photo, "--model", model, *size))["faces"]) == 3
    record = json.loads(scrfd("bench", path, "--size", "64x64", "--iterations", "1", "--json", "-"))
    assert record["runtime"] == "PyTorchRuntime"
    board = json.loads(scrfd("eval", "labels", "--labels", toy_set, "--model", path, "--json"))
    assert "winner" in json.dumps(board)

    again = train("--model", path, "--weights", path, "--data", toy_set, "-o", tmp_path / "more")
    assert f"starts with the weights of {run / 'last.safetensors'} (small-7)" in again
    assert "terms of these weights, which also hold for what is made of them: mine" in again
    more = json.loads(scrfd("info", tmp_path / "more" / "last.safetensors", "--json"))
    assert (more["name"], more["file"]["licence"]) == ("small-7", "mine")

    (run / "last.safetensors").write_bytes((tmp_path / "more" / "last.safetensors").read_bytes())
    assert "it was changed" in json.loads(scrfd("info", path, "--json"))["file"]["problem"]


def test_descriptions_are_read_without_torch() -> None:
    program = "import sys, scrfdkit.network; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {name.split(".")[0] for name in done.stdout.split()} & {"torch", "onnxruntime", "cv2"}
