"""Engines, built by TensorRT-RTX on machines without a GPU; what only a GPU can tell is marked gpu."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorrt_rtx")

import numpy as np
import torch
from export_files import SPECS, Done, export, outputs_of, source
from typer.testing import CliRunner

from scrfdkit import certificate, weights
from scrfdkit.cli import app
from scrfdkit.detector import Detector
from scrfdkit.errors import DeviceError, MissingExtraError, ModelError, OptionError, ScrfdError
from scrfdkit.export import tensorrt
from scrfdkit.export.contract import Contract
from scrfdkit.export.order import Order
from scrfdkit.export.source import open_source
from scrfdkit.export.tensorrt import Profile, profile_of
from scrfdkit.runtime import engine
from scrfdkit.runtime.engine import KEY, Engine
from scrfdkit.runtime.formats import bindings, open_runtime

HERE = engine.library()
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="tells what happens without a GPU")
pytestmark = pytest.mark.skipif(HERE.name != engine.RTX, reason="plain TensorRT needs the GPU that it builds for")


def make(path: Path, contract: Contract | None = None, kind: str = "basic, bn", **order: Any) -> Done:
    return export(source(SPECS[kind]), path, contract, to="tensorrt", **order)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A small network with open sizes and batch."""
    settings = {"min_size": (64, 32), "max_size": (960, 1280), "max_batch": 6}
    return make(tmp_path_factory.mktemp("engine") / "small.engine", settings=settings)


def test_bindings_tell_the_profile_and_agree_with_the_graph(small: Done, tmp_path: Path) -> None:
    found = {b.name: b for b in bindings(small.path)}
    given = found["input.1"]
    assert (given.kind, given.dtype, given.shape) == ("input", "float32", ("batch", 3, "height", "width"))
    assert (given.least, given.best, given.most) == ((1, 3, 32, 64), (4, 3, 640, 640), (6, 3, 1280, 960))
    graph = export(source(SPECS["basic, bn"]), tmp_path / "same.onnx").path
    for shape in ("least", "best"):
        blob = np.zeros(getattr(given, shape), np.float32)
        for name, array in outputs_of(graph, blob).items():
            assert (found[name].kind, getattr(found[name], shape)) == ("output", array.shape)
    assert len(found) == 10


def test_certificate_says_what_the_engine_is_for(small: Done) -> None:
    made = small.certificate
    known = Engine.from_json(made.metadata[KEY])
    assert (known.library, known.version, known.gpus) == (HERE.name, HERE.version, ())
    assert Engine.from_json(known.to_json()) == known
    assert known.describe() == f"TensorRT-RTX {HERE.version} for SM 8.0 and later"
    assert made.contract["settings"] == {"min_size": (64, 32), "max_size": (960, 1280), "max_batch": 6}
    assert set(made.files) == {"small.engine"}
    assert certificate.read(small.path) is not None


@no_gpu
def test_without_a_gpu_it_is_written_but_not_run(small: Done) -> None:
    made = small.certificate
    assert made.passed is None
    assert made.measured["not_run"].startswith("small.engine: TensorRT engines are for NVIDIA GPUs, and")
    assert "parity" not in made.measured
    with pytest.raises(DeviceError, match=r"small\.engine: TensorRT engines are for NVIDIA GPUs"):
        Detector.open(small.path)
    with pytest.raises(DeviceError, match=r"device: small\.engine is a TensorRT engine, which runs on an NVIDIA GPU"):
        open_runtime(small.path, device="cpu")


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("layout", ["reference", "maps"])
@pytest.mark.parametrize("kind", ["separable, gn", "five levels"])
def test_every_kind_of_head_builds(kind: str, layout: Any, precision: Any, tmp_path: Path) -> None:
    size = (384, 256)
    done = make(tmp_path / "a.engine", Contract(layout, size=size, batch=2), kind, precision=precision)
    given, *outputs = bindings(done.path)
    assert given.shape == given.least == given.best == given.most == (2, 3, 256, 384)
    assert {b.dtype for b in (given, *outputs)} == {"float32"}
    head = SPECS[kind].head
    assert len(outputs) == len(head.strides) * (3 if head.num_keypoints else 2)
    assert {len(b.shape) for b in outputs} == {4 if layout == "maps" else 3}


