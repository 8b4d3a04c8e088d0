"""onnxruntime: the default runtime, for any SCRFD ONNX file.

onnxruntime is imported here and nowhere else, because it collects telemetry from its import on unless told not to.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import platformdirs
from numpy.typing import NDArray

# Who has opened a face detector on what machine is nobody's business; a user may set this to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

from scrfdkit.atomic import make_folder
from scrfdkit.errors import ModelError, ScrfdError
from scrfdkit.runtime.base import Binding
from scrfdkit.runtime.inputs import picture_input
from scrfdkit.types import Floats

__all__ = ["OrtRuntime", "bindings", "engine_cache", "open_model", "ort", "start"]

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8", "tensor(int64)": "int64"}
_TENSORRT, _CUDA = "TensorrtExecutionProvider", "CUDAExecutionProvider"
_DEVICES = {_TENSORRT: "tensorrt", _CUDA: "cuda"}
_ERRORS_ONLY = 3  # old exports declare the output sizes of 640x640, and onnxruntime warns at every other size


class OrtRuntime:
    """One onnxruntime session. device: what it really runs on, "cpu", "cuda" or "tensorrt"."""

    def __init__(self, session: ort.InferenceSession, label: str = "the ONNX bytes") -> None:
        """label: of the network, for messages. Raises ModelError if it has not one picture-like input."""
        inputs = _bindings(session.get_inputs(), "input")
        self.metadata: Mapping[str, str] = session.get_modelmeta().custom_metadata_map
        self.input_size, self.batch_size = picture_input(label, inputs, self.metadata)
        self.device = next((_DEVICES[name] for name in session.get_providers() if name in _DEVICES), "cpu")
        self._session = session
        self._name, self._dtype = inputs[0].name, np.dtype(inputs[0].dtype)

    @classmethod
    def open(cls, model: Path | bytes, *, device: str = "cpu", threads: int | None = None) -> OrtRuntime:
        """Loads an ONNX file or its content.

        device: "cpu", "cuda", "tensorrt", or "auto" for CUDA where this onnxruntime has it. The session may still fall
        back, from TensorRT to CUDA and from there to the CPU; `device` of the result says what it did. TensorRT builds
        an engine at the first run of each size, which takes minutes, and keeps it in the user's cache folder.
        threads: inside one run, None for one a core.
        Raises ModelError, naming the file, if it is no ONNX network with one picture-like input.
        """
        options = ort.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.intra_op_num_threads = threads or 0
        options.inter_op_num_threads = 1
        return cls(start(model, options, _providers(device)), _label(model))

    def run(self, blob: Floats) -> list[NDArray[Any]]:
        """Raises ModelError where onnxruntime cannot run the network on such a blob."""
        feed = blob.astype(self._dtype, copy=False)
        try:
            outputs: list[NDArray[Any]] = self._session.run(None, {self._name: feed})
        except Exception as error:
            raise ModelError(f"onnxruntime cannot run it on a blob of {blob.shape}: {_first_line(error)}") from error
        return outputs


def start(
    model: Path | bytes, options: ort.SessionOptions | None = None, providers: list[Any] | None = None
) -> ort.InferenceSession:
    """A session, on the CPU unless told otherwise. Raises ModelError where onnxruntime refuses the network."""
    label = _label(model)
    if options is None:
        options = ort.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
    content = model if isinstance(model, bytes) else str(model)
    try:
        session = ort.InferenceSession(content, options, providers=providers or ["CPUExecutionProvider"])
        # What is no text shows only when it is asked for.
        session.get_modelmeta().custom_metadata_map.keys()
        [value.name for value in (*session.get_inputs(), *session.get_outputs())].sort()
    except Exception as error:  # onnxruntime's exceptions share no parent of their own
        raise ModelError(f"{label}: onnxruntime cannot load it: {_first_line(error)}") from error
    return session


open_model = OrtRuntime.open


def bindings(path: Path) -> list[Binding]:
    """Inputs and outputs of an ONNX file. Raises ModelError."""
    session = start(path)
    return [*_bindings(session.get_inputs(), "input"), *_bindings(session.get_outputs(), "output")]


def engine_cache() -> Path | None:
    """The folder that TensorRT's engines are kept in, made if need be; None where none can be written to."""
    folder = Path(platformdirs.user_cache_path("scrfdkit")) / "tensorrt"
    try:
        make_folder(folder)
    except ScrfdError:
        return None
    return folder


def _providers(device: str) -> list[Any]:
    """What to run on, the best first; only what this onnxruntime was built with, as it warns about the rest."""
    wanted: list[Any] = ["CPUExecutionProvider"]
    there = ort.get_available_providers()
    if device in ("auto", "cuda", "tensorrt") and _CUDA in there:
        wanted.insert(0, (_CUDA, {"use_tf32": "0"}))  # it rounds to 10 bits what is called float32
    if device == "tensorrt" and _TENSORRT in there:
        wanted.insert(0, (_TENSORRT, _tensorrt_options()))
    return wanted


def _tensorrt_options() -> dict[str, str]:
    """Engines and timings are kept for the next start.

    What a file has in float32 TensorRT computes in TF32 on GPUs that can: onnxruntime has no option against that, but
    the environment variable NVIDIA_TF32_OVERRIDE=0, set before the process starts, is one.
    """
    folder = engine_cache()
    if folder is None:
        return {}
    kinds = ("engine", "timing")
    return {f"trt_{kind}_cache_enable": "1" for kind in kinds} | {f"trt_{k}_cache_path": str(folder) for k in kinds}


def _bindings(values: Iterable[Any], kind: Literal["input", "output"]) -> list[Binding]:
    return [
        Binding(v.name, kind, _DTYPES.get(v.type, v.type), tuple("?" if side is None else side for side in v.shape))
        for v in values
    ]


def _label(model: Path | bytes) -> str:
    return "the ONNX bytes" if isinstance(model, bytes) else str(model)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
