"""ONNX files in float16 and int8: what is converted, what is not, and what a bad calibration leads to."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

pytest.importorskip("torch")

import torch
from export_files import SPECS, export, noise, source
from onnx import numpy_helper
from typer.testing import CliRunner

from scrfdkit import weights
from scrfdkit.cli import app
from scrfdkit.detector import Detector
from scrfdkit.errors import ModelError, OptionError, WeightError
from scrfdkit.export import run as road
from scrfdkit.export.contract import Contract
from scrfdkit.export.measure import Trial
from scrfdkit.export.onnx import build, compare, write
from scrfdkit.export.onnx_int8 import Steps, quantise
from scrfdkit.export.onnx_precision import halve
from scrfdkit.export.order import Order
from scrfdkit.export.parity import blob_of, compare_heads
from scrfdkit.export.reference import Reference
from scrfdkit.export.source import Source, open_source
from scrfdkit.export.targets import TARGETS
from scrfdkit.model.onnx_import import import_onnx
from scrfdkit.runtime.ort import OrtRuntime
from scrfdkit.spec import Input, ModelSpec
from scrfdkit.types import Floats

SMALL = Contract(size=(128, 128))


def photos(number: int = 3, seed: int = 0) -> list[Floats]:
    """Blobs that a range can be taken from."""
    pictures = noise(number, 128, 128, seed)
    smooth = [cv2.GaussianBlur(p, (0, 0), 3) for p in pictures]
    return [blob_of(p[None], Input()) for p in (*pictures, *smooth)]


def run(model: Any, blob: Floats, *, plain: bool = False) -> list[np.ndarray[Any, Any]]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if plain:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    loaded = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(loaded.run(None, {loaded.get_inputs()[0].name: blob}))


def optimised(model: Any, path: Path) -> Counter[str]:
    """Operations that onnxruntime makes of a graph on this machine."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path)
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def kinds(model: Any) -> dict[str, Any]:
    return {tensor.name: numpy_helper.to_array(tensor).dtype for tensor in model.graph.initializer}


@pytest.fixture(scope="module")
def embedded() -> Source:
    return open_source(weights.embedded(".safetensors"))


# float16


@pytest.mark.parametrize("layout", ["reference", "maps", "end2end"])
def test_only_the_network_is_halved(layout: Any) -> None:
    for kind, spec in SPECS.items():
        one = source(spec)
        before = build(one.net, one.info, Contract(layout))
        after = halve(before)
        onnx.checker.check_model(after, full_check=True)
        types = kinds(after)
        convs = [node for node in after.graph.node if node.op_type == "Conv"]
        assert {types[name] for conv in convs for name in conv.input[1:]} == {np.dtype(np.float16)}, kind
        for name in ("input", "output"):
            assert list(getattr(after.graph, name)) == list(getattr(before.graph, name))
        assert after.metadata_props == before.metadata_props
        outer = {"Sigmoid", "NonMaxSuppression", "TopK", "Sub"}
        for node in after.graph.node:
            if node.op_type in outer:
                assert not any(types.get(name) == np.float16 or name.endswith(".half") for name in node.input)


@pytest.mark.parametrize("kind", SPECS)
def test_half_precision_differs_by_what_it_rounds_away(kind: str) -> None:
    one = source(SPECS[kind])
    model = halve(build(one.net, one.info, SMALL))
    runtime = OrtRuntime.open(model.SerializeToString(), threads=1)
    for case in compare_heads(Reference(one.net), runtime, SMALL, one.info.spec.input):
        assert 1e-5 < case.largest < 0.05


@pytest.mark.parametrize("opset", [11, 13, 21, 26])
def test_half_precision_in_every_opset(opset: int, tmp_path: Path) -> None:
    one = source(SPECS["bottleneck, gn"])
    contract = Contract("maps", size=(64, 64))
    write(one, tmp_path / "net.onnx", Order(contract, "fp16", opset=opset))
    found = compare_heads(Reference(one.net), OrtRuntime.open(tmp_path / "net.onnx"), contract, one.info.spec.input)
    assert 0 < found[0].largest < 0.05


def test_half_precision_end_to_end(tmp_path: Path) -> None:
    one = source(SPECS["basic, bn"])
    order = Order(Contract("end2end", size=(128, 96), batch=2), "fp16")
    write(one, tmp_path / "faces.onnx", order)
    parity = compare(one, tmp_path / "faces.onnx", order)
    assert parity.passed
    assert parity.tolerance == 0.1
    (case,) = parity.cases
    assert case.faces <= 1e-3 < case.boxes, "its decoding is that of its own maps, exactly"


