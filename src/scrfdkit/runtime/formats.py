"""Which runtime opens which file: a row each, and what goes by them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

from scrfdkit import certificate
from scrfdkit.errors import MissingExtraError, ModelError
from scrfdkit.machine import package_version
from scrfdkit.runtime.base import Binding, Runtime


@dataclass(frozen=True)
class Format:
    """A runtime. name: as users name it. suffixes: of the files that it reads; the first row with a suffix is what
    such files are opened by. module: of this room, with the functions `open_model` and `bindings`. extra: brings what
    the module imports, package: the main one of these. scheme: of the addresses that it takes instead of files.
    """

    name: str
    suffixes: tuple[str, ...]
    module: str
    package: str
    extra: str = ""
    scheme: str = ""

    def load(self) -> ModuleType:
        """The module. Raises MissingExtraError where a package is not installed."""
        try:
            return import_module(f"scrfdkit.runtime.{self.module}")
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"the {self.name} runtime", self.extra, error.name or self.name) from None


FORMATS = (
    Format("onnxruntime", (".onnx",), "ort", "onnxruntime"),
    Format("pytorch", (".safetensors", ".pth", ".onnx"), "pytorch", "torch", "torch"),
    Format("torchscript", (".torchscript", ".ts", ".pt"), "torchscript", "torch", "torch"),
    Format("torchexport", (".pt2",), "exported", "torch", "torch"),
    Format("openvino", (".xml", ".onnx"), "openvino", "openvino", "openvino"),
    Format("opencv", (".onnx",), "opencv", "opencv-python-headless"),
    Format("ncnn", (".param",), "ncnn", "ncnn", "ncnn"),
    Format("tflite", (".tflite",), "tflite", "ai-edge-litert", "tflite"),
    Format("tensorrt", (".engine", ".plan", ".trt"), "tensorrt", "tensorrt-rtx", "tensorrt"),
    Format("triton", (), "triton", "tritonclient", "triton", "triton"),
)
RUNTIMES = tuple(row.name for row in FORMATS)
SUFFIXES = tuple(dict.fromkeys(suffix for row in FORMATS for suffix in row.suffixes))


def is_address(model: str | Path) -> bool:
    """Whether it names a network on a server, and not a file."""
    return isinstance(model, str) and "://" in model


def choose(model: str | Path, runtime: str | None = None) -> Format:
    """The runtime for a file or address: the one that is named, else the first that takes it. Raises ModelError."""
    rows = [row for row in FORMATS if runtime in (None, row.name)]
    if is_address(model):
        scheme = str(model).partition("://")[0]
        found = [row for row in rows if row.scheme and scheme.split("+")[0] == row.scheme]
    else:
        found = [row for row in rows if Path(model).suffix in row.suffixes]
    if found:
        return found[0]
    known = list(dict.fromkeys(suffix for row in rows for suffix in row.suffixes))
    known += [f"{row.scheme}://" for row in rows if row.scheme]
    if runtime is None:
        raise ModelError(f"{model}: is of no known kind; these can be opened: {', '.join(known)}")
    raise ModelError(f"{model}: {runtime} reads {', '.join(known)}; leave the runtime out to let the file choose it")


def version(model: str | Path, runtime: str | None = None) -> str:
    """What would run a file, in words: a runtime and the version of its package."""
    row = choose(model, runtime)
    return f"{row.name} {package_version(row.package) or ''}".strip()


def open_runtime(
    model: str | Path, runtime: str | None = None, device: str = "auto", threads: int | None = None
) -> Runtime:
    """Opens a network file, after comparing it with its certificate if it has one, or connects to a server.

    runtime: one of RUNTIMES, or None for the file's own. device: "auto", "cpu" or "cuda"; a runtime may fall back to
    the CPU. threads: of one run, None for one a core. Raises ModelError, WeightError, DeviceError or MissingExtraError.
    """
    row = choose(model, runtime)
    if not is_address(model):
        certificate.check(Path(model))
    opened: Runtime = row.load().open_model(model, device=device, threads=threads)
    return opened


def bindings(model: str | Path, runtime: str | None = None) -> list[Binding]:
    """Inputs and outputs of a network file or of a network on a server. Raises as `open_runtime`."""
    row = choose(model, runtime)
    if not is_address(model):
        certificate.check(Path(model))
    found: list[Binding] = row.load().bindings(model)
    return found
