"""Rewritten forms of the embedded network, as other exporters and hand-made graphs have them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scrfdkit import Detector, weights
from scrfdkit.errors import DeviceError, ModelError
from scrfdkit.runtime.ort import _providers, ort

onnx = pytest.importorskip("onnx")


def rewritten(path: Path, shape: tuple[int | str, ...], metadata: dict[str, str] | None = None, **changes: Any) -> Path:
    """The embedded network with another input shape, output order or names."""
    model = onnx.load(weights.embedded())
    for dimension, value in zip(model.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dimension.Clear()
        if isinstance(value, int):
            dimension.dim_value = value
        else:
            dimension.dim_param = value
    if changes.get("shuffle"):
        outputs = list(model.graph.output)
        del model.graph.output[:]
        model.graph.output.extend(outputs[i] for i in np.random.default_rng(3).permutation(len(outputs)))
    if name := changes.get("input"):
        for node in model.graph.node:
            for i, old in enumerate(node.input):
                if old == model.graph.input[0].name:
                    node.input[i] = name
        model.graph.input[0].name = name
    onnx.helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def as_maps(path: Path, sigmoid: bool) -> Path:
    """The graph cut at its last convolutions: raw NCHW maps, with or without sigmoid."""
    model = onnx.load(weights.embedded())
    producers = {output: node for node in model.graph.node for output in node.output}
    ends = []
    for output in model.graph.output:
        node = producers[output.name]
        while node.op_type != "Conv" and not (node.op_type == "Mul" and producers[node.input[0]].op_type == "Conv"):
            node = producers[node.input[0]]
        end = node.output[0]
        if sigmoid and output.name.startswith("score"):
            model.graph.node.append(onnx.helper.make_node("Sigmoid", [end], [f"{end}_p"]))
            end = f"{end}_p"
        ends.append(onnx.helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, None))
    del model.graph.output[:]
    model.graph.output.extend(ends)
    onnx.save(model, path)
    return path


def faces(path: Path, examples: Path, **options: Any) -> Any:
    return Detector.open(path, device="cpu", threads=1, **options).detect(examples / "solvay_1927.jpg")


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        ((1, 3, 640, 640), {}),
        ((4, 3, 640, 640), {}),
        (("b", 3, 640, 640), {}),
        (("b", 3, "h", 640), {}),
        (("b", 3, "h", "w"), {"shuffle": True}),
        (("b", 3, "h", "w"), {"input": "images"}),
        (("b", 3, "h", "w"), {"metadata": {"spec": "v1", "name": "x"}}),
    ],
)
def test_forms_of_the_graph(shape: tuple[Any, ...], changes: dict[str, Any], tmp_path: Path, examples: Path) -> None:
    expected = Detector.open(device="cpu", threads=1).detect(examples / "solvay_1927.jpg", input_size=(640, 640))
    options = {} if 640 in shape else {"input_size": (640, 640)}
    found = faces(rewritten(tmp_path / "a.onnx", shape, **changes), examples, **options)
    assert len(found) == len(expected) == 29
    assert np.abs(found.boxes - expected.boxes).max() < 1e-2
    assert np.abs(found.keypoints - expected.keypoints).max() < 1e-2


@pytest.mark.parametrize("sigmoid", [True, False])
def test_raw_maps(sigmoid: bool, tmp_path: Path, examples: Path) -> None:
    detector = Detector.open(as_maps(tmp_path / "maps.onnx", sigmoid), device="cpu", threads=1)
    assert detector.layout.maps
    assert detector.layout.logits is not sigmoid
    expected = Detector.open(device="cpu", threads=1).detect(examples / "solvay_1927.jpg")
    found = detector.detect(examples / "solvay_1927.jpg")
    assert np.abs(found.boxes - expected.boxes).max() < 1e-2
    assert np.abs(found.scores - expected.scores).max() < 1e-5


@pytest.mark.parametrize("shape", [("b", "h", "w", 3), (1, 640, 640, 3), ("b", 1, "h", "w")])
def test_other_inputs_are_refused(shape: tuple[Any, ...], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"a\.onnx"):
        Detector.open(rewritten(tmp_path / "a.onnx", shape))


def test_size_that_the_network_cannot_take(tmp_path: Path) -> None:
    detector = Detector.open(rewritten(tmp_path / "a.onnx", (1, 3, 640, 640)))
    with pytest.raises(ModelError, match="cannot run it on a blob"):
        detector.runtime.run(np.zeros((1, 3, 320, 320), np.float32))


@pytest.mark.parametrize("five", [0, 5])
def test_five_levels_with_one_anchor(five: int, tmp_path: Path) -> None:
    """10 and 15 outputs, as the CrowdHuman configuration has them, exported from the network itself."""
    torch = pytest.importorskip("torch")
    from dataclasses import replace

    from networks import CROWDHUMAN, random_net

    spec = replace(CROWDHUMAN, head=replace(CROWDHUMAN.head, num_keypoints=five))
    net = random_net(spec)
    blob = np.random.default_rng(0).standard_normal((1, 3, 256, 384)).astype(np.float32)
    path = tmp_path / "five.onnx"
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net,
            torch.from_numpy(blob),
            path,
            dynamo=False,
            dynamic_axes={"x": {0: "b", 2: "h", 3: "w"}},
            input_names=["x"],
        )
    detector = Detector.open(path, device="cpu")
    assert len(detector.layout.scores) == 5
    assert detector.layout.num_anchors == 1
    assert detector.num_keypoints == five
    picture = np.random.default_rng(1).integers(0, 256, (500, 700, 3), np.uint8)
    assert len(detector.detect(picture, score_threshold=0.0, nms_threshold=1.0)) > 0


@pytest.mark.parametrize("shape", [("b", 3, 20000, 20000), (5000, 3, 640, 640), (10**6, 3, "h", "w")])
def test_inputs_that_no_memory_can_hold_are_refused(shape: tuple[Any, ...], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"a\.onnx: its input .* is of a size that cannot be run"):
        Detector.open(rewritten(tmp_path / "a.onnx", shape))


TENSORRT, CUDA, CPU = (f"{name}ExecutionProvider" for name in ("Tensorrt", "CUDA", "CPU"))


@pytest.mark.parametrize(
    ("device", "there", "wanted"),
    [
        ("cpu", (TENSORRT, CUDA, CPU), [CPU]),
        ("auto", (TENSORRT, CUDA, CPU), [CUDA, CPU]),
        ("cuda", (TENSORRT, CUDA, CPU), [CUDA, CPU]),
        ("tensorrt", (TENSORRT, CUDA, CPU), [TENSORRT, CUDA, CPU]),
        ("tensorrt", (CUDA, CPU), [CUDA, CPU]),
        ("tensorrt", (CPU,), [CPU]),
    ],
)
def test_what_is_asked_of_onnxruntime(
    device: str, there: tuple[str, ...], wanted: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(ort, "get_available_providers", lambda: list(there))
    chosen = _providers(device)
    assert [name if isinstance(name, str) else name[0] for name in chosen] == wanted
    if CUDA in wanted:
        assert (CUDA, {"use_tf32": "0"}) in chosen
    cache = tmp_path / "scrfdkit" / "tensorrt"
    assert cache.is_dir() == (TENSORRT in wanted)
    if TENSORRT in wanted:
        assert chosen[0][1] == {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(cache),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(cache),
        }


def test_engines_are_not_kept_where_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr(ort, "get_available_providers", lambda: [TENSORRT, CPU])
    assert _providers("tensorrt")[0] == (TENSORRT, {})


@pytest.mark.skipif(TENSORRT in ort.get_available_providers(), reason="this onnxruntime has TensorRT")
@pytest.mark.parametrize("runtime", ["onnxruntime", "opencv"])
def test_without_tensorrt_it_falls_back_or_fails(runtime: str, tmp_path: Path) -> None:
    path = exported(tmp_path / "a.onnx")
    with pytest.warns(RuntimeWarning, match=r"device: tensorrt was asked for, but \w+ runs on cpu here"):
        assert Detector.open(path, device="tensorrt", runtime=runtime).device == "cpu"
    with pytest.raises(DeviceError, match="tensorrt was asked for"):
        Detector.open(path, device="tensorrt", runtime=runtime, strict_device=True)


def exported(path: Path) -> Path:
    from export_files import SPECS, source

    from scrfdkit.export.contract import Contract
    from scrfdkit.export.onnx import build

    one = source(SPECS["basic, bn"])
    path.write_bytes(build(one.net, one.info, Contract()).SerializeToString())
    return path


def test_telemetry_is_off_before_the_import(tmp_path: Path) -> None:
    """onnxruntime would leave files in the user's cache, and send them."""
    code = "from scrfdkit import Detector; Detector.open(device='cpu')"
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=tmp_path)
    assert list(tmp_path.rglob("*")) == []