def test_a_weight_beyond_half_precision() -> None:
    one = source(SPECS["basic, bn"])
    with torch.no_grad():
        next(p for name, p in one.net.named_parameters() if name.endswith("weight"))[0, 0, 0, 0] = 1e5
    with pytest.raises(ModelError, match=r"weight of 1e\+05, and float16 ends at 65504"):
        halve(build(one.net, one.info, SMALL))


def test_weights_come_back_from_half_precision(embedded: Source, tmp_path: Path) -> None:
    write(embedded, tmp_path / "half.onnx", Order(precision="fp16"))
    again, name, _ = import_onnx(tmp_path / "half.onnx")
    assert name == "scrfd_500m_kps"
    state = again.state_dict()
    for key, value in embedded.net.state_dict().items():
        wanted = value if key.endswith("scale") else value.half().float()  # scales lie behind the last convolutions
        assert torch.equal(state[key], wanted), key


def test_half_precision_is_exported_with_a_certificate(embedded: Source, tmp_path: Path) -> None:
    done = export(embedded, tmp_path / "half.onnx", Contract(size=(320, 320)), precision="fp16")
    measured = done.certificate.measured
    assert done.certificate.precision == "fp16"
    assert 1e-3 < done.largest < 0.1
    assert (measured["faces"]["faces"], measured["faces"]["missing"]) == (1, 0)
    assert done.path.stat().st_size < 0.6 * weights.embedded().stat().st_size


# int8


def test_steps_hold_zero_and_both_ends() -> None:
    for least, largest in ((0.0, 6.0), (-1.0, 3.0), (-0.996, 0.996), (2.0, 5.0), (-5.0, -2.0)):
        steps = Steps.over(least, largest)
        ends = [steps.scale * (i - steps.zero) for i in (0, 255)]
        assert 0 <= steps.zero <= 255
        assert abs(ends[0] - min(least, 0)) <= 0.51 * steps.scale
        assert abs(ends[1] - max(largest, 0)) <= 0.51 * steps.scale
    assert Steps.over(0.0, 0.0) == Steps(1.0, 0)


@pytest.mark.parametrize("kind", SPECS)
def test_all_but_the_last_convolutions_count_in_integers(kind: str, tmp_path: Path) -> None:
    one = source(SPECS[kind])
    head = one.info.spec.head
    model = build(one.net, one.info, Contract("maps"))
    found = optimised(quantise(model, photos()), tmp_path / "optimised.onnx")
    convs = sum(node.op_type == "Conv" for node in model.graph.node)
    # What group norms lie around is float, and so is quantised anew where an integer convolution follows.
    last = len(head.strides) * (3 if head.num_keypoints else 2)
    assert found["QLinearConv"] == convs - last
    assert found["Conv"] + found["FusedConv"] == last
    assert found["Add"] == found["InstanceNormalization"], "the sums of maps are integers too"
    assert found["QuantizeLinear"] == 1 + (len(head.strides) if head.norm == "gn" and head.depthwise else 0)
    assert found["Relu"] <= found["InstanceNormalization"]


@pytest.mark.parametrize("kind", SPECS)
def test_int8_is_near(kind: str) -> None:
    """Within a few hundredths of what each output spans; on another size, and in a batch as alone."""
    one = source(SPECS[kind])
    model = build(one.net, one.info, Contract("maps"))
    small = quantise(model, photos())
    onnx.checker.check_model(small, full_check=True)
    assert small.metadata_props == model.metadata_props
    blob = blob_of(noise(2, 192, 128, 7), Input())
    for exact, found in zip(run(model, blob), run(small, blob), strict=True):
        assert 0 < np.abs(exact - found).mean() < 0.03 * np.ptp(exact)
    for whole, alone in zip(run(small, blob), run(small, blob[1:]), strict=True):
        assert np.abs(whole[1:] - alone).max() <= 1e-5 * max(1, np.abs(alone).max())


