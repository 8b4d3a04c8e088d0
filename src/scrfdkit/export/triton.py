"""Triton Inference Server: a model repository with the network, and an ensemble from files of pictures to faces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeAlias

from scrfdkit import atomic
from scrfdkit.errors import ModelError, OptionError
from scrfdkit.export import onnx
from scrfdkit.export.contract import MAX_BATCH
from scrfdkit.export.heads import BLOB
from scrfdkit.export.order import USUAL_SIZE, Order, Target
from scrfdkit.export.source import Source
from scrfdkit.export.triton_config import Message, Model, Step, Tensor, ensemble, to_text
from scrfdkit.options import Options
from scrfdkit.runtime.ort import bindings

Kind: TypeAlias = Literal["KIND_AUTO", "KIND_GPU", "KIND_CPU"]

USUAL_BATCH = 8
MAX_SIDE = 2048
"""Longest side that a request may ask for, unless the configuration is changed."""
GRAPH = "graph.onnx"
"""What an engine was built from, beside it."""
_VERSION = "1"
_PLACEMENT = Tensor("placement", (8,), "TYPE_FP64")
_PICTURE = Tensor("picture", (1,), "TYPE_STRING")


@dataclass(frozen=True)
class Backend:
    """What runs the network. target: of the file, which the server knows by the name `file`. runs_by: fields of the
    configuration. kind: of processors. numbered: tensors have numbers for names.
    """

    target: str
    file: str
    runs_by: Mapping[str, str]
    kind: Kind = "KIND_AUTO"
    numbered: bool = False


BACKENDS = {
    "onnxruntime": Backend("onnx", "model.onnx", {"backend": "onnxruntime", "platform": "onnxruntime_onnx"}),
    "tensorrt": Backend("tensorrt", "model.plan", {"backend": "tensorrt", "platform": "tensorrt_plan"}, "KIND_GPU"),
    "pytorch": Backend(
        "torchscript", "model.pt", {"backend": "pytorch", "platform": "pytorch_libtorch"}, numbered=True
    ),
    "python": Backend("onnx", "model.onnx", {"backend": "python"}, "KIND_CPU"),
}
_PYTHON: Mapping[str, str] = {"backend": "python"}


def write(source: Source, path: Path, order: Order) -> Mapping[str, str] | None:
    """Writes the repository.

    Settings: "backend", one of BACKENDS; "max_batch", most pictures a run; what else is there is for the network's own
    target. Raises OptionError, naming the field, ModelError, or what writing the network's file raises.
    """
    name, max_batch = _backend(order), _max_batch(order)
    if order.contract.batch is not None:
        raise OptionError("batch: Triton fills batches itself; leave it out, and limit them with max_batch")
    backend, model = BACKENDS[name], source.safe_name
    folder = _version(path, model)
    said = _write_network(source, folder / backend.file, backend, order, max_batch)
    if name == "python":
        _install("network", folder)
    inputs, outputs = _signature(source, folder, backend, order)
    notes = _engine_notes(folder / GRAPH, order, max_batch) if name == "tensorrt" else ""
    known = source.info.to_metadata() | {"layout": order.contract.layout}
    network = Model(model, max_batch, backend.runs_by, inputs, outputs, known, backend.kind, batching=True)
    _save(path, network.to_message())
    for script in ("letterbox", "decode"):
        _install(script, _version(path, f"{model}_{script}"))
    for message in _around(network, source, *_sizes(order, name, max_batch), order.contract.logits):
        _save(path, message)
    # Storage that knows no empty folders would lose the version of a model without a file.
    atomic.save(_version(path, f"{model}_faces") / ".keep", b"")
    text = (files("scrfdkit") / "assets" / "triton" / "README.md").read_text("utf-8")
    text = text.replace("{model}", model).replace("{backend}", name)
    atomic.save(path / "README.md", (text + notes.replace("{model}", model)).encode())
    return said


def network_file(path: Path) -> Path:
    """The file of the network in a repository that `write` made. Raises ModelError where there is none."""
    found = [file for backend in BACKENDS.values() for file in sorted(path.glob(f"*/{_VERSION}/{backend.file}"))]
    if not found:
        raise ModelError(f"{path}: there is no network in this repository")
    return found[0]


def _backend(order: Order) -> str:
    name = order.settings.get("backend", "onnxruntime")
    if name not in BACKENDS:
        raise OptionError(f"backend: {name!r} is not one of {tuple(BACKENDS)}")
    return str(name)


def _max_batch(order: Order) -> int:
    most = order.settings.get("max_batch", USUAL_BATCH)
    if not isinstance(most, int) or isinstance(most, bool) or not 1 <= most <= MAX_BATCH:
        raise OptionError(f"max_batch: {most!r} is not a number from 1 to {MAX_BATCH}")
    return most


def _write_network(
    source: Source, path: Path, backend: Backend, order: Order, max_batch: int
) -> Mapping[str, str] | None:
    from scrfdkit.export.targets import TARGETS  # of which this is one

    target = TARGETS[backend.target]
    settings: dict[str, Any] = {key: value for key, value in order.settings.items() if key != "backend"}
    settings["max_batch"] = max_batch
    if "max_batch" not in target.settings:
        del settings["max_batch"]
    settled = target.settle(replace(order, settings=settings))
    if settled.contract.batch is not None:
        raise OptionError(f"backend: {target.name} files have a fixed batch, which Triton cannot fill")
    made = path.with_name("model" + target.suffix)
    said = target.write(source, made, settled)
    made.replace(path)
    return said


def _signature(source: Source, folder: Path, backend: Backend, order: Order) -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and outputs: those of the ONNX graph that the file is or is made from. Beside an engine it is left."""
    graph = folder / (backend.file if backend.target == "onnx" else GRAPH)
    if not graph.exists():
        onnx.write(source, graph, order)
    found = bindings(graph)
    if backend.numbered:
        graph.unlink()
    sides: dict[str, list[Tensor]] = {"input": [], "output": []}
    for binding in found:
        side = sides[binding.kind]
        side.append(Tensor.of(binding, f"{binding.kind.upper()}__{len(side)}" if backend.numbered else ""))
    return sides["input"], sides["output"]


