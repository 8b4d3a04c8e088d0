"""Official networks in float16 and int8: how far they move, what they find, and that they cost little accuracy."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from test_insightface import compare

from scrfdkit.cli.validation import scorer
from scrfdkit.detector import Detector
from scrfdkit.export.agreement import agreement
from scrfdkit.export.calibration import choose
from scrfdkit.export.contract import Contract
from scrfdkit.export.measure import TOLERANCES
from scrfdkit.export.onnx import write
from scrfdkit.export.order import Order
from scrfdkit.export.parity import compare_heads
from scrfdkit.export.reference import Reference
from scrfdkit.export.source import Source, open_source
from scrfdkit.runtime.ort import OrtRuntime

NAMES = ("scrfd_2.5g_kps", "scrfd_2.5g", "scrfd_500m_kps")
SMALL = Contract(size=(320, 320))


def official(shared: Path, name: str) -> Source:
    return open_source(shared / "weights" / "official" / f"{name}.onnx")


def quantised(shared: Path, name: str, path: Path, contract: Contract, number: int) -> Path:
    """With ranges of so many training pictures."""
    pictures = choose(sorted((shared / "data/widerface/train/images").rglob("*.jpg")), number)
    write(official(shared, name), path, Order(contract, "int8", pictures))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_stays_within_its_tolerance(name: str, shared: Path, tmp_path: Path) -> None:
    one = official(shared, name)
    write(one, tmp_path / "half.onnx", Order(precision="fp16"))
    runtime = OrtRuntime.open(tmp_path / "half.onnx", threads=1)
    cases = compare_heads(Reference(one.net), runtime, Contract(), one.info.spec.input)
    assert 0 < max(case.largest for case in cases) < TOLERANCES["fp16"]
    assert max(case.scores for case in cases) < 0.01


@pytest.mark.parametrize("name", NAMES)
def test_int8_finds_the_faces_of_unseen_pictures(name: str, shared: Path, tmp_path: Path) -> None:
    path = quantised(shared, name, tmp_path / "small.onnx", SMALL, 8)
    photos = sorted((shared / "data/widerface/val/images").rglob("*.jpg"))[::40]
    plain = Detector(OrtRuntime.open(shared / "weights" / "official" / f"{name}.onnx", threads=1))
    found = agreement(plain, Detector(OrtRuntime.open(path, threads=1)), photos)
    assert found.faces > 15
    assert found.missing == found.extra == 0
    assert 0 < found.scores < 0.1


def test_insightface_reads_int8(shared: Path, tmp_path: Path, examples: Path) -> None:
    path = quantised(shared, "scrfd_2.5g_kps", tmp_path / "small.onnx", Contract(), 4)
    assert compare(path, sorted(examples.glob("*.jpg")), 0.5) > 25


@pytest.mark.slow
@pytest.mark.parametrize(("name", "most"), [("scrfd_2.5g_kps", 0.7), ("scrfd_2.5g", 0.7), ("scrfd_500m_kps", 1.0)])
def test_average_precision_of_int8(name: str, most: float, shared: Path, tmp_path: Path) -> None:
    faces = shared / "data" / "widerface"
    path = quantised(shared, name, tmp_path / "small.onnx", Contract(), 64)
    score = scorer(faces / "val", faces / "gt")
    plain = shared / "weights" / "official" / f"{name}.onnx"
    exact, found = (score(Detector(OrtRuntime.open(p, threads=1))) for p in (plain, path))
    assert exact["hard"] - found["hard"] <= most
