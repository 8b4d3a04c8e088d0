"""onnxruntime: the default runtime, for any SCRFD ONNX file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from scrfdkit.errors import ModelError
from scrfdkit.types import Floats

_ERRORS_ONLY = 3  # old exports declare the output sizes of 640x640, and onnxruntime warns at every other size


class OrtRuntime:
    """One onnxruntime session."""

    def __init__(self, session: ort.InferenceSession, device: str) -> None:
        (self._input,) = session.get_inputs()
        batch, _, height, width = self._input.shape
        self._session = session
        self._half = self._input.type == "tensor(float16)"
        self.device = device
        self.input_size = (width, height) if isinstance(width, int) and isinstance(height, int) else None
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
        try:
            session = ort.InferenceSession(
                model if isinstance(model, bytes) else str(model), options, providers=providers
            )
        except Exception as error:  # onnxruntime's exceptions share no parent of their own
            raise ModelError(f"{label}: onnxruntime cannot load it: {_first_line(error)}") from error
        inputs = session.get_inputs()
        kinds = ("tensor(float)", "tensor(float16)")
        if len(inputs) != 1 or len(inputs[0].shape) != 4 or inputs[0].type not in kinds:
            found = [(i.name, i.type, i.shape) for i in inputs]
            raise ModelError(f"{label}: one float input (batch, 3, height, width) is needed; it has {found}")
        return cls(session, "cuda" if "CUDAExecutionProvider" in session.get_providers() else "cpu")

    def run(self, blob: Floats) -> list[NDArray[Any]]:
        feed = blob.astype(np.float16) if self._half else blob
        outputs: list[NDArray[Any]] = self._session.run(None, {self._input.name: feed})
        return outputs


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
