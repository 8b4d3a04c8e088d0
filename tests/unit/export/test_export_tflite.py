"""TFLite files of small networks of every kind: what is in them, and that they compute what PyTorch does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from export_files import SPECS, Done, export, noise, source
from torch import nn

pytest.importorskip("litert_torch")

import torch
from ai_edge_litert import schema_py_generated as schema

from scrfdkit import Detector
from scrfdkit.errors import ModelError, OptionError
from scrfdkit.export import tflite, tflite_file, tflite_quantise
from scrfdkit.export.contract import Contract
from scrfdkit.export.order import Order
from scrfdkit.export.parity import blob_of
from scrfdkit.export.reference import Reference
from scrfdkit.layout import head_names, head_widths
from scrfdkit.runtime.formats import bindings, open_runtime

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning")

SIZE = (96, 64)
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Done]:
    folder = tmp_path_factory.mktemp("tflite")
    contract = Contract(size=SIZE, batch=1)
    return {
        name: export(source(spec), folder / f"{i}.tflite", contract, to="tflite")
        for i, (name, spec) in enumerate(SPECS.items())
    }


def run(path: Path, name: str) -> list[Any]:
    return open_runtime(path, threads=1).run(blob_of(noise(1, *SIZE), SPECS[name].input))


def kinds(path: Path) -> Counter[str]:
    return Counter(step.kind for step in tflite_file.steps(path.read_bytes()))


def tensors(path: Path) -> Any:
    return tflite_file.read(path.read_bytes()).subgraphs[0].tensors


@pytest.mark.parametrize("name", SPECS)
def test_every_network(name: str, files: dict[str, Done]) -> None:
    """As PyTorch, without a transposition, and with no 64-bit number, which many runtimes do not take."""
    done, spec = files[name], SPECS[name]
    assert done.largest <= 1e-4
    found = kinds(done.path)
    assert not {"TRANSPOSE", "GATHER", "CAST"} & set(found)
    assert found["LOGISTIC"] == len(spec.head.strides)
    assert schema.TensorType.INT64 not in {tensor.type for tensor in tensors(done.path)}
    assert done.certificate.metadata["spec"] == spec.to_json()


@pytest.mark.parametrize("name", SPECS)
def test_names_and_shapes(name: str, files: dict[str, Done]) -> None:
    """Those of the official files, with the picture's channels last; the signature and the tensors say the same."""
    path, spec = files[name].path, SPECS[name]
    model = tflite_file.read(path.read_bytes())
    (signature,) = model.signatureDefs
    assert signature.signatureKey == b"serving_default"
    assert [one.name.decode() for one in (*signature.inputs, *signature.outputs)] == ["input.1", *head_names(spec)]
    for one in (*signature.inputs, *signature.outputs):
        assert model.subgraphs[0].tensors[one.tensorIndex].name == one.name
    first, *outputs = bindings(path)
    assert (first.name, first.dtype, first.shape) == ("input.1", "float32", (1, SIZE[1], SIZE[0], 3))
    strides = spec.head.strides * (len(outputs) // len(spec.head.strides))
    for one, stride, width in zip(outputs, strides, head_widths(spec), strict=True):
        rows = -(-SIZE[0] // stride) * -(-SIZE[1] // stride) * spec.head.num_anchors
        assert one.shape == (1, rows, width)
    assert [one.name for one in outputs] == head_names(spec)


def test_the_file_describes_itself(files: dict[str, Done], tmp_path: Path) -> None:
    """Without its certificate, too."""
    copy = tmp_path / "alone.tflite"
    copy.write_bytes(files["bottleneck, gn"].path.read_bytes())
    opened = open_runtime(copy, threads=1)
    assert dict(opened.metadata) == dict(files["bottleneck, gn"].certificate.metadata) | {"layout": "reference"}
    assert Detector(opened).input == SPECS["bottleneck, gn"].input


def test_constants_are_aligned_and_inside(files: dict[str, Done]) -> None:
    """On 16 bytes, as the schema asks for; not behind the flatbuffer, where older runtimes do not look."""
    data = files["basic, bn"].path.read_bytes()
    model = schema.Model.GetRootAs(data, 0)
    start = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
    places = []
    for buffer in (model.Buffers(i) for i in range(model.BuffersLength())):
        assert buffer.Offset() == 0
        if buffer.DataLength():
            places.append(buffer.DataAsNumpy().__array_interface__["data"][0] - start)
    assert len(places) > 20
    assert {place % 16 for place in places} == {0}


def test_maps_and_a_batch(tmp_path: Path) -> None:
    one = source(SPECS["basic, bn"])
    done = export(one, tmp_path / "maps.tflite", Contract("maps", size=SIZE, batch=3), to="tflite")
    assert done.largest <= 1e-4
    assert bindings(done.path)[1].shape == (3, 8, 12, 2)
    assert not {"TRANSPOSE", "RESHAPE", "LOGISTIC"} & set(kinds(done.path))
    opened = open_runtime(done.path)
    assert (opened.input_size, opened.batch_size) == (SIZE, 3)
    maps = opened.run(blob_of(noise(3, *SIZE), one.info.spec.input))
    assert maps[0].shape == (3, 2, 8, 12)


def test_group_norm() -> None:
    """Of maps with a large mean and a small deviation, where a careless sum loses all digits."""
    torch.manual_seed(0)
    norm = nn.GroupNorm(4, 24)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    maps = torch.randn(2, 24, 30, 20) * 0.1 + torch.randn(2, 24, 1, 1) * 20
    exact = norm.double()(maps.double())
    assert float((tflite.GroupNorm(norm.float())(maps) - exact).detach().abs().max()) < 1e-4


@pytest.mark.parametrize("name", ["basic, bn", "separable, gn"])
def test_fp16_halves_the_weights(name: str, files: dict[str, Done], tmp_path: Path) -> None:
    path = tmp_path / "half.tflite"
    path.write_bytes(tflite_file.described(tflite_quantise.halved(files[name].path.read_bytes()), {}))
    steps, every = tflite_file.steps(path.read_bytes()), tensors(path)
    float16 = schema.TensorType.FLOAT16
    halves = [step for step in steps if step.kind == "DEQUANTIZE" and every[step.takes[0]].type == float16]
    weights = {step.takes[1] for step in steps if step.kind in CONVOLUTIONS}
    assert weights == {step.gives[0] for step in halves}
    assert bindings(path) == bindings(files[name].path)
    ours, theirs = run(path, name), run(files[name].path, name)
    assert 1e-6 < max(float(np.abs(a - b).max()) for a, b in zip(ours, theirs, strict=True)) < 0.1


@pytest.mark.parametrize("name", ["basic, bn", "bottleneck, gn"])
def test_int8(name: str, files: dict[str, Done], tmp_path: Path) -> None:
    """Floats go in and come out; the last convolutions and group norms are in float, the others have int8 weights."""
    spec = SPECS[name]
    for index in range(4):
        cv2.imwrite(str(tmp_path / f"{index}.png"), noise(1, 90, 70, index)[0])
    order = Order(Contract(size=SIZE, batch=1), "int8", tuple(sorted(tmp_path.glob("*.png"))))
    with tflite.quiet():
        data = tflite_quantise.quantised(files[name].path.read_bytes(), order, spec)
    path = tmp_path / "whole.tflite"
    path.write_bytes(tflite_file.described(data, {}))
    assert bindings(path) == bindings(files[name].path)
    steps, every = tflite_file.steps(path.read_bytes()), tensors(path)
    weights = [every[step.takes[1]] for step in steps if step.kind in CONVOLUTIONS]
    whole = [one for one in weights if one.type == schema.TensorType.INT8]
    assert len(weights) - len(whole) == len(head_names(spec))
    assert all(len(one.quantization.scale) == one.shape[one.quantization.quantizedDimension] for one in whole)
    for ours, theirs in zip(run(path, name), run(files[name].path, name), strict=True):
        assert 0 < float(np.abs(ours - theirs).max()) < 0.2 * max(1.0, float(np.ptp(theirs)))


def test_what_stays_in_float() -> None:
    """A residual block of two convolutions, a group norm, and two outputs."""
    step = tflite_file.Step
    graph = [
        step("PAD", (0, 90), (1,)),
        step("CONV_2D", (1, 91), (2,)),
        step("CONV_2D", (2, 92), (3,)),
        step("ADD", (2, 3), (4,)),
        step("MEAN", (4, 93), (5,)),
        step("SUB", (4, 5), (6,)),
        step("ADD", (6, 94), (7,)),
        step("CONV_2D", (7, 95), (8,)),
        step("RESHAPE", (8, 96), (9,)),
        step("CONV_2D", (7, 97), (10,)),
        step("LOGISTIC", (10,), (11,)),
    ]
    assert tflite_quantise.in_float(graph) == {4, 5, 6, 7, 8, 9, 10}


@pytest.mark.parametrize(
    ("order", "field"),
    [
        (Order(Contract("end2end")), "layout"),
        (Order(Contract(size=SIZE), "int8"), "calibrate"),
    ],
)
def test_what_it_cannot_do(order: Order, field: str) -> None:
    with pytest.raises(OptionError, match=f"^{field}: "):
        tflite.TARGET.settle(order)


def test_usual_size_and_batch() -> None:
    settled = tflite.TARGET.settle(Order()).contract
    assert (settled.size, settled.batch) == ((640, 640), 1)


def test_a_network_that_the_converter_refuses(tmp_path: Path) -> None:
    one = source(SPECS["basic, bn"])
    one.net.backbone.stem[0] = nn.Identity()
    with pytest.raises(ModelError, match=r"a\.tflite: the TFLite converter cannot take the network"):
        tflite.write(one, tmp_path / "a.tflite", Order(Contract(size=SIZE, batch=1)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_quiet_and_nothing_left_behind(tmp_path: Path) -> None:
    """The converter talks, and would show progress; nothing of that reaches users, nor does any cache appear."""
    out, home = tmp_path / "out", tmp_path / "home"
    out.mkdir(), home.mkdir()
    code = (
        "import sys; from pathlib import Path; from export_files import SPECS, export, source, Contract;"
        "export(source(SPECS['basic, bn']), Path('a.tflite').absolute(), Contract(size=(64, 64), batch=1), to='tflite')"
    )
    tests = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home), "PYTHONPATH": str(tests)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=out, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")
    assert sorted(path.name for path in out.iterdir()) == ["a.tflite", "a.tflite.certificate.json"]
    assert list(home.rglob("*")) == []


def test_the_reference_is_what_is_compared_with(files: dict[str, Done]) -> None:
    """The score of every row, by hand: channels last are rows already."""
    one = source(SPECS["five levels"])
    blob = blob_of(noise(1, *SIZE), one.info.spec.input)
    maps = Reference(one.net).run(blob)
    rows = open_runtime(files["five levels"].path).run(blob)
    logits = maps[0].transpose(0, 2, 3, 1).reshape(rows[0].shape)
    assert np.abs(1 / (1 + np.exp(-logits)) - rows[0]).max() < 1e-5
