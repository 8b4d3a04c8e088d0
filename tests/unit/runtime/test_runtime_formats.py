"""Which runtime opens what, by suffix, by name and by address."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import get_args

import pytest

from scrfdkit.cli.flags import DeviceName, RuntimeName
from scrfdkit.detector import DEVICES
from scrfdkit.errors import MissingExtraError, ModelError
from scrfdkit.runtime.formats import FORMATS, RUNTIMES, bindings, choose, is_address, open_runtime, version
from scrfdkit.weights import embedded


def test_every_row_can_be_asked_for_and_has_its_two_functions() -> None:
    assert len(set(RUNTIMES)) == len(RUNTIMES)
    for row in FORMATS:
        assert row.suffixes or row.scheme
        for suffix in row.suffixes:
            assert choose(Path(f"face{suffix}"), row.name) is row
        try:
            module = row.load()
        except MissingExtraError as error:
            assert row.extra
            assert f"scrfdkit[{row.extra}]" in str(error)
            continue
        assert callable(module.open_model)
        assert callable(module.bindings)


def test_the_commands_know_all_of_them() -> None:
    assert set(get_args(RuntimeName)) == {row.name for row in FORMATS if row.suffixes}
    assert get_args(DeviceName) == DEVICES


def test_the_file_chooses() -> None:
    assert choose("face.onnx").name == "onnxruntime"
    assert choose("face.safetensors").name == choose("face.pth").name == "pytorch"
    assert choose("face.onnx", "pytorch").name == "pytorch"


def test_what_nobody_reads() -> None:
    with pytest.raises(ModelError, match=r"face\.jpg: is of no known kind; these can be opened: \.onnx"):
        choose("face.jpg")
    with pytest.raises(ModelError, match=r"face\.pth: onnxruntime reads \.onnx; leave the runtime out"):
        choose("face.pth", "onnxruntime")
    with pytest.raises(ModelError, match=r"gopher://here/face"):
        choose("gopher://here/face")


def test_addresses() -> None:
    assert is_address("triton://localhost:8001/face")
    assert not is_address("C:/face.onnx")
    assert not is_address(Path("triton://localhost/face"))


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for row in FORMATS:
        if row.extra:
            monkeypatch.delitem(sys.modules, f"scrfdkit.runtime.{row.module}", raising=False)
    (row,) = (row for row in FORMATS if row.name == "pytorch")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'scrfdkit\[torch\]'"):
        row.load().open_model(embedded(".safetensors"))


def test_opening_by_the_table() -> None:
    path = embedded(".onnx")
    assert open_runtime(path, threads=1).metadata["name"] == "scrfd_500m_kps"
    assert version(path).startswith("onnxruntime 1.")
    for runtime in ("onnxruntime", "pytorch"):
        found = bindings(path, runtime)
        assert [b.kind for b in found] == ["input"] + ["output"] * 9
        assert {b.dtype for b in found} == {"float32"}
        assert found[0].shape[1] == 3