def test_half_precision_is_another_engine(tmp_path: Path) -> None:
    one = open_source(weights.embedded(".safetensors"))
    contract = Contract("maps", size=(640, 640), batch=1)
    files = [
        export(one, tmp_path / f"{p}.engine", contract, to="tensorrt", precision=p).path.read_bytes()
        for p in ("fp32", "fp16")
    ]
    assert len(files[1]) < 0.95 * len(files[0])
    assert export(one, tmp_path / "open.engine", to="tensorrt").certificate.num_bytes > 1e6


def test_gpus_can_be_chosen(tmp_path: Path) -> None:
    fixed = Contract(size=(64, 64), batch=1)
    done = make(tmp_path / "a.engine", fixed, settings={"compute_capability": "8.6, 12.0"})
    known = Engine.from_json(done.certificate.metadata[KEY])
    assert known.gpus == ("8.6", "12.0")
    assert known.describe().endswith("for SM 8.6, 12.0")
    with pytest.raises(OptionError, match=r"compute_capability: '9\.0' is not one of 7\.5, 8\.0"):
        make(tmp_path / "b.engine", fixed, settings={"compute_capability": "9.0"})


def test_plain_tensorrt_builds_for_the_gpu_that_is_here(tmp_path: Path) -> None:
    plain = engine.Library(engine.TENSORRT, HERE.module)
    with pytest.raises(OptionError, match="compute_capability: TensorRT builds for the GPU of this machine only"):
        tensorrt._gpus(tmp_path / "a.engine", plain, "8.9")
    if not torch.cuda.is_available():
        with pytest.raises(DeviceError, match=r"a\.engine: TensorRT engines are for NVIDIA GPUs"):
            tensorrt._gpus(tmp_path / "a.engine", plain, None)


def test_profiles() -> None:
    def of(contract: Contract | None = None, **settings: Any) -> Profile:
        return profile_of(Order(contract or Contract(), settings=settings))

    assert of() == Profile((1, 4, 8), ((32, 32), (640, 640), (1280, 1280)))
    assert of(Contract(size=(96, 64), batch=5)) == Profile((5, 5, 5), ((96, 64),) * 3)
    assert of(Contract(size=(96, 64)), max_batch=2) == Profile((1, 2, 2), ((96, 64),) * 3)
    assert of(Contract(batch=1), max_size=(320, 2560)) == Profile((1, 1, 1), ((32, 32), (320, 640), (320, 2560)))
    assert of(min_size=(1024, 64)) == Profile((1, 4, 8), ((1024, 64), (1024, 640), (1280, 1280)))


@pytest.mark.parametrize(
    ("contract", "settings", "message"),
    [
        (Contract(), {"max_batch": 0}, "max_batch: 0 is no number of pictures a run"),
        (Contract(), {"max_batch": 100_000}, "max_batch: 100000 is no number"),
        (Contract(batch=2), {"max_batch": 2}, "max_batch: means nothing where the batch is fixed"),
        (Contract(), {"min_size": (100, 64)}, "min_size: 100x64: width and height must be multiples of 32"),
        (Contract(), {"max_size": (64, 0)}, "max_size: 64x0: width and height must be multiples of 32"),
        (Contract(), {"min_size": (64, 1312)}, "min_size: the smallest size, 64x1312, is not within the largest, 1280"),
        (Contract(size=(64, 64)), {"max_size": (64, 64)}, "max_size: means nothing where the size is fixed"),
        (Contract(), {"backend": "x"}, "backend: means nothing for tensorrt files"),
        (Contract("end2end"), {}, "layout: tensorrt files have reference or maps, not 'end2end'"),
    ],
)
def test_orders_that_mean_nothing(contract: Contract, settings: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=message):
        make(tmp_path / "a.engine", contract, settings=settings)
    assert not list(tmp_path.iterdir())


def test_timing_cache(tmp_path: Path) -> None:
    """TensorRT-RTX times nothing, so its cache stays empty; it is read and written all the same."""
    fixed, place = Contract(size=(64, 64), batch=1), tmp_path / "new" / "times.cache"
    for _ in range(2):
        make(tmp_path / "a.engine", fixed, settings={"timing_cache": str(place)})
        assert place.stat().st_size > 100
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"not to be overwritten")
    with pytest.raises(OptionError, match=r"timing_cache: .*photo\.jpg is no timing cache"):
        make(tmp_path / "b.engine", fixed, settings={"timing_cache": str(photo)})
    with pytest.raises(OptionError, match=r"timing_cache: .* cannot be read"):
        make(tmp_path / "b.engine", fixed, settings={"timing_cache": str(tmp_path)})
    assert photo.read_bytes() == b"not to be overwritten"
    assert not (tmp_path / "b.engine").exists()


