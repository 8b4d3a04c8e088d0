"""Model repositories for Triton: configurations that its own schema reads, and that say what the files say."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("tritonclient.grpc")

from export_files import SPECS, Done, export, source
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2 as schema

from scrfdkit import certificate
from scrfdkit.certificate import Certificate
from scrfdkit.errors import ModelError, OptionError
from scrfdkit.export import run
from scrfdkit.export.contract import Contract
from scrfdkit.export.order import Order
from scrfdkit.export.targets import TARGETS
from scrfdkit.export.triton import BACKENDS, network_file
from scrfdkit.export.triton_config import to_text
from scrfdkit.layout import head_names
from scrfdkit.runtime.ort import bindings
from scrfdkit.spec import ModelSpec

pytestmark = [pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")]

SPEC = SPECS["basic, bn"]
SIZE = Contract(size=(96, 64))
Make = Callable[..., Done]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Exports a small network once for each set of settings."""
    made: dict[str, Done] = {}

    def one(backend: str, contract: Contract = SIZE, **settings: Any) -> Done:
        key = f"{backend} {contract} {settings}"
        if key not in made:
            if backend == "tensorrt":
                pytest.importorskip("tensorrt_rtx")
            path = tmp_path_factory.mktemp("triton") / "models"
            given = {"backend": backend, **settings}
            made[key] = export(source(SPEC), path, contract, to="triton", settings=given)
        return made[key]

    return one


@pytest.fixture(scope="module")
def open_maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of raw maps of any size, not measured: a random network finds thousands of faces in a portrait."""
    path = tmp_path_factory.mktemp("triton") / "models"
    TARGETS["triton"].write(source(SPEC), path, Order(Contract("maps"), settings={"backend": "python"}))
    return path


def config(repository: Path, name: str) -> Any:
    """A configuration as Triton's schema reads it."""
    found = text_format.Parse((repository / name / "config.pbtxt").read_text(), schema.ModelConfig())
    assert found.name == name
    return found


def tensors(rows: Any) -> list[tuple[str, str, list[int]]]:
    return [(row.name, schema.DataType.Name(row.data_type), list(row.dims)) for row in rows]


def texts(found: Any) -> dict[str, str]:
    return {name: value.string_value for name, value in found.parameters.items()}


def test_the_folder(make: Make) -> None:
    path, made = make("python")
    names = sorted(f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file())
    assert names == [
        "README.md",
        "small/1/model.onnx",
        "small/1/model.py",
        "small/config.pbtxt",
        "small_decode/1/model.py",
        "small_decode/config.pbtxt",
        "small_faces/1/.keep",
        "small_faces/config.pbtxt",
        "small_letterbox/1/model.py",
        "small_letterbox/config.pbtxt",
    ]
    assert sorted(made.files) == [f"models/{name}" for name in names]
    found = certificate.check(path)
    assert found is not None
    assert found.files == made.files
    assert made.passed
    assert made.measured["parity"]["candidate"].startswith("onnxruntime")
    assert network_file(path) == path / "small" / "1" / "model.onnx"
    readme = (path / "README.md").read_text()
    assert "{" not in re.sub(r"```python.*?```", "", readme, flags=re.DOTALL)
    assert "triton://localhost:8001/small photo.jpg" in readme


