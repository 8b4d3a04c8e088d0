"""The OpenCV runtime: what it gives beside onnxruntime, and what it does with files that it cannot read."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

from export_files import SPECS, source

from scrfdkit import Detector, weights
from scrfdkit.errors import ModelError
from scrfdkit.export.contract import Contract
from scrfdkit.export.onnx import build
from scrfdkit.export.source import open_source
from scrfdkit.runtime.formats import bindings, open_runtime
from scrfdkit.runtime.opencv import OpenCVRuntime
from scrfdkit.runtime.ort import OrtRuntime
from scrfdkit.spec import ModelSpec

FIVE = int(cv2.__version__.split(".")[0]) > 4


def saved(path: Path, spec: ModelSpec, contract: Contract | None = None) -> Path:
    one = source(spec)
    path.write_bytes(build(one.net, one.info, contract or Contract()).SerializeToString())
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("opencv") / "small.onnx", SPECS["bottleneck, gn"])


def blob(batch: int = 1, height: int = 96, width: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, 3, height, width)).astype(np.float32)


def by_shape(outputs: list[np.ndarray]) -> dict[tuple[int, ...], np.ndarray]:
    found = {o.shape: o for o in outputs}
    assert len(found) == len(outputs)
    return found


@pytest.mark.parametrize("layout", ["reference", "maps"])
@pytest.mark.parametrize("name", SPECS)
def test_exported_files_give_what_onnxruntime_gives(name: str, layout: str, tmp_path: Path) -> None:
    """One after the other of several sizes and batches, as a video and pictures have them."""
    path = saved(tmp_path / "a.onnx", SPECS[name], Contract(layout))
    ours, theirs = OpenCVRuntime.open(path, threads=1), OrtRuntime.open(path, threads=1)
    assert (ours.device, ours.input_size, ours.batch_size) == ("cpu", None, None)
    assert ours.metadata == theirs.metadata
    for given in (blob(1, 256, 128), blob(2, 128, 256), blob(3, 192, 128), blob(1, 256, 128, seed=1)):
        found, wanted = by_shape(ours.run(given)), by_shape(theirs.run(given))
        assert found.keys() == wanted.keys()
        for shape, values in wanted.items():
            np.testing.assert_allclose(found[shape], values, atol=1e-3, rtol=1e-4)


def test_faces(tmp_path: Path, examples: Path) -> None:
    one = open_source("scrfd_500m_kps")
    path = tmp_path / "face.onnx"
    path.write_bytes(build(one.net, one.info, Contract()).SerializeToString())
    picture = examples / "solvay_1927.jpg"
    expected = Detector.open(device="cpu", threads=1).detect(picture)
    found = Detector.open(path, runtime="opencv", threads=1).detect(picture)
    assert len(found) == len(expected) == 29
    assert np.abs(found.boxes - expected.boxes).max() < 1e-2
    assert np.abs(found.keypoints - expected.keypoints).max() < 1e-2


def test_bindings_are_those_of_the_file(model: Path) -> None:
    assert bindings(model, "opencv") == bindings(model, "onnxruntime")


def test_a_fixed_file_takes_nothing_else(tmp_path: Path) -> None:
    """OpenCV itself would run it on anything."""
    path = saved(tmp_path / "a.onnx", SPECS["basic, bn"], Contract(size=(96, 64), batch=2))
    runtime = OpenCVRuntime.open(path, threads=1)
    assert (runtime.input_size, runtime.batch_size) == ((96, 64), 2)
    assert {len(o) for o in runtime.run(blob(2, 64, 96))} == {2}
    for given in (blob(1, 64, 96), blob(2, 96, 64), blob(2, 64, 96)[0]):
        with pytest.raises(ModelError, match=r"\(2, 3, 64, 96\) is needed"):
            runtime.run(given)


def test_sizes_that_no_network_takes(model: Path) -> None:
    with pytest.raises(ModelError, match=r"72x64.*multiples of 32"):
        OpenCVRuntime.open(model, threads=1).run(blob(1, 64, 72))


def test_eight_threads_share_it(model: Path) -> None:
    runtime = OpenCVRuntime.open(model, threads=1)
    blobs = [blob(1 + i % 2, 64 + 32 * (i % 3), seed=i) for i in range(8)]
    wanted = [runtime.run(b) for b in blobs]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for found, right in zip(pool.map(runtime.run, blobs), wanted, strict=True):
                assert all(np.array_equal(a, b) for a, b in zip(found, right, strict=True))


def test_number_of_threads_is_put_back(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, seen = OpenCVRuntime.open(model, threads=3), []
    before = cv2.getNumThreads()
    real = cv2.setNumThreads
    monkeypatch.setattr(cv2, "setNumThreads", lambda number: seen.append(number) or real(number))
    runtime.run(blob())
    assert (seen, cv2.getNumThreads()) == ([3, before], before)


@pytest.mark.skipif(not hasattr(cv2.utils, "logging"), reason="this OpenCV has no level to set")
def test_settings_of_the_process_survive_several_networks_at_once(model: Path) -> None:
    """The level and the number of threads are the process's, not a network's."""
    before = cv2.utils.logging.getLogLevel(), cv2.getNumThreads()
    assert before[0] != cv2.utils.logging.LOG_LEVEL_SILENT

    def use(number: int) -> None:
        runtime = OpenCVRuntime.open(model, threads=1 + number % 3)
        for _ in range(5):
            runtime.run(blob(seed=number))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(use, range(12)))
    assert (cv2.utils.logging.getLogLevel(), cv2.getNumThreads()) == before


def test_outputs_are_not_overwritten_by_the_next_run(model: Path) -> None:
    runtime = OpenCVRuntime.open(model, threads=1)
    outputs = runtime.run(blob(seed=1))
    kept = [o.copy() for o in outputs]
    runtime.run(blob(seed=2))
    assert all(np.array_equal(a, b) for a, b in zip(outputs, kept, strict=True))


@pytest.mark.parametrize("content", [b"", b"no network", "half"], ids=["empty", "text", "half"])
def test_damaged_files(content: bytes | str, model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = model.read_bytes()
    path = tmp_path / "bad.onnx"
    path.write_bytes(content if isinstance(content, bytes) else data[: len(data) // 2])
    with pytest.raises(ModelError, match=r"bad\.onnx"):
        open_runtime(path, "opencv")
    assert capfd.readouterr().err == ""


@pytest.mark.skipif(FIVE, reason="OpenCV 5 runs it")
def test_a_graph_that_opencv_cannot_read(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """onnxruntime takes it, so it is OpenCV's answer that is tried."""
    import onnx

    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[b, 3, h, w] x) => (float[n, 4] y)'
        " { u = Unique<sorted = 0>(x) s = Constant<value_ints = [1, 4]>() y = Expand(u, s) }"
    )
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(ModelError, match=r"odd\.onnx: OpenCV [\d.]+ cannot read this graph: .*scrfd export"):
        open_runtime(tmp_path / "odd.onnx", "opencv")
    if hasattr(cv2.utils, "logging"):
        assert capfd.readouterr().err == ""


def test_an_end_to_end_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"e\.onnx: is an end-to-end export"):
        open_runtime(saved(tmp_path / "e.onnx", SPECS["basic, bn"], Contract("end2end")), "opencv")


@pytest.mark.skipif(FIVE, reason="OpenCV 5 reads it")
def test_the_weights_that_ship_must_be_exported_first() -> None:
    with pytest.raises(ModelError, match="scrfd export"):
        Detector.open(weights.embedded(), runtime="opencv")