class Refusing:
    """A builder's configuration that refuses the times of another GPU, as TensorRT does; TensorRT-RTX never does."""

    def __init__(self, config: Any, foreign: bytes) -> None:
        self.config, self.foreign, self.refused = config, foreign, None

    def create_timing_cache(self, data: bytes) -> Any:
        made = self.config.create_timing_cache(data)
        self.refused = made if data == self.foreign else self.refused
        return made

    def set_timing_cache(self, cache: Any, mismatch: bool) -> bool:
        return cache is not self.refused and self.config.set_timing_cache(cache, mismatch)

    def get_timing_cache(self) -> Any:
        return self.config.get_timing_cache()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_times_of_another_gpu_are_replaced(tmp_path: Path) -> None:
    builder, place = HERE.module.Builder(HERE.logger()), tmp_path / "times.cache"
    begin = bytes(builder.create_builder_config().create_timing_cache(b"").serialize())
    foreign = begin + b"of another GPU"
    place.write_bytes(foreign)
    config = Refusing(builder.create_builder_config(), foreign)
    tensorrt._use_cache(HERE, config, place)
    tensorrt._save_cache(config, place)
    assert config.refused is not None
    assert place.read_bytes() == begin


def test_an_engine_is_kept_without_its_times(tmp_path: Path) -> None:
    fixed = Contract(size=(64, 64), batch=1)
    (tmp_path / "file").touch()
    with pytest.warns(RuntimeWarning, match=r"timing_cache: .*times\.cache: cannot be written"):
        made = make(tmp_path / "a.engine", fixed, settings={"timing_cache": str(tmp_path / "file" / "times.cache")})
    assert made.path.stat().st_size > 1000
    config = HERE.module.Builder(HERE.logger()).create_builder_config()
    with pytest.warns(RuntimeWarning, match="timing_cache: TensorRT has kept no times"):
        tensorrt._save_cache(config, tmp_path / "times.cache")
    assert not (tmp_path / "times.cache").exists()


def test_a_graph_that_is_none(tmp_path: Path) -> None:
    profile = profile_of(Order(Contract(size=(64, 64), batch=1)))
    with pytest.raises(ModelError, match=r"a\.engine: TensorRT-RTX cannot read the graph: "):
        tensorrt._build(tmp_path / "a.engine", HERE, b"no graph", profile, (), None)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'scrfdkit\[tensorrt\]'"):
        make(tmp_path / "a.engine", Contract(size=(64, 64), batch=1))
    assert not list(tmp_path.iterdir())


@no_gpu
def test_as_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def scrfd(*words: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, words)
        assert result.exception is None or isinstance(result.exception, (SystemExit, ScrfdError)), result.exception
        return result.exit_code, result.stdout + str(result.exception or "")

    code, text = scrfd(
        "export", "scrfd_500m_kps", "--to", "tensorrt", "-o", "a.engine", "--max-batch", "2", "--max-size", "640x480"
    )
    assert code == 0, text
    assert "not run here: a.engine: TensorRT engines are for NVIDIA GPUs" in text
    data = json.loads(scrfd("inspect", "a.engine", "--json")[1])
    assert data["bindings"][0]["most"] == [2, 3, 480, 640]
    assert data["certificate"]["passed"] is None
    code, text = scrfd("verify", "a.engine")
    assert (code, "not run" in text) == (1, True), text
    code, text = scrfd("bench", "a.engine", "--iterations", "1")
    assert (code, "a.engine: TensorRT engines are for NVIDIA GPUs" in text) == (1, True), text
    assert (
        "--min-size: 1x1: width"
        in scrfd("export", "scrfd_500m_kps", "--to", "tensorrt", "-o", "b.engine", "--min-size", "1x1")[1]
    )


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("contract", [Contract(), Contract("maps"), Contract(size=(640, 640), batch=3)])
def test_an_engine_computes_what_pytorch_does(contract: Contract, precision: Any, tmp_path: Path) -> None:
    one = open_source(weights.embedded(".safetensors"))
    done = export(one, tmp_path / "a.engine", contract, to="tensorrt", precision=precision)
    assert done.certificate.passed
    assert done.largest <= (1e-3 if precision == "fp32" else 0.1)
    assert done.certificate.measured["device"] == "cuda"


@pytest.mark.gpu
def test_a_range_that_leaves_out_usual_sizes(tmp_path: Path) -> None:
    settings = {"min_size": (288, 288), "max_size": (512, 512), "max_batch": 2}
    done = make(tmp_path / "a.engine", settings=settings)
    assert done.certificate.passed