@pytest.mark.parametrize(
    ("backend", "file", "platform", "kind"),
    [
        ("onnxruntime", "model.onnx", "onnxruntime_onnx", "KIND_AUTO"),
        ("python", "model.onnx", "", "KIND_CPU"),
        ("pytorch", "model.pt", "pytorch_libtorch", "KIND_AUTO"),
        ("tensorrt", "model.plan", "tensorrt_plan", "KIND_GPU"),
    ],
)
@pytest.mark.parametrize("contract", [SIZE, Contract("maps", size=SIZE.size)], ids=["rows", "maps"])
def test_the_network(make: Make, contract: Contract, backend: str, file: str, platform: str, kind: str) -> None:
    path, made = make(backend, contract)
    assert network_file(path) == path / "small" / "1" / file
    found = config(path, "small")
    assert (found.backend, found.platform, found.max_batch_size) == (backend, platform, 8)
    assert found.dynamic_batching.max_queue_delay_microseconds == 100
    (group,) = found.instance_group
    assert (group.count, schema.ModelInstanceGroup.Kind.Name(group.kind)) == (1, kind)
    assert found.HasField("response_cache")
    assert not found.response_cache.enable
    ours = texts(found)
    assert ModelSpec.from_json(ours["spec"]) == SPEC
    assert (ours["name"], ours["licence"], ours["layout"]) == ("small", "mine", contract.layout)
    onnx = make("python", contract).path / "small" / "1" / "model.onnx"
    shapes = [[side if isinstance(side, int) else -1 for side in b.shape[1:]] for b in bindings(onnx)]
    names = (
        ["INPUT__0", *(f"OUTPUT__{i}" for i in range(9))] if backend == "pytorch" else ["input.1", *head_names(SPEC)]
    )
    wanted = [(name, "TYPE_FP32", shape) for name, shape in zip(names, shapes, strict=True)]
    assert tensors([*found.input, *found.output]) == wanted
    assert made.measured.get("parity", {"passed": backend == "tensorrt"})["passed"]


def test_what_the_files_take_is_what_the_schema_is_told(make: Make, open_maps: Path) -> None:
    """By hand, for a size and a network that are known."""
    rows = config(make("python").path, "small")
    assert tensors(rows.input) == [("input.1", "TYPE_FP32", [3, 64, 96])]
    assert tensors(rows.output)[0] == ("score_8", "TYPE_FP32", [192, 1])
    assert tensors(rows.output)[-1] == ("kps_32", "TYPE_FP32", [12, 10])
    maps = config(open_maps, "small")
    assert tensors(maps.input) == [("input.1", "TYPE_FP32", [3, -1, -1])]
    assert tensors(maps.output)[3] == ("bbox_8", "TYPE_FP32", [8, -1, -1])


@pytest.mark.parametrize("backend", ["onnxruntime", "pytorch"])
def test_the_ensemble_fits_together(make: Make, backend: str) -> None:
    """Every tensor of every step has a source of the same type and dims."""
    path = make(backend).path
    models = {name: config(path, name) for name in ("small_letterbox", "small", "small_decode")}
    whole = config(path, "small_faces")
    assert whole.platform == "ensemble"
    assert not whole.instance_group
    assert {model.max_batch_size for model in (whole, *models.values())} == {8}
    assert [step.model_name for step in whole.ensemble_scheduling.step] == list(models)
    known = {name: rest for name, *rest in tensors(whole.input)}
    assert known == {"picture": ["TYPE_STRING", [1]]}
    for step in whole.ensemble_scheduling.step:
        model = models[step.model_name]
        assert step.model_version == -1
        assert set(step.input_map) == {tensor.name for tensor in model.input}
        for name, *rest in tensors(model.input):
            assert known[step.input_map[name]] == rest
        for name, *rest in tensors(model.output):
            if name in step.output_map:
                known[step.output_map[name]] = rest
    assert tensors(whole.output) == [(name, *known[name]) for name in ("boxes", "scores", "keypoints", "counts")]
    assert known["keypoints"] == ["TYPE_FP32", [-1, 5, 2]]


def test_what_the_python_models_are_told(make: Make, open_maps: Path) -> None:
    path = make("python").path
    letterbox, decode = (config(path, f"small_{name}") for name in ("letterbox", "decode"))
    assert letterbox.backend == decode.backend == "python"
    limits = {"max_pixels": "178956970", "max_side": "2048"}
    assert {**texts(letterbox), "spec": ""} == {"spec": "", "input_size": "96x64", **limits}
    assert ModelSpec.from_json(texts(letterbox)["spec"]) == SPEC
    usual = {"score_threshold": "0.5", "nms_threshold": "0.4", "max_faces": "0"}
    assert texts(decode) == {**usual, "logits": "false"}
    assert texts(config(open_maps, "small_decode"))["logits"] == "true"
    assert texts(config(open_maps, "small_letterbox"))["input_size"] == "640x640"


