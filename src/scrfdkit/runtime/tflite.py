"""TFLite on the CPU, by LiteRT's interpreter: files of `scrfd export --to tflite`, and SCRFD files of others."""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from scrfdkit import certificate
from scrfdkit.errors import ModelError
from scrfdkit.machine import usable_cores
from scrfdkit.options import MAX_SIDE
from scrfdkit.runtime import tflite_check
from scrfdkit.runtime.base import Binding
from scrfdkit.types import Floats

_METADATA = b"scrfdkit"
_IDENTIFIER = b"TFL3"
_SIGNATURE = "serving_default"
_FLOATS = (np.float32, np.float16)
_WHOLE = (np.int8, np.uint8, np.int16)
_GREETING = b"INFO: Created TensorFlow Lite XNNPACK delegate"
_GREETED = threading.Event()
_GREETING_LOCK = threading.Lock()


class _Tensor:
    """An input or output of a file. scale, zero: of a quantised one, value = scale * (number - zero)."""

    def __init__(self, name: str, details: Mapping[str, Any]) -> None:
        self.name = name
        self.place = int(details["index"])
        self.dtype = np.dtype(details["dtype"])
        self.shape = tuple(int(side) for side in details["shape"])
        signature = tuple(int(side) for side in details["shape_signature"])
        self.open = tuple(side < 0 for side in signature) or (False,) * len(self.shape)
        scales, zeros = (details["quantization_parameters"][key] for key in ("scales", "zero_points"))
        self.scale = float(scales[0]) if len(scales) == 1 else 0.0
        self.zero = int(zeros[0]) if len(zeros) == 1 else 0

    def binding(self, kind: Literal["input", "output"]) -> Binding:
        """As `scrfd inspect` shows it."""
        shape = tuple("?" if free else side for side, free in zip(self.shape, self.open, strict=True))
        return Binding(self.name, kind, self.dtype.name, shape)

    def usable(self) -> bool:
        """Whether its numbers can be turned from and to float32."""
        return self.dtype in _FLOATS or (self.dtype in _WHOLE and math.isfinite(self.scale) and self.scale > 0)

    def encode(self, values: Floats) -> NDArray[Any]:
        """float32 as the file wants it."""
        if self.dtype in _FLOATS:
            return values.astype(self.dtype, copy=False)
        limits = np.iinfo(self.dtype)
        whole: NDArray[Any] = np.rint(values / self.scale) + self.zero
        return whole.clip(limits.min, limits.max).astype(self.dtype)

    def decode(self, values: NDArray[Any]) -> Floats:
        """What the file gave, as float32."""
        if self.dtype in _FLOATS:
            return values.astype(np.float32, copy=False)
        return np.asarray(np.float32(self.scale) * (values.astype(np.float32) - np.float32(self.zero)))


class _Loaded:
    """One interpreter; one run at a time."""

    def __init__(self, data: bytes, label: str, threads: int) -> None:
        try:
            self.interpreter = Interpreter(model_content=data, num_threads=threads)
            shapes = [one["shape"].tolist() for one in self.interpreter.get_input_details()]
            if any(side > MAX_SIDE for shape in shapes for side in shape):
                raise ModelError(f"{label}: inputs of shape {shapes} are larger than any picture")
            if problem := tflite_check.fault(data):
                raise ModelError(f"{label}: is damaged, or no SCRFD network: {problem}")
            allocate(self.interpreter)
            signatures = self.interpreter.get_signature_list()
            name = _SIGNATURE if _SIGNATURE in signatures else next(iter(signatures), None)
            self.runner = None if name is None else self.interpreter.get_signature_runner(name)
            self.inputs, self.outputs = self._tensors()
        except ModelError:
            raise
        except (ValueError, RuntimeError, KeyError, OverflowError, MemoryError) as error:
            raise ModelError(f"{label}: TFLite cannot load it: {_first_line(error)}") from error

    def _tensors(self) -> tuple[list[_Tensor], list[_Tensor]]:
        if self.runner is not None:
            found = self.runner.get_input_details(), self.runner.get_output_details()
            order = [one["index"] for one in self.interpreter.get_output_details()]  # signatures are sorted by name
            first, second = ([_Tensor(name, one) for name, one in side.items()] for side in found)
            return first, sorted(second, key=lambda one: order.index(one.place) if one.place in order else len(order))
        sides = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        first, second = ([_Tensor(one["name"], one) for one in side] for side in sides)
        return first, second

    def run(self, values: NDArray[Any]) -> list[NDArray[Any]]:
        """The outputs, in the order of `outputs`."""
        (given,) = self.inputs
        if self.runner is not None:
            found = self.runner(**{given.name: values})
            return [found[one.name] for one in self.outputs]
        if tuple(self.interpreter.get_input_details()[0]["shape"]) != values.shape:
            self.interpreter.resize_tensor_input(given.place, values.shape)
            self.interpreter.allocate_tensors()
        self.interpreter.set_tensor(given.place, values)
        self.interpreter.invoke()
        return [self.interpreter.get_tensor(one.place) for one in self.outputs]


