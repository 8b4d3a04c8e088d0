"""Export to ONNX. The graph is written operation by operation, checked, run beside PyTorch, and only then saved."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from scrfdkit import atomic
from scrfdkit.errors import ModelError, OptionError
from scrfdkit.export import end2end, heads
from scrfdkit.export.contract import FACE_OUTPUTS, Contract
from scrfdkit.export.faces import Faces, compare_faces
from scrfdkit.export.graph import Graph
from scrfdkit.export.network import add_network
from scrfdkit.export.parity import Parity, compare_heads
from scrfdkit.export.reference import Reference
from scrfdkit.export.source import Source
from scrfdkit.model.checkpoint import WeightInfo
from scrfdkit.model.net import SCRFD
from scrfdkit.runtime.ort import OrtRuntime, ort
from scrfdkit.types import Image

OPSET = 17
"""The default: new enough for all operations, old enough for converters of some years ago."""
OPSETS = range(11, 22)
_FACES_OPSET = 13  # where axes became inputs
_ERRORS_ONLY = 3


@dataclass(frozen=True)
class Exported:
    """A file that was written. info: what its metadata say. num_bytes: its size."""

    path: Path
    contract: Contract
    info: WeightInfo
    parity: Parity
    num_bytes: int


def export(source: Source, path: str | Path, contract: Contract | None = None, opset: int = OPSET) -> Exported:
    """Writes an ONNX file that gives what the network gives in PyTorch, or nothing.

    Raises OptionError for an opset, ModelError where onnx or onnxruntime refuses the graph or computes something else,
    ScrfdError where the file cannot be written.
    """
    path, contract = Path(path), contract or Contract()
    if path.suffix != ".onnx":
        raise ModelError(f"{path}: the new file's name must end in .onnx")
    model = build(source.net, source.info, contract, opset)
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # several kinds, of onnx and of its shape inference
        raise ModelError(f"{path}: onnx finds a fault in the graph: {error}") from error
    data: bytes = model.SerializeToString()
    parity = check(source, data, contract, opset)
    parity.require(str(path))
    atomic.save(path, data)
    return Exported(path, contract, source.info, parity, len(data))


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


def check(source: Source, data: bytes, contract: Contract, opset: int = OPSET) -> Parity:
    """Runs the content of an ONNX file in onnxruntime beside the network in PyTorch.

    Of an end-to-end file a twin is run too, which shows the maps inside. Raises ModelError where onnxruntime cannot run
    it.
    """
    reference = Reference(source.net)
    blob = source.info.spec.input
    if contract.layout == "end2end":
        probe = build(source.net, source.info, contract, opset, probe=True).SerializeToString()
        cases = compare_faces(reference, FaceSession(probe), FaceSession(data), contract, blob)
    else:
        cases = compare_heads(reference, OrtRuntime.open(data), contract, blob)
    return Parity(f"PyTorch {torch.__version__}", f"onnxruntime {ort.__version__}", cases)


class FaceSession:
    """An end-to-end file in onnxruntime."""

    def __init__(self, data: bytes) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        try:
            self._session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions share no parent of their own
            raise ModelError(f"onnxruntime cannot load the graph: {error}") from error

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