def test_a_network_without_landmarks(tmp_path: Path) -> None:
    one = source(SPECS["separable, gn"])
    path = export(one, tmp_path / "models", SIZE, to="triton", settings={"max_batch": 3}).path
    found = config(path, "small_faces")
    assert [tensor.name for tensor in found.output] == ["boxes", "scores", "counts"]
    assert found.max_batch_size == config(path, "small").max_batch_size == 3
    assert not (path / "small" / "1" / "model.py").exists()


def test_the_python_models_need_what_is_promised(make: Make) -> None:
    """The network's only numpy and onnxruntime; the others this package, whose code they do not repeat."""
    path = make("python").path
    needed = {}
    for name in ("small", "small_letterbox", "small_decode"):
        tree = ast.parse((path / name / "1" / "model.py").read_text())
        froms = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        plain = [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
        needed[name] = {str(module).split(".")[0] for module in (*froms, *plain)}
        assert "TritonPythonModel" in {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
    standard = {"__future__", "collections", "dataclasses", "json", "os", "pathlib", "typing"}
    server = {"numpy", "triton_python_backend_utils"}
    assert needed["small"] - standard == server | {"onnxruntime"}
    assert needed["small_letterbox"] - standard == needed["small_decode"] - standard == server | {"scrfdkit"}


def test_an_engine_can_be_built_where_the_server_is(make: Make) -> None:
    path, made = make("tensorrt", Contract("maps"), max_batch=4, max_size=(320, 256))
    readme = (path / "README.md").read_text()
    assert "--minShapes=input.1:1x3x32x32 --optShapes=input.1:4x3x256x320 --maxShapes=input.1:4x3x256x320" in readme
    assert bindings(path / "small" / "1" / "graph.onnx")[0].name == "input.1"
    assert json.loads(made.metadata["engine"])["library"].startswith("TensorRT")
    assert config(path, "small").max_batch_size == 4
    given = texts(config(path, "small_letterbox"))
    assert (given["input_size"], given["max_side"]) == ("320x256", "320")


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (Order(settings={"backend": "tensorflow"}), r"backend: 'tensorflow' is not one of \('onnxruntime', 'tensorrt'"),
        (Order(settings={"max_batch": 0}), "max_batch: 0 is not a number from 1"),
        (Order(settings={"max_batch": 5000}), "max_batch: 5000 is not a number from 1"),
        (Order(Contract(batch=2)), "batch: Triton fills batches itself"),
        (Order(settings={"min_size": (64, 64)}), "min_size: means nothing for onnx files"),
        (Order(Contract("end2end")), "layout: triton files have reference or maps"),
        (Order(precision="int8"), "calibrate: int8 takes its ranges from pictures"),
    ],
)
def test_what_cannot_be_asked_for(tmp_path: Path, order: Order, words: str) -> None:
    with pytest.raises(OptionError, match=words):
        run.export(source(SPEC), tmp_path / "models", TARGETS["triton"], order)
    assert not any(tmp_path.iterdir())


def test_a_folder_without_a_network(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no network in this repository"):
        network_file(tmp_path)


def test_names_of_models() -> None:
    one = source(SPEC)
    for name, wanted in (
        ("scrfd_2.5g_kps", "scrfd_2.5g_kps"),
        ("my faces/2", "my_faces_2"),
        ("..", "scrfd"),
        ("n" * 300, "n" * 100),
    ):
        assert replace(one, info=replace(one.info, name=name)).safe_name == wanted


def test_text_that_could_end_a_text() -> None:
    nasty = 'a "quote", a \\, two\nlines, ümlaut, \x00 and \x7f'
    message = {"parameters": [{"key": nasty, "value": {"string_value": nasty}}], "max_batch_size": 2}
    found = text_format.Parse(to_text(message), schema.ModelConfig())
    assert texts(found) == {nasty: nasty}
    assert found.max_batch_size == 2


def test_every_backend_has_its_target() -> None:
    assert {backend.target for backend in BACKENDS.values()} <= set(TARGETS)


def test_verify_finds_the_network(make: Make) -> None:
    path, made = make("python")
    again: Certificate = run.verify(path, source(SPEC), TARGETS["triton"])
    assert again.passed
    assert again.measured["parity"]["largest"] == made.measured["parity"]["largest"]