class TFLiteRuntime:
    """A network on the CPU. Any number of threads may call `run` at once: each gets an interpreter of its own.

    Pictures go in channels last or first, as the file has them; quantised inputs and outputs are turned into float32.
    """

    device = "cpu"

    def __init__(self, data: bytes, label: str, threads: int | None = None) -> None:
        """data: the file. label: what errors call it. threads: of one run, None for one a core."""
        self._data, self._label, self._threads = data, label, threads or usable_cores()
        self._idle: list[_Loaded] = []
        self._lock = threading.Lock()
        with self._interpreter() as loaded:
            (self._input,), outputs = _picture_input(loaded, label), loaded.outputs
        unknown = [one.name for one in outputs if not one.usable()]
        if unknown:
            raise ModelError(f"{label}: outputs {', '.join(unknown)} are of a type that faces cannot be read from")
        shape, free = self._input.shape, self._input.open
        self._last = shape[3] == 3
        down, across = (1, 2) if self._last else (2, 3)
        self._open = free[0], free[down], free[across]
        # A side left open takes any value, so also that of the fixed one.
        sides = [0 if free[axis] else shape[axis] for axis in (across, down)]
        self.input_size = (sides[0] or sides[1], sides[1] or sides[0]) if any(sides) else None
        self.batch_size = None if free[0] else shape[0]
        self.metadata: Mapping[str, str] = _metadata(data)

    @classmethod
    def open(cls, path: str | Path, *, device: str = "cpu", threads: int | None = None) -> TFLiteRuntime:
        """Loads a .tflite file. device: the CPU is used whatever it says. Raises ModelError, naming the file."""
        path = Path(path)
        opened = cls(_read(path), str(path), threads)
        if not opened.metadata and (record := certificate.read(path)) is not None:
            opened.metadata = record.metadata
        return opened

    def run(self, blob: Floats) -> list[Floats]:
        """blob: (B, 3, H, W) float32, normalised RGB. Returns rows, or maps as NCHW whatever the file has.

        Raises ModelError where the network does not take such a blob.
        """
        if blob.ndim != 4 or blob.shape[1] != 3 or not self._takes(blob.shape):
            raise ModelError(f"{self._label}: takes {self._input.shape}, and not a blob of {blob.shape}")
        size = blob.shape[3], blob.shape[2]
        values = self._input.encode(blob.transpose(0, 2, 3, 1) if self._last else blob)
        with self._interpreter() as loaded:
            try:
                found = loaded.run(np.ascontiguousarray(values))
            except (ValueError, RuntimeError, MemoryError) as error:
                raise ModelError(
                    f"{self._label}: TFLite cannot run it on a blob of {blob.shape}: {_first_line(error)}"
                ) from error
            outputs = [one.decode(array) for one, array in zip(loaded.outputs, found, strict=True)]
        if _channels_last(outputs, size):
            outputs = [np.ascontiguousarray(np.moveaxis(array, -1, 1)) for array in outputs]
        return outputs

    def _takes(self, shape: tuple[int, ...]) -> bool:
        wanted = self._input.shape
        sides = (wanted[0], *wanted[1:3]) if self._last else (wanted[0], *wanted[2:4])
        given = shape[0], shape[2], shape[3]
        return all(free or a == b for free, a, b in zip(self._open, given, sides, strict=True))

    @contextmanager
    def _interpreter(self) -> Iterator[_Loaded]:
        """One that no other thread uses; what broke is not used again."""
        with self._lock:
            loaded = self._idle.pop() if self._idle else None
        loaded = loaded or _Loaded(self._data, self._label, self._threads)
        yield loaded
        with self._lock:
            self._idle.append(loaded)


