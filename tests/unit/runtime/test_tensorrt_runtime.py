"""TensorRT engines that cannot be opened, and how batches meet profiles; running one needs a GPU."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorrt_rtx")

import torch
from export_files import SPECS, Done, export, source

from scrfdkit import certificate
from scrfdkit.certificate import Certificate
from scrfdkit.errors import DeviceError, MissingExtraError, ModelError, ScrfdError
from scrfdkit.export.contract import Contract
from scrfdkit.runtime import engine, tensorrt
from scrfdkit.runtime.engine import KEY, RTX, TENSORRT, Engine
from scrfdkit.runtime.formats import bindings, open_runtime
from scrfdkit.runtime.tensorrt import choose, parts

pytestmark = pytest.mark.skipif(engine.library().name != RTX, reason="builds without a GPU")
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="tells what happens without a GPU")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Done:
    place = tmp_path_factory.mktemp("engine") / "small.engine"
    return export(source(SPECS["basic, bn"]), place, Contract(size=(64, 96), batch=1), to="tensorrt")


def copy(made: Done, path: Path, known: Engine | None = None, **metadata: str) -> Path:
    """The engine under another name, with a certificate that says something else of it."""
    shutil.copy(made.path, path)
    told = {**made.certificate.metadata, **({KEY: known.to_json()} if known else {}), **metadata}
    record = replace(made.certificate, files={path.name: made.certificate.files[made.path.name]}, metadata=told)
    certificate.beside(path).write_text(record.to_json())
    assert isinstance(certificate.check(path), Certificate)
    return path


def known(made: Done) -> Engine:
    return Engine.from_json(made.certificate.metadata[KEY])


def test_another_version_is_told_before_anything_is_loaded(made: Done, tmp_path: Path) -> None:
    path = copy(made, tmp_path / "old.engine", replace(known(made), version="1.2.0.9", gpus=("8.6", "8.9")))
    built, here = r"TensorRT-RTX 1\.2\.0\.9 for SM 8\.6, 8\.9", f"TensorRT-RTX {engine.library().version}"
    with pytest.raises(ModelError, match=rf"old\.engine: was built by {built}; this is {here}"):
        open_runtime(path)
    assert bindings(path)[0].name == "input.1"


def test_an_engine_of_the_other_library(made: Done, tmp_path: Path) -> None:
    path = copy(made, tmp_path / "trt.plan", replace(known(made), library=TENSORRT))
    with pytest.raises(ModelError, match="the Python package tensorrt is not installed"):
        open_runtime(path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"library": "CUDA", "version": "1", "gpus": [], "bindings": []}', "[" * 9]
)
def test_a_certificate_that_tells_nonsense_of_the_engine(text: str, made: Done, tmp_path: Path) -> None:
    path = copy(made, tmp_path / "a.engine", **{KEY: text})
    for read in (open_runtime, bindings):
        with pytest.raises(ModelError, match=r"certificate\.json: what it says of the engine cannot be read"):
            read(path)


@pytest.mark.parametrize("content", [b"", b"x", b"vtrt", b"vtrt" + bytes(50), b"\x08\x07\x12\x07pytorch" * 100])
@pytest.mark.parametrize("suffix", [".engine", ".plan", ".trt"])
def test_foreign_files(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    for read in (open_runtime, bindings):
        with pytest.raises(ModelError, match=r"a\.\w+: is no engine that TensorRT-RTX [\d.]+ knows"):
            read(path)


def test_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.engine: cannot be read: No such file"):
        open_runtime(tmp_path / "gone.engine")
    with pytest.raises(ModelError, match="cannot be read: Is a directory"):
        tensorrt.open_model(tmp_path)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.999])
def test_truncated_files_are_refused(share: float, made: Done, tmp_path: Path) -> None:
    """By their hash; where there is none, a GPU is needed to know."""
    path = copy(made, tmp_path / "a.engine")
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ModelError, match="the file was changed"):
        open_runtime(path)
    certificate.beside(path).unlink()
    for read in (open_runtime, bindings):
        with pytest.raises(ScrfdError, match=r"a\.engine: ") as caught:
            read(path)
        assert isinstance(caught.value, ModelError if torch.cuda.is_available() else (ModelError, DeviceError))


@no_gpu
def test_without_certificate_and_gpu_nothing_is_known(made: Done, tmp_path: Path) -> None:
    path = tmp_path / "alone.engine"
    shutil.copy(made.path, path)
    for read in (open_runtime, bindings):
        with pytest.raises(DeviceError, match=r"alone\.engine: TensorRT engines are for NVIDIA GPUs"):
            read(path)


def test_without_the_package(made: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = copy(made, tmp_path / "a.engine")
    for module in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'scrfdkit\[tensorrt\]'"):
        open_runtime(path)
    certificate.beside(path).unlink()
    with pytest.raises(MissingExtraError):
        open_runtime(path)


def test_a_profile_is_chosen_by_size() -> None:
    small, large = ((1, 3, 32, 32), (4, 3, 64, 96)), ((2, 3, 64, 64), (8, 3, 640, 640))
    assert choose([small, large], (100, 3, 64, 96)) == 0
    assert choose([small, large], (1, 3, 96, 64)) == 1
    for shape in ((1, 3, 32, 640), (1, 4, 64, 64), (3, 64, 64), (0, 3, 64, 64)):
        assert choose([small, large], shape) is None


@pytest.mark.parametrize(
    ("number", "least", "most", "sizes"),
    [(5, 1, 8, [(5, 5)]), (5, 1, 2, [(2, 2), (2, 2), (1, 1)]), (5, 4, 4, [(4, 4), (4, 1)]), (1, 3, 8, [(3, 1)])],
)
def test_batches_are_cut_and_filled_up(number: int, least: int, most: int, sizes: Any) -> None:
    blob = np.arange(1, number + 1, dtype=np.float32)[:, None, None, None].repeat(3, 1)
    found = list(parts(blob, least, most))
    assert [(len(part), count) for part, count in found] == sizes
    assert np.array_equal(np.concatenate([part[:count] for part, count in found]), blob)
    assert all(not part[count:].any() and part.dtype == np.float32 for part, count in found)


@pytest.mark.gpu
def test_runs_of_any_batch_on_several_threads(tmp_path: Path) -> None:
    done = export(source(SPECS["basic, bn"]), tmp_path / "a.engine", to="tensorrt", settings={"max_batch": 3})
    runtime = open_runtime(done.path)
    assert (runtime.device, runtime.input_size, runtime.batch_size) == ("cuda", None, None)
    assert json.loads(runtime.metadata["spec"])
    blob = np.random.default_rng(0).normal(size=(7, 3, 96, 64)).astype(np.float32)
    alone = [runtime.run(blob[i : i + 1]) for i in range(len(blob))]
    found: list[Any] = [None] * 4

    def work(index: int) -> None:
        found[index] = runtime.run(blob)

    threads = [Thread(target=work, args=(i,)) for i in range(len(found))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for outputs in found:
        for whole, *rest in zip(outputs, *alone, strict=True):
            assert np.abs(whole - np.concatenate(rest)).max() <= 1e-4
    for shape in ((1, 3, 2048, 64), (1, 4, 64, 64), (0, 3, 64, 64)):
        with pytest.raises(ModelError, match="the engine was built for 32x32 to 1280x1280"):
            runtime.run(np.zeros(shape, np.float32))


@pytest.mark.gpu
def test_the_engine_itself_tells_its_bindings(tmp_path: Path) -> None:
    done = export(source(SPECS["basic, bn"]), tmp_path / "a.engine", to="tensorrt")
    told = {b.name: b for b in bindings(done.path)}
    certificate.beside(done.path).unlink()
    found = {b.name: b for b in bindings(done.path)}
    assert set(found) == set(told)
    assert found["input.1"].most == told["input.1"].most
