"""TensorRT and TensorRT-RTX: engines on NVIDIA GPUs, with PyTorch for the GPU's memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrfdkit.errors import DeviceError, ModelError
from scrfdkit.runtime.base import Binding
from scrfdkit.runtime.engine import RTX, Engine, Library, gpu, library_of, recorded
from scrfdkit.types import Floats

Range = tuple[tuple[int, ...], tuple[int, ...]]
"""Smallest and largest (B, 3, H, W) of an optimisation profile."""


class TensorRTRuntime:
    """One engine with one execution context; threads take turns.

    device: "cuda". input_size, batch_size: None where the engine takes a range. size_range: smallest and largest
    (width, height). metadata: of the certificate.
    """

    device = "cuda"

    def __init__(self, path: Path, library: Library, engine: Any, metadata: Mapping[str, str]) -> None:
        """engine: an ICudaEngine with one picture-like input. Raises ModelError."""
        import torch

        self._path, self._library, self._engine = path, library, engine
        self._input, self._ranges = _input_of(path, library, engine)
        self._outputs = [name for name in _names(engine) if name != self._input]
        self._context = engine.create_execution_context()
        if self._context is None:
            raise ModelError(f"{path}: {library.name} cannot prepare it: {library.complaint()}")
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._lock = Lock()
        least, most = (np.array(side) for side in zip(*self._ranges, strict=True))
        low, high = least.min(axis=0).tolist(), most.max(axis=0).tolist()
        self.batch_size: int | None = low[0] if low[0] == high[0] else None
        self.input_size: tuple[int, int] | None = (low[3], low[2]) if low[2:] == high[2:] else None
        self.size_range = ((low[3], low[2]), (high[3], high[2]))
        self.metadata = metadata

    @classmethod
    def open(cls, path: str | Path, *, device: str = "auto", threads: int | None = None) -> TensorRTRuntime:
        """Loads an engine. threads: has no meaning on a GPU.

        Raises DeviceError without a GPU that it was built for, ModelError for a damaged or foreign file and one of
        another version, MissingExtraError.
        """
        path = Path(path)
        if device == "cpu":
            raise DeviceError(f"device: {path.name} is a TensorRT engine, which runs on an NVIDIA GPU only")
        library, engine, metadata = _load(path)
        return cls(path, library, engine, metadata)

    def run(self, blob: Floats) -> list[NDArray[Any]]:
        """blob: (B, 3, H, W) float32 of a size that the engine was built for, any B: larger batches than it takes are
        cut, smaller ones filled up. Returns float32 arrays. Raises ModelError for another size."""
        index = choose(self._ranges, blob.shape)
        if index is None:
            sizes = " or ".join(_told(span) for span in self._ranges)
            raise ModelError(f"{self._path}: a blob of {blob.shape} does not fit; the engine was built for {sizes}")
        least, most = (shape[0] for shape in self._ranges[index])
        found = []
        for part, count in parts(blob, least, most):
            with self._lock:
                outputs = self._run(part, index)
            found.append(outputs if count == len(part) else [array[:count] for array in outputs])
        return found[0] if len(found) == 1 else [np.concatenate(arrays) for arrays in zip(*found, strict=True)]

    def _run(self, blob: Floats, index: int) -> list[NDArray[Any]]:
        import torch

        context, stream, kind = self._context, self._stream.cuda_stream, self._library.dtype
        with torch.cuda.stream(self._stream):
            if context.active_optimization_profile != index:
                context.set_optimization_profile_async(index, stream)
            given = torch.from_numpy(np.require(blob, requirements=("C", "W"))).cuda()
            tensors = {self._input: given.to(getattr(torch, kind(self._engine.get_tensor_dtype(self._input))))}
            ready = context.set_input_shape(self._input, blob.shape)
            shapes = {name: tuple(context.get_tensor_shape(name)) for name in self._outputs} if ready else {}
            ready = ready and all(min(shape, default=0) >= 0 for shape in shapes.values())
            for name, shape in shapes.items() if ready else ():
                dtype = getattr(torch, kind(self._engine.get_tensor_dtype(name)))
                tensors[name] = torch.empty(shape, dtype=dtype, device="cuda")
            for name, tensor in tensors.items():
                ready = ready and context.set_tensor_address(name, tensor.data_ptr())
            if not (ready and context.execute_async_v3(stream)):
                raise ModelError(f"{self._path}: cannot be run on {blob.shape}: {self._library.complaint()}")
            outputs = [tensors[name].float().cpu().numpy() for name in self._outputs]
        self._stream.synchronize()
        return outputs


open_model = TensorRTRuntime.open


def bindings(path: str | Path) -> list[Binding]:
    """Inputs and outputs of an engine, from its certificate where it has one: that needs no GPU. Raises ModelError,
    DeviceError, MissingExtraError."""
    path = Path(path)
    known = recorded(path)[1]
    if known is not None:
        return list(known.bindings)
    library, engine, _ = _load(path)
    return [_binding(library, engine, name) for name in _names(engine)]


def choose(ranges: Sequence[Range], shape: tuple[int, ...]) -> int | None:
    """The first profile that takes pictures of such a size, whatever their number; None if there is none."""
    if len(shape) != 4 or not shape[0]:
        return None
    for index, (least, most) in enumerate(ranges):
        if all(low <= side <= high for low, side, high in zip(least[1:], shape[1:], most[1:], strict=True)):
            return index
    return None


def parts(blob: Floats, least: int, most: int) -> Iterator[tuple[Floats, int]]:
    """A batch in runs of `least` to `most` pictures, filled up with blank ones, and how many of each count."""
    for start in range(0, len(blob), most):
        part = blob[start : start + most]
        missing = np.zeros((max(0, least - len(part)), *blob.shape[1:]), blob.dtype)
        yield (np.concatenate([part, missing]) if len(missing) else part), len(part)


def _load(path: Path) -> tuple[Library, Any, Mapping[str, str]]:
    metadata, known = recorded(path)
    library = library_of(path, known)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    runtime = None
    if library.name == RTX:  # its runtime can be had without a GPU, and knows its own files
        runtime = library.module.Runtime(library.logger())
        _check_header(path, library, runtime, data)
    name, capability = gpu(path)
    if known is not None and library.name != RTX and capability not in known.gpus:
        here = f"{name}, SM {capability}"
        raise DeviceError(f"{path}: was built by {known.describe()}; this is a {here}: export it again for it")
    if runtime is None:
        runtime = library.module.Runtime(library.logger())
    else:
        _check_fit(path, known, library, runtime, data, f"{name}, SM {capability}")
    library.complaint()
    engine = runtime.deserialize_cuda_engine(data)
    if engine is None:
        raise ModelError(f"{path}: {library.name} {library.version} cannot load it: {library.complaint()}")
    return library, engine, metadata


def _diagnosis(library: Library, runtime: Any, data: bytes) -> set[str]:
    """What the header alone shows to be wrong, in TensorRT-RTX's words."""
    validity, found = runtime.get_engine_validity(data)
    library.complaint()
    if validity != library.module.EngineValidity.INVALID:
        return set()
    return {kind.name for kind in library.module.EngineInvalidityDiagnostics.__members__.values() if found & kind.value}


