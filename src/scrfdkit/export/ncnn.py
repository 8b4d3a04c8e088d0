"""ncnn: a .param and a .bin file, converted by pnnx from a trace of the network."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from scrfdkit import atomic
from scrfdkit.errors import MissingExtraError, ModelError, OptionError
from scrfdkit.export.contract import Contract
from scrfdkit.export.heads import BLOB
from scrfdkit.export.order import Order, Target
from scrfdkit.export.source import Source
from scrfdkit.export.torch_modules import Maps, layout_module, trace
from scrfdkit.layout import head_names
from scrfdkit.runtime.ncnn_file import Graph, Layer, read_param

_TRACED = (64, 96)
"""Height and width of what the network is traced with; nothing of them stays in the file."""
_SECONDS = 900


def write(source: Source, path: Path, order: Order) -> None:
    """Writes the .param file and the .bin file of the same stem beside it.

    Blobs get the names of the official ONNX files. Raises OptionError for more than one picture a run,
    MissingExtraError without pnnx, ModelError with its last words where it fails.
    """
    contract = order.contract
    if contract.batch != 1:
        raise OptionError(f"batch: ncnn takes one picture a run, not {contract.batch}")
    module = layout_module(source.net, source.info.spec, contract)
    assert isinstance(module, Maps)
    with TemporaryDirectory(prefix="scrfdkit-") as folder:
        param = _convert(module, Path(folder), half=order.precision == "fp16")
        graph = _renamed(read_param(param), head_names(source.info.spec), contract)
        weights = param.with_suffix(".bin").read_bytes()
    atomic.save(path.with_suffix(".bin"), weights)
    atomic.save(path, graph.text().encode())


def _convert(module: Maps, folder: Path, *, half: bool) -> Path:
    """Runs pnnx in a folder, which it fills with files of its own; gives the .param file."""
    traced = trace(module, torch.zeros(1, 3, *_TRACED))
    traced.save(str(folder / "net.pt"))
    shape = ",".join(map(str, (1, 3, *_TRACED)))
    command = [_pnnx(), "net.pt", f"inputshape=[{shape}]f32", f"fp16={int(half)}"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", check=False, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelError(f"pnnx: cannot be run: {error}") from None
    param = folder / "net.ncnn.param"
    if done.returncode or not atomic.is_file(param):
        words = " / ".join((done.stdout + done.stderr).strip().splitlines()[-3:])
        raise ModelError(f"pnnx: cannot convert the network, and ends with {done.returncode}: {words}")
    return param


def _pnnx() -> str:
    """The program that the package carries."""
    try:
        import pnnx
    except ImportError:
        raise MissingExtraError("exporting to ncnn", "ncnn", "pnnx") from None
    return str(pnnx.EXEC_PATH)


def _renamed(graph: Graph, names: list[str], contract: Contract) -> Graph:
    """With the official files' names instead of in0, out0 and so on, and the size if it is fixed."""
    known = {"in0": BLOB} | {f"out{i}": name for i, name in enumerate(names)}
    if not set(known) <= {graph.input, *graph.outputs}:
        raise ModelError(f"pnnx: made the outputs {', '.join(graph.outputs)}, and {len(names)} in a row are needed")
    fixed = dict(enumerate(map(str, (*contract.size, 3)))) if contract.size else {}

    def renamed(layer: Layer) -> Layer:
        sources, results = (tuple(known.get(n, n) for n in side) for side in (layer.sources, layer.results))
        return replace(layer, sources=sources, results=results)

    first, *rest = map(renamed, graph.layers)
    return Graph((replace(first, settings=fixed), *rest), tuple(known.get(n, n) for n in graph.outputs))


TARGET = Target(
    name="ncnn",
    suffix=".param",
    layouts=("maps",),
    precisions=("fp32", "fp16"),
    open_size=True,
    open_batch=False,
    write=write,
)
