"""OpenVINO: Intel's runtime, for the .xml and .bin files of its own, and for ONNX files where it is asked for.

openvino is imported here and nowhere else, because it reports its import to its makers unless told not to.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from scrfdkit.atomic import is_file
from scrfdkit.errors import ModelError
from scrfdkit.machine import usable_cores
from scrfdkit.model.plan import check_size
from scrfdkit.runtime.base import Binding
from scrfdkit.runtime.inputs import picture_input
from scrfdkit.runtime.ort import ort, start
from scrfdkit.types import Floats


def _openvino() -> Any:
    """The package, without its telemetry: it and nncf report what they are used for by another package, unless that is
    not installed or somebody has refused on this very machine. None makes it look as if it were not."""
    sys.modules["openvino_telemetry"] = cast("Any", None)
    import openvino

    return openvino


ov = _openvino()

__all__ = ["OpenVinoRuntime", "bindings", "open_model", "ov", "read"]

_METADATA = "framework"
"""Where OpenVINO keeps what an ONNX file says of itself, in its own files too."""
_DTYPES = {"f32": "float32", "f16": "float16", "u8": "uint8", "i64": "int64", "i32": "int32"}
_MOST_WEIGHTS = 2**40
"""Numbers of one tensor. A product of sides that does not fit into 64 bits would pass OpenVINO's own test of it."""


class OpenVinoRuntime:
    """A compiled network on the CPU. Any number of threads may call `run` at once.

    device: "cpu". input_size, batch_size, metadata: as the file has them.
    """

    device = "cpu"

    def __init__(self, model: Any, label: str, threads: int | None = None) -> None:
        """model: an ov.Model. label: its name in messages. Raises ModelError where it is no network of this kind."""
        inputs = _bindings(model.inputs, "input")
        self.metadata = _metadata(model)
        self.input_size, self.batch_size = picture_input(label, inputs, self.metadata)
        self._dtype = np.dtype(inputs[0].dtype)
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads or usable_cores(),
            # Left alone, a processor that can would calculate in bfloat16, whatever the weights: that took half the
            # time for scrfd_2.5g and moved key points of scrfd_500m_kps by up to half a stride.
            "INFERENCE_PRECISION_HINT": "f32",
            # Several processes, or networks, would all be put onto the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            self._network = ov.Core().compile_model(model, "CPU", settings)
        except Exception as error:  # RuntimeError, mostly
            raise ModelError(f"{label}: OpenVINO cannot prepare it: {_reason(error)}") from error
        self._idle: list[Any] = []

    @classmethod
    def open(cls, path: str | Path, *, device: str = "auto", threads: int | None = None) -> OpenVinoRuntime:
        """Loads an .xml file with its .bin, or an ONNX file.

        device: only the CPU is used, whatever is asked for. threads: inside one run, None for one a core.
        Raises ModelError, naming the file.
        """
        return cls(read(path), str(path), threads)

    def run(self, blob: Floats) -> list[NDArray[Any]]:
        """Raises ModelError where OpenVINO cannot run the network on such a blob."""
        if blob.ndim == 4:
            check_size(blob.shape[3], blob.shape[2])  # maps that do not fit together would be added all the same
        feed = np.ascontiguousarray(blob, self._dtype)
        try:
            try:  # a request for each call that runs at the same time; one thread at a time gets what is idle
                request = self._idle.pop()
            except IndexError:
                request = self._network.create_infer_request()
            outputs = list(request.infer({0: feed}, share_inputs=True).values())
        except Exception as error:
            raise ModelError(f"OpenVINO cannot run it on a blob of {blob.shape}: {_reason(error)}") from error
        self._idle.append(request)
        return outputs


open_model = OpenVinoRuntime.open


def bindings(path: str | Path) -> list[Binding]:
    """Inputs and outputs of a file. Raises ModelError."""
    model = read(path)
    return [*_bindings(model.inputs, "input"), *_bindings(model.outputs, "output")]


def read(path: str | Path) -> Any:
    """The ov.Model of an .xml or ONNX file, whatever it takes and gives. Raises ModelError, naming the file.

    ONNX files that onnxruntime finds a fault in never reach OpenVINO, which takes some of them: of operations that are
    not defined yet, say.
    """
    path = Path(path)
    if not is_file(path):
        raise ModelError(f"{path}: there is no such file")
    if path.suffix == ".xml":
        _check_xml(path)
    else:
        _check_onnx(path)
    core = ov.Core()
    # Weights that stay in the file would change, or crash the process, when the file is written anew.
    core.set_property({"ENABLE_MMAP": False})
    try:
        return core.read_model(str(path))
    except Exception as error:
        raise ModelError(f"{path}: OpenVINO cannot read it: {_reason(error)}") from error


def _check_xml(path: Path) -> None:
    """OpenVINO would try a file that is not its own as every other format, and tell about each."""
    try:
        with path.open("rb") as file:
            root = ElementTree.parse(file).getroot()
        tensors = [data.get("shape", "") for data in root.iter("data")]
        sizes = [[int(side) for side in text.replace("?", "1").split(",")] for text in tensors if _is_shape(text)]
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise ModelError(f"{path}: is damaged, or no OpenVINO file: {error}") from None
    if root.tag != "net":
        raise ModelError(f"{path}: is no OpenVINO file: its XML is of <{root.tag}>, not of <net>")
    if any(np.prod(np.asarray(sides, np.float64)) > _MOST_WEIGHTS for sides in sizes):
        raise ModelError(f"{path}: has a tensor that is too large for any memory; the file is damaged")
    weights = path.with_suffix(".bin")
    if not is_file(weights):
        raise ModelError(f"{weights}: is missing; the weights of {path.name} are in it, and it must be beside it")


def _check_onnx(path: Path) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 4  # it raises what is wrong
    options.intra_op_num_threads = 1
    # It only has to read it, which takes about 10 ms without what prepares it for runs.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    start(path, options)


def _is_shape(text: str) -> bool:
    return bool(text) and set(text) <= set("0123456789, ?")


def _metadata(model: Any) -> Mapping[str, str]:
    """What the file says of itself, as text."""
    values = model.get_rt_info([_METADATA]).value if model.has_rt_info([_METADATA]) else None
    if not isinstance(values, dict):
        return {}
    return {name: value for name, value in values.items() if isinstance(value, str)}


def _bindings(ports: Any, kind: Literal["input", "output"]) -> list[Binding]:
    found = []
    for port in ports:
        name = port.any_name if port.names else f"{kind} {port.index}"
        shape = port.partial_shape
        rank = shape.rank.get_length() if shape.rank.is_static else 0
        sides = tuple(shape[i].get_length() if shape[i].is_static else "?" for i in range(rank))
        dtype = port.element_type.get_type_name()
        found.append(Binding(name, kind, _DTYPES.get(dtype, dtype), sides))
    return found


def _reason(error: Exception) -> str:
    """The last line: those above say where in OpenVINO it was found."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
