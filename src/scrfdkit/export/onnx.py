"""ONNX: the graph is written operation by operation, and what other targets convert is made here too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from scrfdkit import atomic
from scrfdkit.errors import ModelError, OptionError
from scrfdkit.export import end2end, heads, onnx_int8, onnx_precision
from scrfdkit.export.calibration import blobs
from scrfdkit.export.contract import FACE_OUTPUTS, Contract
from scrfdkit.export.faces import Faces, compare_faces
from scrfdkit.export.graph import Graph
from scrfdkit.export.measure import TOLERANCES
from scrfdkit.export.network import add_network
from scrfdkit.export.order import OPSET, Order, Target
from scrfdkit.export.parity import Parity
from scrfdkit.export.reference import Reference
from scrfdkit.export.source import Source
from scrfdkit.model.checkpoint import WeightInfo
from scrfdkit.model.net import SCRFD
from scrfdkit.runtime.ort import ort, start
from scrfdkit.types import Image

OPSETS = range(11, 27)  # the newest that onnxruntime 1.31 reads
_FACES_OPSET = 13  # where axes became inputs


def write(source: Source, path: Path, order: Order) -> None:
    """Writes the graph, after onnx has checked it. Raises OptionError for an opset or pictures that do not go with
    int8, ModelError, ScrfdError."""
    model = _at_precision(build(source.net, source.info, order.contract, order.opset), source, order)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # several kinds, of onnx and of its shape inference
        raise ModelError(f"{path}: onnx finds a fault in the graph: {error}") from error
    atomic.save(path, model.SerializeToString())


def _at_precision(model: Any, source: Source, order: Order) -> Any:
    if order.precision == "int8":
        if order.contract.layout == "end2end":
            raise OptionError(
                "precision: end2end files are fp32 or fp16; int8 is judged by faces and AP, which need rows or maps"
            )
        if order.opset < onnx_int8.OPSET:
            raise OptionError(
                f"opset: {order.opset} has no scales a channel, which int8 needs; take {onnx_int8.OPSET} or more"
            )
        model = onnx_int8.quantise(model, blobs(order, source.info.spec.input))
    elif order.precision == "fp16":
        model = onnx_precision.halve(model)
    return model


def build(net: SCRFD, info: WeightInfo, contract: Contract, opset: int = OPSET, *, probe: bool = False) -> Any:
    """The ModelProto of a fused network; nothing is checked or written.

    Its metadata are those of a weight file, and "layout". probe: of an end-to-end graph, as `end2end.add_faces`
    has it. Raises OptionError for an opset that has not all of the operations.
    """
    least = _FACES_OPSET if contract.layout == "end2end" else OPSETS[0]
    if opset not in OPSETS or opset < least:
        raise OptionError(f"opset: {opset} is not a number from {least} to {OPSETS[-1]}")
    graph, spec = Graph(opset), info.spec
    if contract.layout == "end2end":
        maps = add_network(graph, net, end2end.add_pictures(graph, spec, contract))
        end2end.add_faces(graph, spec, contract, maps, probe=probe)
    else:
        maps = add_network(graph, net, heads.add_blob(graph, contract))
        (heads.add_maps if contract.layout == "maps" else heads.add_rows)(graph, spec, contract, maps)
    return graph.model(info.name, info.to_metadata() | {"layout": contract.layout})


def compare(source: Source, path: Path, order: Order) -> Parity:
    """Runs an end-to-end file in onnxruntime beside the network in PyTorch, and beside a twin that shows the maps
    inside. Raises ModelError where onnxruntime cannot run it."""
    probe = build(source.net, source.info, order.contract, order.opset, probe=True)
    if order.precision == "fp16":
        probe = onnx_precision.halve(probe)
    files = FaceSession(probe.SerializeToString()), FaceSession(path.read_bytes())
    cases = compare_faces(Reference(source.net), *files, order.contract, source.info.spec.input)
    versions = f"PyTorch {torch.__version__}", f"onnxruntime {ort.__version__}"
    return Parity(*versions, cases, TOLERANCES[order.precision])


class FaceSession:
    """An end-to-end file in onnxruntime."""

    def __init__(self, data: bytes) -> None:
        self._session = start(data)

    def __call__(self, canvases: Image, score_threshold: float | None = None) -> tuple[Faces, list[NDArray[Any]]]:
        """Faces, then whatever else the file puts out. Only a probe takes a threshold."""
        feed: dict[str, Any] = {end2end.IMAGES: canvases}
        if score_threshold is not None:
            feed["score_threshold"] = np.array([score_threshold], np.float32)
        try:
            outputs = self._session.run(None, feed)
        except Exception as error:
            raise ModelError(f"onnxruntime cannot run the graph on {canvases.shape}: {error}") from error
        found = dict(zip((o.name for o in self._session.get_outputs()), outputs, strict=True))
        boxes, scores, counts = (found[name] for name in ("boxes", "scores", "counts"))
        rest = [array for name, array in found.items() if name not in FACE_OUTPUTS]
        return Faces(boxes, scores, found.get("keypoints"), counts), rest


TARGET = Target(
    name="onnx",
    suffix=".onnx",
    layouts=("reference", "maps", "end2end"),
    precisions=("fp32", "fp16", "int8"),
    open_size=True,
    open_batch=True,
    write=write,
    compare=compare,
)
