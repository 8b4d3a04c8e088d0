"""Triton's Python backend: runs model.onnx, which is beside this file, in onnxruntime. Needs numpy and onnxruntime."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

# Who runs a face detector on what machine is nobody's business; a user may set this to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort


class TritonPythonModel:
    """A network: a blob of pictures in, the head's tensors out."""

    def initialize(self, args: dict[str, str]) -> None:
        """args: what Triton says of the model, its configuration as JSON among it."""
        given = {name: value["string_value"] for name, value in json.loads(args["model_config"])["parameters"].items()}
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = int(given.get("threads", 0))
        path = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        cuda = args["model_instance_kind"] == "GPU" and "CUDAExecutionProvider" in ort.get_available_providers()
        # Left alone, it would round to 10 bits what is called float32.
        settings = {"device_id": args["model_instance_device_id"], "use_tf32": "0"}
        providers: list[Any] = [("CUDAExecutionProvider", settings)]
        self._session = ort.InferenceSession(str(path), options, [*(providers if cuda else []), "CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self._outputs = [output.name for output in self._session.get_outputs()]

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Requests that wait at the same time have pictures of one size, so all of them are one run."""
        blobs = [pb_utils.get_input_tensor_by_name(request, self._input).as_numpy() for request in requests]
        try:
            found = self._session.run(self._outputs, {self._input: np.concatenate(blobs)})
        except Exception as error:  # onnxruntime's exceptions share no parent of their own
            failure = pb_utils.TritonError(f"onnxruntime: {error}")
            return [pb_utils.InferenceResponse(error=failure) for _ in requests]
        ends = np.cumsum([len(blob) for blob in blobs])[:-1]
        parts = zip(*(np.split(array, ends) for array in found), strict=True)
        return [self._answer(arrays) for arrays in parts]

    def _answer(self, arrays: Sequence[Any]) -> Any:
        named = zip(self._outputs, arrays, strict=True)
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, np.ascontiguousarray(part)) for name, part in named])
