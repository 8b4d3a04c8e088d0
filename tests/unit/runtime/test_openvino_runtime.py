"""The OpenVINO runtime: what it gives beside onnxruntime, its threads, and what it does with bad files."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("openvino")
pytest.importorskip("torch")

from export_files import SPECS, source

from scrfdkit import Detector, weights
from scrfdkit.atomic import sha256
from scrfdkit.certificate import Certificate, beside
from scrfdkit.errors import ModelError
from scrfdkit.export.contract import Contract
from scrfdkit.export.openvino import TARGET
from scrfdkit.export.order import Order
from scrfdkit.runtime.formats import bindings, open_runtime
from scrfdkit.runtime.openvino import OpenVinoRuntime
from scrfdkit.runtime.ort import OrtRuntime
from scrfdkit.spec import ModelSpec

SPEC = SPECS["bottleneck, gn"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network, any size and batch; without a certificate, so that the reader itself is tried."""
    path = tmp_path_factory.mktemp("openvino") / "small.xml"
    TARGET.write(source(SPEC), path, Order())
    return path


def blob(batch: int = 1, height: int = 96, width: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, 3, height, width)).astype(np.float32)


def copied(model: Path, folder: Path) -> Path:
    for suffix in (".xml", ".bin"):
        (folder / f"copy{suffix}").write_bytes(model.with_suffix(suffix).read_bytes())
    return folder / "copy.xml"


def test_it_says_what_it_is(model: Path) -> None:
    runtime = OpenVinoRuntime.open(model, threads=1)
    assert (runtime.device, runtime.input_size, runtime.batch_size) == ("cpu", None, None)
    assert ModelSpec.from_json(runtime.metadata["spec"]) == SPEC
    assert (runtime.metadata["licence"], runtime.metadata["layout"]) == ("mine", "reference")
    found = bindings(model)
    assert [b.kind for b in found] == ["input"] + ["output"] * 9
    assert (found[0].name, found[0].dtype, found[0].shape) == ("input.1", "float32", ("?", 3, "?", "?"))
    assert {b.name for b in found[1:]} == {f"{kind}_{s}" for kind in ("score", "bbox", "kps") for s in (8, 16, 32)}


def test_threads_are_as_many_as_asked_for_and_arithmetic_is_exact(model: Path) -> None:
    network = OpenVinoRuntime.open(model, threads=1)._network
    assert network.get_property("INFERENCE_NUM_THREADS") == 1
    assert network.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
def test_an_onnx_file_gives_what_onnxruntime_gives(device: str, examples: Path) -> None:
    path = weights.embedded()
    runtime = open_runtime(path, "openvino", device, 1)
    assert runtime.device == "cpu"
    given = blob(2, 320, 256)
    for ours, theirs in zip(runtime.run(given), OrtRuntime.open(path, threads=1).run(given), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_faces(examples: Path) -> None:
    picture = examples / "solvay_1927.jpg"
    expected = Detector.open(device="cpu", threads=1).detect(picture)
    found = Detector.open(weights.embedded(), runtime="openvino", threads=1).detect(picture)
    assert len(found) == len(expected) == 29
    assert np.abs(found.boxes - expected.boxes).max() < 1e-2
    assert np.abs(found.keypoints - expected.keypoints).max() < 1e-2


def test_eight_threads_share_it(model: Path) -> None:
    runtime = OpenVinoRuntime.open(model, threads=1)
    blobs = [blob(1 + i % 2, 64 + 32 * (i % 3), seed=i) for i in range(8)]
    wanted = [runtime.run(b) for b in blobs]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for found, right in zip(pool.map(runtime.run, blobs), wanted, strict=True):
                assert all(np.array_equal(a, b) for a, b in zip(found, right, strict=True))


def test_outputs_are_not_overwritten_by_the_next_run_and_inputs_stay(model: Path) -> None:
    runtime = OpenVinoRuntime.open(model, threads=1)
    first, second = blob(seed=1), blob(seed=2)
    frozen = first.copy()
    frozen.flags.writeable = False
    outputs = runtime.run(frozen)
    kept = [o.copy() for o in outputs]
    runtime.run(second)
    assert all(np.array_equal(a, b) for a, b in zip(outputs, kept, strict=True))
    strided = np.ascontiguousarray(first.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert all(np.array_equal(a, b) for a, b in zip(runtime.run(strided), kept, strict=True))
    assert np.array_equal(frozen, first)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 64, 64), r"\(3, 64, 64\)"),
        ((1, 4, 64, 64), r"\(1, 4, 64, 64\)"),
        ((1, 3, 64, 72), "72x64.*multiples of 32"),
    ],
)
def test_blobs_that_do_not_fit(shape: tuple[int, ...], message: str, model: Path) -> None:
    runtime = OpenVinoRuntime.open(model, threads=1)
    with pytest.raises(ModelError, match=message):
        runtime.run(np.zeros(shape, np.float32))
    assert len(runtime.run(blob())) == 9  # and it goes on working


def test_a_fixed_file_takes_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    TARGET.write(source(SPEC), path, Order(Contract(size=(96, 64), batch=2)))
    runtime = OpenVinoRuntime.open(path, threads=1)
    assert (runtime.input_size, runtime.batch_size) == ((96, 64), 2)
    assert runtime.run(np.zeros((2, 3, 64, 96), np.float32))[0].shape[0] == 2
    for shape in ((1, 3, 64, 96), (2, 3, 96, 64)):
        with pytest.raises(ModelError, match="cannot run it on a blob"):
            runtime.run(np.zeros(shape, np.float32))


_SHAPE = re.compile(r'<data element_type="f32" shape="[^"]*" offset="(\d+)" size="(\d+)" />')
_INPUT = '<data shape="?,3,?,?" element_type="f32" />'


