"""What is known of a TensorRT engine before it is loaded, and the library that it needs: TensorRT or TensorRT-RTX.

Both have the same API under two names. An engine is for one of them, in one version, and for certain GPUs; the file
itself tells none of that in a documented way, so its certificate does.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from scrfdkit import certificate
from scrfdkit.errors import DeviceError, MissingExtraError, ModelError
from scrfdkit.runtime.base import Binding

TENSORRT, RTX = "TensorRT", "TensorRT-RTX"
KEY = "engine"
"""Of what `Engine.to_json` gives, in the metadata of a certificate."""

_MODULES = {TENSORRT: "tensorrt", RTX: "tensorrt_rtx"}  # the first that is installed builds
_RTX_MAGIC = b"vtrt"
_DTYPES = {
    "FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT8": "int8", "INT32": "int32", "INT64": "int64",
    "UINT8": "uint8", "BOOL": "bool",
}  # fmt: skip


@dataclass(frozen=True)
class Engine:
    """library: TENSORRT or RTX. version: of it. gpus: compute capabilities, such as "8.9"; none for all that the
    library builds for unless told otherwise. bindings: inputs and outputs, with the shapes of the profile.
    """

    library: str
    version: str
    gpus: tuple[str, ...]
    bindings: tuple[Binding, ...]

    def to_json(self) -> str:
        """An object with the fields."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Engine:
        """Reads what `to_json` writes. Raises ValueError for anything else."""
        try:
            data = json.loads(text)
            found = tuple(_binding(**row) for row in data["bindings"])
            made = Engine(data["library"], data["version"], tuple(data["gpus"]), found)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{error} is missing or of the wrong kind") from None
        if made.library not in _MODULES:
            raise ValueError(f"{made.library!r} is neither {TENSORRT} nor {RTX}")
        return made

    def describe(self) -> str:
        """In words."""
        where = f"SM {', '.join(self.gpus)}" if self.gpus else "SM 8.0 and later"
        return f"{self.library} {self.version} for {where}"


def _binding(name: str, kind: Any, dtype: str, **shapes: Any) -> Binding:
    return Binding(name, kind, dtype, **{key: tuple(shape) for key, shape in shapes.items()})


@dataclass(frozen=True)
class Library:
    """An installed TensorRT. name: TENSORRT or RTX."""

    name: str
    module: ModuleType

    @property
    def version(self) -> str:
        """Major, minor, patch and build."""
        return str(self.module.__version__)

    def logger(self) -> Any:
        """The one logger of this process, as TensorRT keeps only the first; `complaint` tells what it heard."""
        return _logger(self.name)

    def complaint(self, otherwise: str = "no reason was given") -> str:
        """The first error since the last call, on one line."""
        heard = self.logger().heard
        words = " ".join(heard[0].split()) if heard else otherwise
        heard.clear()
        return words

    def dtype(self, value: Any) -> str:
        """A DataType as numpy names it."""
        return _DTYPES.get(value.name, str(value.name).lower())


def library(name: str | None = None) -> Library:
    """The library of that name, or the first of both that is installed. Raises MissingExtraError, and ModelError where
    only the one that is not in a registry of packages will do."""
    for known, module in _MODULES.items():
        if name in (None, known):
            try:
                return Library(known, import_module(module))
            except (ImportError, OSError, RuntimeError):  # also for a library of the system that it lacks
                continue
    if name == TENSORRT:
        raise ModelError(
            "the engine was built by TensorRT, and the Python package tensorrt is not installed; NVIDIA's own index has"
            " it, or export the network again for what is installed here"
        )
    raise MissingExtraError("TensorRT", "tensorrt", "tensorrt-rtx")


@cache
def _logger(name: str) -> Any:
    module = library(name).module

    class Logger(module.ILogger):  # type: ignore[name-defined,misc]
        """Keeps errors instead of printing them."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.heard: deque[str] = deque(maxlen=8)

        def log(self, severity: Any, message: str) -> None:
            if severity in (module.ILogger.ERROR, module.ILogger.INTERNAL_ERROR):
                self.heard.append(message)

    return Logger()


def recorded(path: Path) -> tuple[Mapping[str, str], Engine | None]:
    """Metadata of an engine and what is known of it, from its certificate; nothing where there is none.

    Raises ModelError for a damaged certificate.
    """
    record = certificate.read(path)
    if record is None:
        return {}, None
    if KEY not in record.metadata:
        return record.metadata, None
    try:
        return record.metadata, Engine.from_json(record.metadata[KEY])
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{certificate.beside(path)}: what it says of the engine cannot be read: {error}") from None


def library_of(path: Path, known: Engine | None) -> Library:
    """The library to load an engine with. Raises ModelError where it was built by another version."""
    if known is not None:
        found = library(known.library)
        if found.version != known.version:
            raise ModelError(
                f"{path}: was built by {known.describe()}; this is {found.name} {found.version}, and an engine is for"
                " one version only: export it again"
            )
        return found
    try:
        with path.open("rb") as file:
            magic = file.read(len(_RTX_MAGIC))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    # TensorRT's version-compatible engines begin like those of TensorRT-RTX.
    for name in (RTX, None) if magic == _RTX_MAGIC else (None,):
        try:
            return library(name)
        except MissingExtraError:
            continue
    raise MissingExtraError("TensorRT", "tensorrt", "tensorrt-rtx")


def gpu(path: Path) -> tuple[str, str]:
    """Name and compute capability of the GPU that would run an engine. Raises DeviceError or MissingExtraError."""
    try:
        import torch

        from scrfdkit.runtime.torch_device import choose_device
    except ModuleNotFoundError:
        raise MissingExtraError("the tensorrt runtime", "tensorrt", "torch") from None
    if choose_device("cuda") != "cuda":
        why = "finds none that works" if torch.version.cuda else "is a build without CUDA"
        raise DeviceError(f"{path.name}: TensorRT engines are for NVIDIA GPUs, and the installed PyTorch {why}")
    return torch.cuda.get_device_name(), ".".join(map(str, torch.cuda.get_device_capability()))
