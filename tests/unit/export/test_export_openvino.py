"""OpenVINO files: every kind of network, layout, shape and precision."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("openvino")

from export_files import SPECS, export, source

from scrfdkit import Detector
from scrfdkit.errors import OptionError
from scrfdkit.export.contract import Contract
from scrfdkit.export.openvino import TARGET
from scrfdkit.export.order import Order
from scrfdkit.export.source import open_source
from scrfdkit.runtime.openvino import OpenVinoRuntime


@pytest.mark.parametrize(
    ("name", "contract"),
    [
        ("separable, gn", Contract()),
        ("basic, bn", Contract("maps")),
        ("bottleneck, gn", Contract("maps", sigmoid=True, batch=2)),
        ("five levels", Contract(size=(192, 128), batch=3)),
    ],
)
def test_every_network_and_layout(name: str, contract: Contract, tmp_path: Path) -> None:
    done = export(source(SPECS[name]), tmp_path / "a.xml", contract, to="openvino")
    assert done.largest < 1e-3
    assert done.certificate.passed
    assert done.certificate.measured["faces"]["missing"] == 0
    assert set(done.certificate.files) == {"a.xml", "a.bin"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.bin", "a.xml", "a.xml.certificate.json"]
    runtime = OpenVinoRuntime.open(done.path)
    assert (runtime.input_size, runtime.batch_size) == (contract.size, contract.batch)
    assert runtime.metadata["layout"] == contract.layout


def test_fp16_halves_the_weights(tmp_path: Path) -> None:
    one = source(SPECS["basic, bn"])
    sizes = {}
    for precision in ("fp32", "fp16"):
        TARGET.write(one, tmp_path / f"{precision}.xml", Order(precision=precision))
        sizes[precision] = (tmp_path / f"{precision}.bin").stat().st_size
    assert sizes["fp16"] < 0.55 * sizes["fp32"]
    blob = np.random.default_rng(0).normal(size=(1, 3, 128, 128)).astype(np.float32)
    pairs = [OpenVinoRuntime.open(tmp_path / f"{precision}.xml").run(blob) for precision in sizes]
    gaps = [float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(*pairs, strict=True)]
    assert 0 < max(gaps) < 1e-2


@pytest.mark.parametrize("contract", [Contract(), Contract("maps", size=(320, 256), batch=2)], ids=["open", "fixed"])
def test_int8_finds_the_same_faces(contract: Contract, tmp_path: Path, examples: Path) -> None:
    pytest.importorskip("nncf")
    pictures = (examples / "solvay_1927.jpg", examples / "astronaut.jpg", tmp_path / "broken.jpg")
    pictures[2].write_bytes(b"no picture")
    path = tmp_path / "a.xml"
    TARGET.write(open_source("scrfd_500m_kps"), path, Order(contract, "int8", pictures))
    text = path.read_text()
    layers = len(re.findall(r'type="(?:Group)?Convolution"', text))
    assert text.count('element_type="i8"') >= layers > 50
    assert (tmp_path / "a.bin").stat().st_size < 0.45 * 2.6e6
    runtime = OpenVinoRuntime.open(path, threads=1)
    assert (runtime.input_size, runtime.batch_size) == (contract.size, contract.batch)
    found = Detector(runtime).detect(examples / "solvay_1927.jpg")
    wanted = Detector.open(device="cpu", threads=1).detect(
        examples / "solvay_1927.jpg", input_size=contract.size or "auto"
    )
    assert abs(len(found) - len(wanted)) <= 2
    assert np.median(np.abs(found.boxes[:, None] - wanted.boxes).max(axis=2).min(axis=1)) < 4


def test_int8_says_nothing_and_names_unreadable_pictures(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("nncf")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    with pytest.raises(OptionError, match="calibrate: none of the pictures can be read"):
        TARGET.write(source(SPECS["basic, bn"]), tmp_path / "a.xml", Order(Contract(), "int8", (broken,)))
    assert capfd.readouterr().out == ""
    assert not (tmp_path / "a.xml").exists()