def _weights_at(offset: int | str, size: int | str, shape: str | None = None) -> Callable[[str], str]:
    def change(text: str) -> str:
        found = _SHAPE.search(text)
        assert found is not None
        old = found[0]
        new = old.replace(f'offset="{found[1]}" size="{found[2]}"', f'offset="{offset}" size="{size}"')
        return text.replace(old, new if shape is None else re.sub('shape="[^"]*"', f'shape="{shape}"', new), 1)

    return change


def _taking(shape: str) -> Callable[[str], str]:
    def change(text: str) -> str:
        assert _INPUT in text
        return text.replace(_INPUT, f'<data shape="{shape}" element_type="f32" />')

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text[: len(text) // 2], "is damaged, or no OpenVINO file"),
        (lambda text: "", "is damaged, or no OpenVINO file"),
        (lambda text: "\0\1\2 not even text", "is damaged, or no OpenVINO file"),
        (lambda text: "<html></html>", "its XML is of <html>"),
        (lambda text: text.replace('type="Convolution"', 'type="Foo"', 1), "Foo"),
        (lambda text: text.replace('from-layer="1"', 'from-layer="99999"', 1), "OpenVINO cannot"),
        (_weights_at(10**13, 432), "Incorrect weights in bin file"),
        (_weights_at(2**64 - 8, 432), "OpenVINO cannot read it"),
        (_weights_at("../../etc/passwd", 432), "OpenVINO cannot read it"),
        (_weights_at(0, 4), "OpenVINO cannot read it"),
        (_weights_at(0, 432, "4294967296,4294967296,1,1"), "a tensor that is too large"),
        (_taking("1,3,1000000,1000000"), "a tensor that is too large"),
        (_taking("1,3,20000,20000"), r"\(1, 3, 20000, 20000\) is of a size"),
        (_taking("1000000,3,?,?"), "is of a size"),
        (_taking("1,3,0,64"), "OpenVINO cannot"),
        (_taking("?,?,?"), "OpenVINO cannot"),
    ],
)
def test_damaged_and_hostile_files(change: Callable[[str], str], message: str, model: Path, tmp_path: Path) -> None:
    path = copied(model, tmp_path)
    path.write_text(change(path.read_text()))
    with pytest.raises(ModelError, match=message) as found:
        open_runtime(path)
    assert "copy.xml" in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("keep", [0, 1000, -1])
def test_truncated_weights(keep: int, model: Path, tmp_path: Path) -> None:
    path = copied(model, tmp_path)
    path.with_suffix(".bin").write_bytes(path.with_suffix(".bin").read_bytes()[:keep])
    with pytest.raises(ModelError, match=r"copy\.xml: OpenVINO cannot read it: Incorrect weights"):
        open_runtime(path)


def test_missing_files(model: Path, tmp_path: Path) -> None:
    path = copied(model, tmp_path)
    path.with_suffix(".bin").unlink()
    with pytest.raises(ModelError, match=r"copy\.bin: is missing; the weights of copy\.xml"):
        open_runtime(path)
    with pytest.raises(ModelError, match="there is no such file"):
        open_runtime(tmp_path / "none.xml")


def test_another_network(tmp_path: Path) -> None:
    from scrfdkit.runtime.openvino import ov

    ops = ov.opset13
    given = ops.parameter([1, 1, 8, 8], np.float32)
    ov.save_model(ov.Model([ops.relu(ops.add(given, np.ones(1, np.float32)))], [given]), str(tmp_path / "relu.xml"))
    with pytest.raises(ModelError, match=r"relu\.xml: one float input \(batch, 3, height, width\) is needed"):
        Detector.open(tmp_path / "relu.xml")
    given = ops.parameter([-1, 3, -1, -1], np.float32)
    ov.save_model(ov.Model([ops.add(given, np.ones(1, np.float32))], [given]), str(tmp_path / "add.xml"))
    with pytest.raises(ModelError, match=r"add\.xml: these outputs are not an SCRFD head"):
        Detector.open(tmp_path / "add.xml")


def test_weights_of_another_file_do_not_pass_the_certificate(model: Path, tmp_path: Path) -> None:
    path = copied(model, tmp_path)
    files = {name: sha256(tmp_path / name) for name in ("copy.xml", "copy.bin")}
    beside(path).write_text(Certificate("openvino", "fp32", {}, files, 1, {}, "", "").to_json())
    assert open_runtime(path).device == "cpu"
    data = bytearray(path.with_suffix(".bin").read_bytes())
    data[100] ^= 1
    path.with_suffix(".bin").write_bytes(data)
    with pytest.raises(ModelError, match=r"copy\.bin: its sha256 is not"):
        open_runtime(path)


def test_an_open_file_may_be_written_anew(model: Path, tmp_path: Path) -> None:
    path = copied(model, tmp_path)
    runtime = OpenVinoRuntime.open(path, threads=1)
    wanted = runtime.run(blob())
    path.with_suffix(".bin").write_bytes(b"")
    assert all(np.array_equal(a, b) for a, b in zip(runtime.run(blob()), wanted, strict=True))


def test_nothing_is_told_to_its_makers(tmp_path: Path) -> None:
    """openvino would make files of its own in the user's home and send an event; so would nncf."""
    code = (
        "from scrfdkit import weights; from scrfdkit.runtime.openvino import OpenVinoRuntime;"
        "OpenVinoRuntime.open(weights.embedded()); import sys;"
        "assert sys.modules['openvino_telemetry'] is None; import openvino.tools.ovc.telemetry_utils as used;"
        "assert used.tm.__name__.endswith('stub')"
    )
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, cwd=tmp_path)
    assert list(tmp_path.rglob("*")) == []
