"""onnxruntime: the default runtime, for any SCRFD ONNX file.

onnxruntime is imported here and nowhere else, because it collects telemetry from its import on unless told not to.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# Who has opened a face detector on what machine is nobody's business; a user may set this to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

from scrfdkit.errors import ModelError
from scrfdkit.runtime.base import Binding
from scrfdkit.types import Floats

__all__ = ["OrtRuntime", "bindings", "open_model", "ort"]

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8", "tensor(int64)": "int64"}
_ERRORS_ONLY = 3  # old exports declare the output sizes of 640x640, and onnxruntime warns at every other size


class OrtRuntime:
    """One onnxruntime session."""

    def __init__(self, session: ort.InferenceSession, device: str) -> None:
        (self._input,) = session.get_inputs()
        batch, _, *sides = self._input.shape
        height, width = (side if isinstance(side, int) else None for side in sides)
        self._session = session
        self._half = self._input.type == "tensor(float16)"
        self.device = device
        # A side left open takes any value, so also that of the fixed one.
        self.input_size = (width or height or 0, height or width or 0) if width or height else None
        self.batch_size = batch if isinstance(batch, int) else None
        self.metadata: Mapping[str, str] = session.get_modelmeta().custom_metadata_map

    @classmethod
    def open(cls, model: Path | bytes, *, device: str = "cpu", threads: int | None = None) -> OrtRuntime:
        """Loads an ONNX file or its content.

        device: "cpu", "cuda", or "auto" for CUDA where this onnxruntime has it. The session may still fall back to
        the CPU; `device` of the result says what it did. threads: inside one run, None for one a core.
        Raises ModelError, naming the file, if it is no ONNX network with one picture-like input.
        """
        options = ort.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = threads or 0
        options.inter_op_num_threads = 1
        label = "the ONNX bytes" if isinstance(model, bytes) else str(model)
        providers = ["CPUExecutionProvider"]
        if device != "cpu" and "CUDAExecutionProvider" in ort.get_available_providers():
            providers.insert(0, "CUDAExecutionProvider")
        session = start(model, options, providers)
        if session.get_modelmeta().custom_metadata_map.get("layout") == "end2end":
            raise ModelError(
                f"{label}: is an end-to-end export, which takes bytes of pictures and gives faces by itself; run it as"
                " docs/export.md shows, or export the network again with --layout reference"
            )
        inputs = session.get_inputs()
        kinds = ("tensor(float)", "tensor(float16)")
        shape = inputs[0].shape if inputs else []
        picture = len(shape) == 4 and (shape[1] == 3 or not isinstance(shape[1], int))
        if len(inputs) != 1 or not picture or inputs[0].type not in kinds:
            found = [(i.name, i.type, i.shape) for i in inputs]
            raise ModelError(f"{label}: one float input (batch, 3, height, width) is needed; it has {found}")
        return cls(session, "cuda" if "CUDAExecutionProvider" in session.get_providers() else "cpu")

    def run(self, blob: Floats) -> list[NDArray[Any]]:
        """Raises ModelError where onnxruntime cannot run the network on such a blob."""
        feed = blob.astype(np.float16) if self._half else blob
        try:
            outputs: list[NDArray[Any]] = self._session.run(None, {self._input.name: feed})
        except Exception as error:
            raise ModelError(f"onnxruntime cannot run it on a blob of {blob.shape}: {_first_line(error)}") from error
        return outputs


def start(
    model: Path | bytes, options: ort.SessionOptions | None = None, providers: list[str] | None = None
) -> ort.InferenceSession:
    """A session, on the CPU unless told otherwise. Raises ModelError where onnxruntime refuses the network."""
    label = "the ONNX bytes" if isinstance(model, bytes) else str(model)
    if options is None:
        options = ort.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
    content = model if isinstance(model, bytes) else str(model)
    try:
        return ort.InferenceSession(content, options, providers=providers or ["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no parent of their own
        raise ModelError(f"{label}: onnxruntime cannot load it: {_first_line(error)}") from error


open_model = OrtRuntime.open


def bindings(path: Path) -> list[Binding]:
    """Inputs and outputs of an ONNX file. Raises ModelError."""
    session = start(path)

    def of(value: Any, kind: Literal["input", "output"]) -> Binding:
        shape = tuple("?" if side is None else side for side in value.shape)
        return Binding(value.name, kind, _DTYPES.get(value.type, value.type), shape)

    return [*(of(v, "input") for v in session.get_inputs()), *(of(v, "output") for v in session.get_outputs())]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