def _sizes(order: Order, backend: str, max_batch: int) -> tuple[tuple[int, int], int]:
    """The (width, height) that requests get unless they ask for another, and the longest side that they may ask for."""
    if backend == "tensorrt":
        from scrfdkit.export.tensorrt import profile_of

        _, usual, largest = profile_of(replace(order, settings={**order.settings, "max_batch": max_batch})).sizes
        return usual, max(largest)
    usual = order.contract.size or USUAL_SIZE
    return usual, max(MAX_SIDE, *usual)


def _engine_notes(graph: Path, order: Order, max_batch: int) -> str:
    """How to build the engine again where the server is: it takes those of its own version and GPU only."""
    from scrfdkit.export.tensorrt import profile_of

    profile = profile_of(replace(order, settings={**order.settings, "max_batch": max_batch}))
    shapes = [f"{BLOB}:{one.batch}x3x{one.size[1]}x{one.size[0]}" for one in profile.contracts if one.size]
    spans = " ".join(f"--{word}Shapes={shape}" for word, shape in zip(("min", "opt", "max"), shapes, strict=True))
    return (
        "\nA server loads engines that were built by its own version of TensorRT on a GPU like its own, and none of"
        f"\nTensorRT-RTX. If this one is another, build `model.plan` in its container, in `{{model}}/{_VERSION}`:\n"
        f"\n    trtexec --onnx={graph.name} --saveEngine=model.plan --stronglyTyped {spans}\n"
    )


def _around(
    network: Model, source: Source, size: tuple[int, int], max_side: int, logits: bool
) -> tuple[Message, Message, Message]:
    """The models before and after the network, and the ensemble of all three. size, max_side: as of `_sizes`."""
    (given,) = network.inputs
    blob = replace(given, name="blob")
    usual = Options()
    spec, points = network.parameters["spec"], source.info.spec.head.num_keypoints
    letterbox = Model(
        f"{network.name}_letterbox",
        network.max_batch,
        _PYTHON,
        [_PICTURE],
        [blob, _PLACEMENT],
        {
            "spec": spec,
            "input_size": f"{size[0]}x{size[1]}",
            "max_pixels": str(usual.max_pixels),
            "max_side": str(max_side),
        },
        "KIND_CPU",
        instances=2,
    )
    faces = [Tensor("boxes", (-1, 4)), Tensor("scores", (-1,)), Tensor("counts", (1,), "TYPE_INT64")]
    if points:
        faces.insert(2, Tensor("keypoints", (-1, points, 2)))
    decode = Model(
        f"{network.name}_decode",
        network.max_batch,
        _PYTHON,
        [*network.outputs, _PLACEMENT],
        faces,
        {
            "score_threshold": str(usual.score_threshold),
            "nms_threshold": str(usual.nms_threshold),
            "max_faces": str(usual.max_faces),
            "logits": "true" if logits else "false",
        },
        "KIND_CPU",
    )
    whole = Model(
        f"{network.name}_faces", network.max_batch, {"platform": "ensemble"}, [_PICTURE], faces, network.parameters, ""
    )
    heads = {tensor.name: tensor.name for tensor in network.outputs}
    steps = (
        Step(letterbox.name, {"picture": "picture"}, {"blob": "blob", "placement": "placement"}),
        Step(network.name, {given.name: "blob"}, heads),
        Step(decode.name, {**heads, "placement": "placement"}, {tensor.name: tensor.name for tensor in faces}),
    )
    return letterbox.to_message(), decode.to_message(), ensemble(whole, steps)


def _version(path: Path, model: str) -> Path:
    folder = path / model / _VERSION
    atomic.make_folder(folder)
    return folder


def _install(script: str, folder: Path) -> None:
    atomic.save(folder / "model.py", (files("scrfdkit") / "assets" / "triton" / f"{script}.py").read_bytes())


def _save(path: Path, message: Message) -> None:
    atomic.save(path / message["name"] / "config.pbtxt", to_text(message).encode())


TARGET = Target(
    name="triton",
    suffix="",
    layouts=("reference", "maps"),
    precisions=("fp32", "fp16", "int8"),
    open_size=True,
    open_batch=True,
    write=write,
    settings=("backend", "max_batch", "min_size", "max_size", "timing_cache", "compute_capability"),
    folder=True,
    inside=network_file,
)
