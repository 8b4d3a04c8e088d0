"""The letterbox of a model repository without a server: what it refuses before it takes memory for it.

Triton's module for Python models is only inside the server; what the letterbox uses of it stands here in its place.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from importlib.resources import files
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest
from export_files import SPECS

PIXEL = cv2.imencode(".png", np.zeros((1, 1, 3), np.uint8))[1].tobytes()


class Server(ModuleType):
    class TritonError(Exception):
        INVALID_ARG = 3

        def __init__(self, message: str, code: int) -> None:
            super().__init__(message)
            assert code == self.INVALID_ARG

    class Tensor:
        def __init__(self, name: str, array: Any) -> None:
            self.name, self.array = name, array

        def as_numpy(self) -> Any:
            return self.array

    class InferenceResponse:
        def __init__(self, tensors: Any = (), error: Exception | None = None) -> None:
            self.arrays, self.error = {tensor.name: tensor.array for tensor in tensors}, error

    @staticmethod
    def triton_string_to_numpy(name: str) -> type:
        return {"TYPE_FP32": np.float32, "TYPE_FP16": np.float16}[name]

    @staticmethod
    def get_input_tensor_by_name(request: Request, name: str) -> Any:
        assert name == "picture"
        return Server.Tensor(name, np.array(request.files, object)[:, None])


class Request:
    def __init__(self, files: list[bytes], **parameters: Any) -> None:
        self.files, self.parameters = files, lambda: json.dumps(parameters)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", Server("triton_python_backend_utils"))
    path = files("scrfdkit") / "assets" / "triton" / "letterbox.py"
    spec = importlib.util.spec_from_file_location("letterbox_of_triton", str(path))
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def model(module: Any, fixed: bool = False, **changes: str) -> Any:
    given = {
        "spec": SPECS["basic, bn"].to_json(),
        "input_size": "64x32",
        "max_pixels": "1000000",
        "max_side": "2048",
        **changes,
    }
    config = {
        "parameters": {name: {"string_value": value} for name, value in given.items()},
        "output": [{"name": "blob", "dims": [3, 32, 64] if fixed else [3, -1, -1], "data_type": "TYPE_FP32"}],
    }
    one = module.TritonPythonModel()
    one.initialize({"model_config": json.dumps(config)})
    return one


def test_sizes_up_to_the_limit(module: Any) -> None:
    one = model(module)
    answers = one.execute(
        [Request([PIXEL]), Request([PIXEL] * 2, input_size="2048x32"), Request([PIXEL], input_size=96)]
    )
    assert [answer.error for answer in answers] == [None] * 3
    assert [answer.arrays["blob"].shape for answer in answers] == [(1, 3, 32, 64), (2, 3, 32, 2048), (1, 3, 96, 96)]
    assert answers[0].arrays["placement"].tolist() == [[32, 32, 64, 32, 32, 32, 1, 1]]


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ("16384", "input_size: 16384x16384 is over the limit of 2048, max_side in the server's configuration"),
        ("16384x32", "input_size: 16384x32 is over the limit of 2048"),
        ("2080", "input_size: 2080x2080 is over the limit of 2048"),
        ("9" * 5000, "is not 'auto'"),
        ("65536", "input_size: 65536 is over 16384"),
        ([640], "is not 'auto'"),
    ],
)
def test_sizes_that_are_refused(module: Any, size: Any, words: str) -> None:
    bad, good = model(module).execute([Request([PIXEL], input_size=size), Request([PIXEL])])
    assert words in str(bad.error)
    assert good.error is None


def test_the_limit_is_of_the_configuration(module: Any) -> None:
    assert model(module, max_side="4096").execute([Request([PIXEL], input_size="32x4096")])[0].error is None
    assert "limit of 320" in str(model(module, max_side="320").execute([Request([PIXEL], input_size=352)])[0].error)
    wide = cv2.imencode(".png", np.zeros((40, 3000, 3), np.uint8))[1].tobytes()
    assert "3008x64 is over" in str(model(module).execute([Request([wide], input_size="original")])[0].error)
    assert model(module, fixed=True, max_side="32").execute([Request([PIXEL])])[0].error is None


def test_no_memory_is_an_answer_too(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(module.steps, "preprocess", full)
    (answer,) = model(module).execute([Request([PIXEL])])
    assert "there is no memory for these pictures" in str(answer.error)
