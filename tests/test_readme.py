"""The README's commands and code do what it says."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
SCRFD = [sys.executable, "-m", "scrfdkit"]


def blocks(language: str) -> list[str]:
    """Fenced blocks in a language, "" for those without one."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)
    return [body for name, body in found if name == language]


def commands() -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks("") for line in block.splitlines()]
    return [line for line in lines if line.startswith("scrfd ")]


@pytest.fixture
def place(tmp_path: Path, examples: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that the README's commands name."""
    (tmp_path / "holiday").mkdir()
    for name in ("photo.jpg", "holiday/a.jpg", "a.jpg", "b.jpg", "crowd.jpg", "selfie.jpg", "scan.jpg"):
        shutil.copy(examples / "astronaut.jpg", tmp_path / name)
    shutil.copytree(examples, tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCRFDKIT_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path


def add_video(place: Path) -> None:
    pytest.importorskip("av")
    from video_files import make_video

    make_video(place / "video.mp4", audio="aac")


def add_official(place: Path) -> None:
    """A checkpoint under an official name, of random weights: the real ones cannot be part of this project."""
    torch = pytest.importorskip("torch")
    from scrfdkit.model.net import build
    from scrfdkit.zoo import ZOO

    net = build(ZOO["scrfd_10g_kps"].spec)
    torch.save({"meta": {}, "state_dict": net.state_dict()}, place / "SCRFD_10G_KPS.pth")


def add_evaluation(place: Path) -> None:
    """A tiny WIDER FACE with results, and labels of the astronaut in two formats."""
    import wider_files

    from scrfdkit import Detector
    from scrfdkit.data import formats
    from scrfdkit.data.labels import LabelledImage

    wider_files.write_ground_truth(place / "widerface" / "gt")
    wider_files.write_pictures(place / "widerface" / "val" / "images")
    wider_files.write_results(place / "results.npz", wider_files.FIRST)
    (place / "images").mkdir()
    shutil.copy(place / "photo.jpg", place / "images" / "photo.jpg")
    boxes = Detector.open().detect(place / "photo.jpg").boxes
    labels = [LabelledImage("photo.jpg", 512, 512, boxes, np.zeros(len(boxes), bool))]
    formats.write(labels, place / "labels.json", "coco")
    formats.write(labels, place / "labelv2.txt", "labelv2")


def add_labels(place: Path, toy_set: Path) -> None:
    """Labelled pictures to learn from, and others to be scored on."""
    for name in ("faces", "val"):
        shutil.copytree(toy_set, place / name)


def add_run(place: Path) -> None:
    """A training that was stopped after the first of two steps, and its weights as the best ones."""
    pytest.importorskip("torch")
    from rich.console import Console

    from scrfdkit.train.recipes import find
    from scrfdkit.train.run import train
    from scrfdkit.train.settings import Settings
    from scrfdkit.train.watch import Watch

    class Impatient(Watch):
        def begin(self, total_steps: int, start_step: int, steps_per_epoch: int) -> None:
            signal.raise_signal(signal.SIGINT)

    run = place / "runs" / "faces"
    recipe = find("fast").change({"size": 96, "batch": 2, "steps": 2})
    settings = Settings("scrfd_500m_kps", "faces", "runs/faces", recipe, device="cpu", workers=1)
    with Impatient(Console(quiet=True)) as watch:
        assert train(settings, watch).steps == 1
    shutil.copy(run / "last.safetensors", run / "best.safetensors")


def add_exports(place: Path) -> None:
    """What other commands have exported."""
    pytest.importorskip("torch")
    pytest.importorskip("openvino")
    from scrfdkit.export.run import export
    from scrfdkit.export.source import open_source
    from scrfdkit.export.targets import TARGETS

    source = open_source("scrfd_500m_kps")
    for name, target in (("face.onnx", "onnx"), ("face.xml", "openvino")):
        export(source, place / name, TARGETS[target])


def add_search(place: Path) -> None:
    """A search of two small networks, one of which is done: its weights are fresh ones."""
    pytest.importorskip("optuna")
    from scrfdkit.model.net import build
    from scrfdkit.search import plan as plans
    from scrfdkit.search.candidate import Candidate
    from scrfdkit.search.finished import WEIGHTS
    from scrfdkit.search.space import backbone_space
    from scrfdkit.search.store import Store, create
    from scrfdkit.train.state import publish
    from scrfdkit.zoo import ZOO

    small = ZOO["base_500m"].spec
    narrow = replace(small.backbone, stem=(8, 8), blocks=(1, 1, 1, 1), widths=(8, 16, 16, 16))
    specs = [replace(small, backbone=replace(narrow, blocks=(1, 1, 1, n))) for n in (1, 2)]
    candidates = tuple(Candidate(number, spec) for number, spec in enumerate(specs, 1))
    (place / "search").mkdir()
    plan = plans.save(plans.make(backbone_space(5e8), candidates, 0, 2, 2), place / "search" / "one", create)
    claim = Store(plan).claim()
    assert claim is not None
    publish(plan.run_folder(claim.candidate) / WEIGHTS, build(claim.candidate.spec), name="candidate-0001")
    claim.done({"hard": 12.0}, 12.0)


def test_it_opens_with_the_two_commands() -> None:
    assert [line.split()[1] for line in blocks("")[0].splitlines()] == ["demo", "test"]
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^demo:", makefile, re.M)
    assert re.search(r"^test:", makefile, re.M)


@pytest.mark.parametrize("command", commands())
def test_commands(command: str, place: Path, toy_set: Path) -> None:
    words = shlex.split(command)[1:]
    if "video.mp4" in words:
        add_video(place)
    if "SCRFD_10G_KPS.pth" in words:
        add_official(place)
    if words[0] in ("eval", "analyze", "data", "calibrate"):
        pytest.importorskip("scipy")
        add_evaluation(place)
    if words[0] in ("verify", "inspect") or ("face.xml" in words and words[0] != "export"):
        add_exports(place)
    if words[0] == "bench":
        words += ["--iterations" if "--iterations" in words else "--repeat", "2", "--warmup", "1"]
    if "openvino" in words:
        pytest.importorskip("nncf")
    if words[0] == "search" and words[1] != "plan":
        add_search(place)
    if words[:2] == ["search", "run"]:
        words += ["--size", "96", "--batch", "2", "--steps", "1", "--workers", "1", "--holdout", "0.3"]
    if words[0] in ("train", "export") or words[:2] == ["search", "run"]:
        add_labels(place, toy_set)
        if words[0] == "train" and "--data" in words:
            words += ["--size", "96", "--batch", "2", "--steps", "2", "--workers", "1"]
        elif words[0] != "search":
            add_run(place)
    result = subprocess.run([*SCRFD, *words], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    if words[0] == "train":
        assert "weights after 2 steps: runs/" in result.stdout


def test_first_python_block(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exec(compile(blocks("python")[0], "README.md", "exec"), {})
    assert capsys.readouterr().out.startswith("29 ")


def test_other_python_lines(place: Path) -> None:
    """Every call of the second block, on the embedded weights in place of those that cannot be shipped."""
    from scrfdkit import Detector

    detector = Detector.open()
    calls = [line for line in blocks("python")[1].splitlines() if line.startswith("detector.")]
    assert len(calls) == 5
    for line in calls:
        faces = eval(line.split("  #")[0], {"detector": detector})
        assert len(faces[0] if isinstance(faces, list) else faces) == 1, line


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)\)", README))))
def test_links(link: str) -> None:
    assert (ROOT / link).exists()


def test_documents_link_to_what_exists() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name}: {link}"


def test_help_of_every_command() -> None:
    verbs = {line.split()[1] for line in commands()}
    assert {"detect", "models", "info", "convert", "bench", "doctor", "eval", "data"} <= verbs
    assert {"analyze", "calibrate", "train", "search", "export", "verify", "inspect"} <= verbs
    for verb in sorted(verbs):
        result = subprocess.run(
            [*SCRFD, verb, "--help"], capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "200"}
        )
        assert verb in result.stdout