def _check_header(path: Path, library: Library, runtime: Any, data: bytes) -> None:
    found = _diagnosis(library, runtime, data)
    if "MALFORMED_ENGINE" in found:
        raise ModelError(f"{path}: is no engine that {library.name} {library.version} knows; export it again")
    if "VERSION_MISMATCH" in found:
        raise ModelError(
            f"{path}: was built by another version than {library.name} {library.version}, which is installed here:"
            " export it again"
        )


def _check_fit(path: Path, known: Engine | None, library: Library, runtime: Any, data: bytes, here: str) -> None:
    found = _diagnosis(library, runtime, data)
    if "UNSUPPORTED_CC" in found:
        built = f"was built by {known.describe()}" if known else "was built for other GPUs"
        raise DeviceError(f"{path}: {built}; this is a {here}: export it again for it")
    if found:
        reasons = ", ".join(sorted(word.lower().replace("_", " ") for word in found))
        raise DeviceError(f"{path}: {library.name} {library.version} cannot run it on the {here}: {reasons}")


def _names(engine: Any) -> list[str]:
    return [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]


def _input_of(path: Path, library: Library, engine: Any) -> tuple[str, list[Range]]:
    """Name of the only input, and its range in every profile."""
    found = [_binding(library, engine, name) for name in _names(engine)]
    inputs = [b for b in found if b.kind == "input"]
    good = len(inputs) == 1 and len(inputs[0].shape) == 4 and inputs[0].dtype in ("float32", "float16", "bfloat16")
    if not good or inputs[0].least[1] != 3:
        told = [(b.name, b.dtype, b.shape) for b in inputs]
        raise ModelError(f"{path}: one float input (batch, 3, height, width) is needed; it has {told}")
    return inputs[0].name, [(span[0], span[2]) for span in _spans(engine, inputs[0].name)]


def _spans(engine: Any, name: str) -> list[tuple[tuple[int, ...], ...]]:
    """Least, best and largest shape of an input in every profile; the same three times where it has only one."""
    shape = tuple(map(int, engine.get_tensor_shape(name)))
    if min(shape, default=0) >= 0:
        return [(shape, shape, shape)]
    profiles = range(engine.num_optimization_profiles)
    return [tuple(tuple(map(int, dims)) for dims in engine.get_tensor_profile_shape(name, i)) for i in profiles]


def _binding(library: Library, engine: Any, name: str) -> Binding:
    shape = tuple("?" if side < 0 else int(side) for side in engine.get_tensor_shape(name))
    dtype = library.dtype(engine.get_tensor_dtype(name))
    if engine.get_tensor_mode(name) != library.module.TensorIOMode.INPUT:
        return Binding(name, "output", dtype, shape)
    least, best, most = _spans(engine, name)[0]
    return Binding(name, "input", dtype, shape, least, best, most)


def _told(span: Range) -> str:
    (_, _, low, left), (_, _, high, right) = span
    return f"{left}x{low}" if (left, low) == (right, high) else f"{left}x{low} to {right}x{high}"
