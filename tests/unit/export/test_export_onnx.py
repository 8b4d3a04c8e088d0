"""ONNX files of small networks of every kind, in every layout, run in onnxruntime."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from export_files import SPECS, export, noise, outputs_of, session, source
from networks import random_net

from scrfdkit.decode import decode, suppress
from scrfdkit.detector import Detector
from scrfdkit.errors import ModelError, OptionError, ScrfdError
from scrfdkit.export.contract import Contract, Suppression
from scrfdkit.export.faces import Faces
from scrfdkit.export.onnx import build
from scrfdkit.export.parity import blob_of, levels
from scrfdkit.export.source import Source, open_source
from scrfdkit.layout import identify
from scrfdkit.model.checkpoint import WeightInfo, save
from scrfdkit.model.net import fuse
from scrfdkit.model.onnx_import import import_onnx
from scrfdkit.runtime.ort import OrtRuntime
from scrfdkit.spec import ModelSpec
from scrfdkit.weights import embedded
from scrfdkit.zoo import ZOO

CLOSE = 1e-3
PLAIN = {"Conv", "Relu", "Add", "Mul", "Resize", "MaxPool", "AveragePool", "Reshape", "InstanceNormalization"}


def tensors(which: Source, blob: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    return [output.numpy() for output in which.net(torch.from_numpy(blob))]


def sigmoid(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("kind", SPECS)
def test_reference_rows_run_by_y_then_x_then_anchor(kind: str, tmp_path: Path) -> None:
    one = source(SPECS[kind])
    done = export(one, tmp_path / "net.onnx")
    assert 0 < done.largest <= CLOSE
    assert [case["batch"] for case in done.certificate.measured["parity"]["cases"]] == [1, 2, 3]
    blob = blob_of(noise(2, 160, 128), one.info.spec.input)
    strides, anchors = one.info.spec.head.strides, one.info.spec.head.num_anchors
    for (name, rows), values in zip(outputs_of(done.path, blob).items(), tensors(one, blob), strict=True):
        width = values.shape[1] // anchors
        level = strides.index(int(name.split("_")[1]))
        down, across = (-(-side // strides[level]) for side in (128, 160))
        assert rows.shape == (2, down * across * anchors, width)
        spread = rows.reshape(2, down, across, anchors, width)
        wanted = np.stack(np.split(values, anchors, axis=1), axis=1).transpose(0, 3, 4, 1, 2)
        wanted = sigmoid(wanted) if name.startswith("score") else wanted
        assert np.abs(spread - wanted).max() <= CLOSE


@pytest.mark.parametrize("with_sigmoid", [False, True])
@pytest.mark.parametrize("kind", SPECS)
def test_maps_are_what_the_network_gives(kind: str, with_sigmoid: bool, tmp_path: Path) -> None:
    one = source(SPECS[kind])
    done = export(one, tmp_path / "net.onnx", Contract("maps", sigmoid=with_sigmoid, size=(128, 256)))
    blob = blob_of(noise(3, 128, 256), one.info.spec.input)
    outputs = outputs_of(done.path, blob)
    for (name, found), wanted in zip(outputs.items(), tensors(one, blob), strict=True):
        if name.startswith("score") and with_sigmoid:
            wanted = sigmoid(wanted)
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() <= CLOSE
    assert identify(list(outputs.values()), (128, 256)).logits is not with_sigmoid


def shapes(path: Path) -> dict[str, list[Any]]:
    loaded = session(path)
    return {value.name: value.shape for value in (*loaded.get_inputs(), *loaded.get_outputs())}


def test_declared_shapes(tmp_path: Path) -> None:
    one = source(SPECS["basic, bn"])
    open_file = shapes(export(one, tmp_path / "open.onnx").path)
    assert list(open_file) == ["input.1", *(f"{k}_{s}" for k in ("score", "bbox", "kps") for s in (8, 16, 32))]
    assert open_file["input.1"] == ["batch", 3, "height", "width"]
    assert open_file["kps_16"] == ["batch", "rows_16", 10]
    fixed = shapes(export(one, tmp_path / "fixed.onnx", Contract(size=(96, 64), batch=2)).path)
    assert fixed["input.1"] == [2, 3, 64, 96]
    assert fixed["bbox_8"] == [2, 8 * 12 * 2, 4]
    maps = shapes(export(one, tmp_path / "maps.onnx", Contract("maps", size=(96, 64))).path)
    assert maps["kps_32"] == ["batch", 20, 2, 3]
    faces = shapes(export(one, tmp_path / "faces.onnx", Contract("end2end", batch=1)).path)
    assert faces["images"] == [1, "height", "width", 3]
    assert (faces["keypoints"], faces["counts"]) == ([1, 300, 5, 2], [1])


def test_only_plain_operations(tmp_path: Path) -> None:
    """What TensorRT, ncnn and others have: no sizes worked out at run time, no group norm."""
    for kind, spec in SPECS.items():
        one = source(spec)
        model = build(one.net, one.info, Contract("maps"))
        assert {node.op_type for node in model.graph.node} <= PLAIN, kind
        assert not [name for node in model.graph.node for name in node.input if " " in name], kind


@pytest.mark.parametrize("opset", [11, 12, 13, 18, 21, 26])
def test_opsets(opset: int, tmp_path: Path) -> None:
    one = source(SPECS["bottleneck, gn"])
    done = export(one, tmp_path / "net.onnx", Contract("maps", size=(64, 64), batch=1), opset)
    assert onnx.load(done.path).opset_import[0].version == opset
    if opset >= 13:
        export(one, tmp_path / "faces.onnx", Contract("end2end", size=(64, 64), batch=1), opset)


def test_an_opset_without_the_operations(tmp_path: Path) -> None:
    one = source(SPECS["basic, bn"])
    for contract, opset in ((Contract(), 10), (Contract(), 99), (Contract("end2end"), 12)):
        with pytest.raises(OptionError, match=r"^opset: "):
            export(one, tmp_path / "net.onnx", contract, opset)
    assert not list(tmp_path.iterdir())


def test_the_file_says_what_it_is(tmp_path: Path) -> None:
    one = source(SPECS["bottleneck, gn"])
    for layout in ("reference", "maps", "end2end"):
        done = export(one, tmp_path / f"{layout}.onnx", Contract(layout, size=(64, 64)))
        assert done.certificate.num_bytes == done.path.stat().st_size
        words = {entry.key: entry.value for entry in onnx.load(done.path).metadata_props}
        assert ModelSpec.from_json(words["spec"]) == one.info.spec
        assert (words["name"], words["licence"], words["source"]) == ("small", "mine", "a test")
        assert (words["layout"], words["metrics"], words["fused"]) == (layout, '{"hard": 1}', "true")
    assert Detector(OrtRuntime.open(tmp_path / "maps.onnx")).input == one.info.spec.input


@pytest.mark.parametrize("layout", ["reference", "maps", "end2end"])
@pytest.mark.parametrize("name", ["scrfd_500m_kps", "scrfd_2.5g"])
def test_weights_come_back_as_they_were(name: str, layout: Any, tmp_path: Path) -> None:
    """No bit is lost or moved, so a file may be exported from an exported one."""
    net = fuse(random_net(ZOO[name].spec))
    model = build(net, WeightInfo(name, ZOO[name].spec, True), Contract(layout))
    onnx.save(model, str(tmp_path / "net.onnx"))
    again, found, _ = import_onnx(tmp_path / "net.onnx")
    assert found == name
    state = again.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())


def expected(one: Source, canvases: np.ndarray[Any, Any], rule: Suppression) -> list[Any]:
    size = (canvases.shape[2], canvases.shape[1])
    outputs = tensors(one, blob_of(canvases, one.info.spec.input))
    found = []
    for i in range(len(canvases)):
        rows = levels([output[i : i + 1] for output in outputs], size, 1, logits=True)
        found.append(suppress(decode(rows, rule.score_threshold), rule.nms_threshold)[: rule.max_faces])
    return found


@pytest.mark.parametrize("size", [None, (160, 128)])
@pytest.mark.parametrize("kind", SPECS)
def test_end_to_end_faces_are_those_of_decode(kind: str, size: Any, tmp_path: Path) -> None:
    one = source(SPECS[kind])
    canvases = noise(3, 160, 128)
    canvases[1] = 255
    rows = np.sort(np.concatenate([v.ravel() for v in tensors(one, blob_of(canvases, one.info.spec.input))[:3]]))
    rule = Suppression(float(sigmoid(rows[-100:-98].mean())), 0.3, 60)
    done = export(one, tmp_path / "net.onnx", Contract("end2end", size=size, suppression=rule))
    outputs = outputs_of(done.path, canvases)
    assert ("keypoints" in outputs) == (one.info.spec.head.num_keypoints > 0)
    faces = Faces(outputs["boxes"], outputs["scores"], outputs.get("keypoints"), outputs["counts"])
    wanted = expected(one, canvases, rule)
    assert min(len(picture) for picture in wanted) > 3
    for i, picture in enumerate(wanted):
        found = faces.of(i)
        assert len(found) == len(picture)
        assert np.abs(found.boxes - picture.boxes).max(initial=0) <= CLOSE
        assert np.abs(found.scores - picture.scores).max(initial=0) <= CLOSE
        assert (np.diff(found.scores) <= 0).all()
        if picture.keypoints is not None:
            assert np.abs(found.keypoints - picture.keypoints).max(initial=0) <= CLOSE
        for values in outputs.values():
            if values.ndim > 1:
                assert not values[i, len(picture) :].any()


def test_end_to_end_keeps_the_best_of_too_many_and_fills_up_too_few(tmp_path: Path) -> None:
    one = source(SPECS["basic, bn"])
    canvases = noise(2, 32, 32)
    for most in (2, 1000):  # the 42 rows of this size are fewer
        rule = Suppression(0.0, 1.0, most)
        done = export(one, tmp_path / f"{most}.onnx", Contract("end2end", suppression=rule))
        outputs = outputs_of(done.path, canvases)
        assert outputs["boxes"].shape == (2, most, 4)
        assert outputs["counts"].tolist() == [min(most, 42)] * 2
        for found, picture in zip(outputs["scores"], expected(one, canvases, rule), strict=True):
            assert np.abs(found[: len(picture)] - picture.scores).max() <= CLOSE


def break_(one: Source, factor: float) -> Source:
    with torch.no_grad():
        one.net.get_parameter("bbox_head.stride_reg.(8, 8).weight").mul_(factor)
    return one


@pytest.mark.parametrize("layout", ["reference", "end2end"])
@pytest.mark.parametrize("factor", [1e6, math.nan])
def test_a_file_that_differs_is_not_written(factor: float, layout: Any, tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"as it was")
    one = break_(source(SPECS["basic, bn"]), factor)
    with pytest.raises(ModelError, match=r"net\.onnx: onnxruntime .* differs from PyTorch .* nothing was written"):
        export(one, tmp_path / "net.onnx", Contract(layout))
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"as it was"]


def test_a_network_with_batch_norms_is_refused(tmp_path: Path) -> None:
    spec = SPECS["basic, bn"]
    with pytest.raises(ModelError, match="BatchNorm2d has no form in ONNX here; a fused network is needed"):
        export(Source(random_net(spec), WeightInfo("small", spec), tmp_path), tmp_path / "net.onnx")


def test_other_names_and_places_are_refused(tmp_path: Path) -> None:
    one = source(SPECS["basic, bn"])
    with pytest.raises(ModelError, match=r"must end in \.onnx"):
        export(one, tmp_path / "net.pb")
    (tmp_path / "file").touch()
    with pytest.raises(ScrfdError, match="cannot be written"):
        export(one, tmp_path / "file" / "net.onnx", Contract("maps", size=(32, 32), batch=1))


def test_a_size_that_no_detector_could_open_is_refused(tmp_path: Path) -> None:
    """Two levels of one cell each cannot be told apart."""
    with pytest.raises(ModelError, match="not an SCRFD head"):
        export(source(SPECS["five levels"]), tmp_path / "net.onnx", Contract(size=(64, 64)))
    assert not list(tmp_path.iterdir())


def test_a_network_of_other_activations_is_no_source(tmp_path: Path) -> None:
    """All its convolutions stand where those of SCRFD do."""
    model = onnx.load(embedded(".onnx"))
    for node in model.graph.node:
        node.op_type = "Elu" if node.op_type == "Relu" else node.op_type
    path = tmp_path / "elu.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=r"elu\.onnx: has the convolutions of an SCRFD network and computes something"):
        open_source(path)


def test_every_kind_of_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRFDKIT_WEIGHTS", str(tmp_path / "none"))
    net, spec = random_net(ZOO["scrfd_500m"].spec), ZOO["scrfd_500m"].spec
    save(tmp_path / "a.safetensors", net, spec, name="scrfd_500m", licence="mine")
    torch.save({"meta": {}, "state_dict": net.state_dict()}, tmp_path / "SCRFD_500M.pth")
    first, second = open_source(tmp_path / "a.safetensors"), open_source(tmp_path / "SCRFD_500M.pth")
    assert (first.info.name, first.info.licence, first.info.fused) == ("scrfd_500m", "mine", True)
    assert second.info.licence.startswith("non-commercial")
    for key, value in first.net.state_dict().items():
        assert torch.equal(value, second.net.state_dict()[key]), key
    named, filed = open_source("scrfd_500m_kps"), open_source(embedded(".onnx"))
    assert named.path == embedded(".safetensors")
    assert (named.info.licence, named.info.source) == (filed.info.licence, filed.info.source)
    assert named.info.metrics == filed.info.metrics


@pytest.mark.parametrize("model", ["nobody", "gone.onnx", "", "folder", "note.txt"])
def test_sources_that_are_none(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("note.txt").touch()
    with pytest.raises(ModelError):
        open_source(model)