open_model = TFLiteRuntime.open


def bindings(path: str | Path) -> list[Binding]:
    """Inputs and outputs of a file: of its signature, or of its graph if it has none. Raises ModelError."""
    loaded = _Loaded(_read(Path(path)), str(path), 1)
    return [*(one.binding("input") for one in loaded.inputs), *(one.binding("output") for one in loaded.outputs)]


def allocate(interpreter: Interpreter) -> None:
    """As its `allocate_tensors`, without the greeting that the first one of a process writes to standard error.

    Whatever else is written there meanwhile, by any thread, is written again. Raises ValueError or RuntimeError.
    """
    with _GREETING_LOCK:
        if _GREETED.is_set():
            caught = None
        else:
            caught = _catch_stderr()
            _GREETED.set()
        try:
            interpreter.allocate_tensors()
        finally:
            if caught is not None:
                _give_back(*caught)


def _catch_stderr() -> tuple[int, Any] | None:
    """The real standard error and the file that has its place; None where there is none."""
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
    try:
        real, file = os.dup(2), tempfile.TemporaryFile()  # noqa: SIM115 - closed by _give_back
        os.dup2(file.fileno(), 2)
    except OSError:
        return None
    return real, file


def _give_back(real: int, file: Any) -> None:
    with suppress(OSError, ValueError, AttributeError):
        sys.stderr.flush()
    os.dup2(real, 2)
    os.close(real)
    with file:
        file.seek(0)
        rest = b"".join(line for line in file if not line.startswith(_GREETING))
    if rest:
        os.write(2, rest)


def _picture_input(loaded: _Loaded, label: str) -> list[_Tensor]:
    inputs = loaded.inputs
    picture = len(inputs) == 1 and len(inputs[0].shape) == 4 and 3 in (inputs[0].shape[1], inputs[0].shape[3])
    if not picture or not inputs[0].usable():
        found = [(one.name, one.dtype.name, one.shape) for one in inputs]
        raise ModelError(
            f"{label}: one float or quantised input (batch, height, width, 3) or (batch, 3, height, width) is needed;"
            f" it has {found}"
        )
    return inputs


def _channels_last(outputs: list[Floats], size: tuple[int, int]) -> bool:
    """Whether maps are (B, h, w, C). One output may fit both ways, but not a whole head."""
    cells = [(-(-size[1] // stride), -(-size[0] // stride)) for stride in (8, 16, 32, 64, 128)]
    if not outputs or any(array.ndim != 4 for array in outputs):
        return False
    return all(array.shape[1:3] in cells for array in outputs) and not all(a.shape[2:] in cells for a in outputs)


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    if data[4:8] != _IDENTIFIER:
        raise ModelError(f"{path}: is no TFLite file, or its beginning is damaged")
    return data


def _metadata(data: bytes) -> dict[str, str]:
    """What the file says of itself, {} if nothing. The interpreter has found the file to be well formed before."""
    model = schema.Model.GetRootAs(data, 0)
    for entry in (model.Metadata(i) for i in range(model.MetadataLength())):
        if entry is None or entry.Name() != _METADATA or entry.Buffer() >= model.BuffersLength():
            continue
        try:
            found = json.loads(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes())
        except (ValueError, AttributeError, RecursionError):
            return {}
        if isinstance(found, dict) and all(isinstance(value, str) for value in found.values()):
            return found
    return {}


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
