"""ONNX files that lie, reach outside or are damaged: every reader refuses them, saying why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from scrfdkit.detector import Detector
from scrfdkit.errors import ModelError, WeightError
from scrfdkit.model.onnx_import import import_onnx
from scrfdkit.weights import embedded

Change = Callable[[Any], None]
RUNTIMES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "opencv": "cv2"}
"""Those that read ONNX files, and their packages."""


def external(location: str) -> Change:
    """The first weight lies in another file."""

    def change(model: Any) -> None:
        tensor = model.graph.initializer[0]
        length = len(onnx.numpy_helper.to_array(tensor).tobytes())
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
            tensor.external_data.add(key=key, value=value)

    return change


def opset(version: int) -> Change:
    return lambda model: setattr(model.opset_import[0], "version", version)


def further_input(model: Any) -> None:
    model.graph.input.append(onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, [1]))


def foreign_operation(model: Any) -> None:
    model.graph.node[5].domain = "other.ops"
    model.opset_import.append(onnx.helper.make_opsetid("other.ops", 1))


def huge_weight(model: Any) -> None:
    model.graph.initializer[0].dims[0] = 1 << 40


def circle(model: Any) -> None:
    model.graph.node[0].input[0] = model.graph.node[-1].output[0]


def no_nodes(model: Any) -> None:
    del model.graph.node[:]


CHANGES: dict[str, Change] = {
    "absolute path": external("{folder}/secret"),
    "parent folder": external("../secret"),
    "link": external("link"),
    "device": external("/dev/zero"),
    "gone": external("gone.bin"),
    "opset of the future": opset(99),
    "opset of the past": opset(1),
    "further input": further_input,
    "foreign operation": foreign_operation,
    "huge weight": huge_weight,
    "circle": circle,
    "nothing": no_nodes,
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_bytes(bytes(1 << 20))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "link").symlink_to(tmp_path / "secret")
    return tmp_path / "models" / "face.onnx"


def refused(place: Path, runtime: str) -> None:
    pytest.importorskip(RUNTIMES[runtime])
    with pytest.raises(ModelError, match=r"face\.onnx: "):
        Detector.open(place, device="cpu", runtime=runtime, threads=1)
    if runtime == "onnxruntime":  # once is enough
        with pytest.raises(WeightError, match=r"face\.onnx: "):
            import_onnx(place)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_file_is_refused_by_every_reader(what: str, runtime: str, place: Path) -> None:
    model = onnx.load(embedded(".onnx"))
    CHANGES[what](model)
    for tensor in model.graph.initializer[:1]:
        for entry in tensor.external_data:
            entry.value = entry.value.replace("{folder}", str(place.parent.parent))
    place.write_bytes(model.SerializeToString())
    refused(place, runtime)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_description_that_is_no_text_is_refused(runtime: str, place: Path) -> None:
    """protobuf itself would not write one."""
    pytest.importorskip(RUNTIMES[runtime])
    model = onnx.load(embedded(".onnx"))
    model.metadata_props[0].value = "§" * 40
    place.write_bytes(model.SerializeToString().replace("§".encode() * 40, b"\xff\xfe" * 40))
    with pytest.raises(ModelError, match=r"face\.onnx: "):
        Detector.open(place, device="cpu", runtime=runtime, threads=1)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(share: float, runtime: str, place: Path) -> None:
    data = embedded(".onnx").read_bytes()
    place.write_bytes(data[: int(len(data) * share)])
    refused(place, runtime)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("content", [b"\x00" * 1000, b"PK\x03\x04" + bytes(100), b"#!/bin/sh\nexit\n", b"\xff" * 5000])
def test_a_foreign_file_is_refused(content: bytes, runtime: str, place: Path) -> None:
    place.write_bytes(content)
    refused(place, runtime)
