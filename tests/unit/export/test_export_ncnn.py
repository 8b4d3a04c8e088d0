"""ncnn files of small networks of every kind: names, precisions, sizes, and what cannot be."""

from __future__ import annotations

import stat
from pathlib import Path

import numpy as np
import pnnx
import pytest
import torch
from export_files import SPECS, export, noise, sparse, write

from scrfdkit.errors import ModelError, OptionError
from scrfdkit.export.contract import Contract
from scrfdkit.export.parity import blob_of
from scrfdkit.layout import identify
from scrfdkit.runtime.formats import open_runtime
from scrfdkit.runtime.ncnn_file import read_param


@pytest.mark.parametrize("kind", SPECS)
def test_maps_of_any_size(kind: str, tmp_path: Path) -> None:
    one = sparse(SPECS[kind])
    done = export(one, tmp_path / "net.param", Contract("maps"), to="ncnn")
    assert 0 < done.largest <= 1e-3
    assert set(done.certificate.files) == {"net.param", "net.bin"}
    opened = open_runtime(done.path, threads=1)
    for width, height in ((160, 128), (32, 64), (288, 96)):
        blob = blob_of(noise(1, width, height), one.info.spec.input)
        for found, wanted in zip(opened.run(blob), one.net(torch.from_numpy(blob)), strict=True):
            assert found.shape == wanted.shape
            assert np.abs(found - wanted.numpy()).max() <= 1e-3


def test_group_norm_is_a_layer_of_its_own(tmp_path: Path) -> None:
    """A group norm of reshapes and instance norms would fix the size."""
    path = write(sparse(SPECS["separable, gn"]), tmp_path / "net.param", Contract("maps"), "ncnn")
    kinds = {layer.kind for layer in read_param(path).layers}
    assert "GroupNorm" in kinds
    assert not kinds & {"Reshape", "InstanceNorm", "MemoryData"}


def test_with_sigmoid_scores_are_probabilities(tmp_path: Path) -> None:
    one = sparse(SPECS["basic, bn"])
    blob = blob_of(noise(1, 128, 128), one.info.spec.input)
    logits = {}
    for sigmoid in (False, True):
        contract = Contract("maps", sigmoid=sigmoid)
        path = write(one, tmp_path / f"{sigmoid}.param", contract, "ncnn")
        outputs = open_runtime(path).run(blob)
        logits[sigmoid] = outputs[0]
        assert identify(outputs, (128, 128)).logits is not sigmoid
    assert np.abs(1 / (1 + np.exp(-logits[False])) - logits[True]).max() <= 1e-5


def test_fp16_is_half_as_large_and_near(tmp_path: Path) -> None:
    one = sparse(SPECS["basic, bn"])
    sizes = {}
    for precision in ("fp32", "fp16"):
        done = export(one, tmp_path / f"{precision}.param", Contract("maps"), to="ncnn", precision=precision)
        sizes[precision] = done.path.with_suffix(".bin").stat().st_size
    assert sizes["fp16"] < 0.6 * sizes["fp32"]
    assert 1e-5 < done.largest < 0.1


def test_pnnx_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    export(sparse(SPECS["basic, bn"]), tmp_path / "out" / "net.param", Contract("maps"), to="ncnn")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    names = sorted(p.name for p in (tmp_path / "out").iterdir())
    assert names == ["net.bin", "net.param", "net.param.certificate.json"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("contract", "message"),
    [(Contract("maps", batch=2), "one picture a run, not 2"), (Contract("reference"), "have maps, not 'reference'")],
)
def test_what_ncnn_cannot_do(contract: Contract, message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        export(sparse(SPECS["basic, bn"]), tmp_path / "net.param", contract, to="ncnn")
    assert not list(tmp_path.iterdir())


def test_a_failing_converter_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "pnnx"
    script.write_text("#!/bin/sh\necho starting\necho no such operator >&2\nexit 3\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(pnnx, "EXEC_PATH", str(script))
    with pytest.raises(ModelError, match="ends with 3: starting / no such operator"):
        export(sparse(SPECS["basic, bn"]), tmp_path / "net.param", Contract("maps"), to="ncnn")
    monkeypatch.setattr(pnnx, "EXEC_PATH", str(tmp_path / "gone"))
    with pytest.raises(ModelError, match="pnnx: cannot be run"):
        export(sparse(SPECS["basic, bn"]), tmp_path / "net.param", Contract("maps"), to="ncnn")
    assert [p.name for p in tmp_path.iterdir()] == ["pnnx"]