@pytest.mark.parametrize("opset", [13, 17, 21, 26])
def test_int8_in_every_opset(opset: int, tmp_path: Path) -> None:
    one = source(SPECS["basic, bn"])
    model = build(one.net, one.info, SMALL, opset)
    small = quantise(model, photos(2))
    onnx.checker.check_model(small, full_check=True)
    assert optimised(small, tmp_path / "optimised.onnx")["QLinearConv"] > 10


def test_the_same_pictures_give_the_same_bytes() -> None:
    one = source(SPECS["separable, gn"])
    first, again, other = (
        quantise(build(one.net, one.info, SMALL), photos(seed=seed)).SerializeToString() for seed in (0, 0, 1)
    )
    assert first == again != other


def test_a_channel_without_weights_keeps_its_bias() -> None:
    """Its bias would be far too large to count in steps of its weights."""
    one = source(SPECS["basic, bn"])
    conv = next(m for m in one.net.neck.modules() if isinstance(m, torch.nn.Conv2d))
    assert conv.bias is not None
    with torch.no_grad():
        conv.weight[0] *= 1e-12
        conv.bias[0] = 3.0
    model = build(one.net, one.info, Contract("maps"))
    blob = photos(1)[0]
    for plain in (False, True):
        for exact, found in zip(run(model, blob), run(quantise(model, photos()), blob, plain=plain), strict=True):
            assert np.abs(exact - found).mean() < 0.03 * np.ptp(exact)


def test_what_int8_cannot_do(tmp_path: Path, examples: Path) -> None:
    one = source(SPECS["basic, bn"])
    pictures = tuple(examples.glob("*.jpg"))
    with pytest.raises(OptionError, match=r"^precision: end2end files are fp32 or fp16"):
        export(one, tmp_path / "a.onnx", Contract("end2end"), precision="int8", calibration=pictures)
    with pytest.raises(OptionError, match=r"^opset: 12 .* 13"):
        export(one, tmp_path / "a.onnx", SMALL, 12, precision="int8", calibration=pictures)
    with pytest.raises(OptionError, match=r"^calibrate: "):
        export(one, tmp_path / "a.onnx", SMALL, precision="int8")
    assert not list(tmp_path.iterdir())


def test_numbers_that_have_no_range() -> None:
    one = source(SPECS["basic, bn"])
    with pytest.raises(ModelError, match="not finite on the calibration pictures"):
        quantise(build(one.net, one.info, SMALL), [np.full((1, 3, 128, 128), np.nan, np.float32)])


def test_int8_of_real_weights_finds_the_same_faces(embedded: Source, tmp_path: Path, examples: Path) -> None:
    """Without labels a file is judged by them."""
    pictures = tuple(sorted(examples.glob("*.jpg")))
    order = Order(Contract(), "int8", pictures)
    made = road.export(embedded, tmp_path / "small.onnx", TARGETS["onnx"], order, Trial(pictures, repeat=1))
    faces = made.measured["faces"]
    assert (faces["faces"], faces["missing"]) == (30, 0)
    assert made.measured["batch_difference"] <= 1e-5
    assert made.passed
    detector = Detector.open(tmp_path / "small.onnx", device="cpu")
    assert detector.input == embedded.info.spec.input
    assert ModelSpec.from_json(detector.runtime.metadata["spec"]) == embedded.info.spec
    assert len(detector.detect(examples / "astronaut.jpg")) == 1
    with pytest.raises(WeightError, match=r"small\.onnx: "):
        import_onnx(tmp_path / "small.onnx")


def test_the_gate_stops_a_bad_calibration(toy_set: Path, tmp_path: Path) -> None:
    """Ranges of black pictures fit nothing else."""
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"black_{number}.png"), np.zeros((320, 320, 3), np.uint8))
    words = ["export", "scrfd_500m_kps", "-o", str(tmp_path / "out" / "bad.onnx"), "--precision", "int8"]
    words += ["--calibrate", str(tmp_path), "--data", str(toy_set), "--size", "320x320"]
    with pytest.raises(
        ModelError, match=r"its AP \(ap\) is [\d.]+ and PyTorch's \d+\.\d\d: \d+\.\d\d less, and"
    ) as told:
        CliRunner().invoke(app, words, catch_exceptions=False)
    assert "--max-ap-drop allows 1; nothing was written" in str(told.value)
    assert not list((tmp_path / "out").iterdir())
    words[words.index(str(tmp_path))] = str(toy_set / "images")
    done = CliRunner().invoke(app, [*words, "--max-ap-drop", "5"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "bad.onnx").exists()
