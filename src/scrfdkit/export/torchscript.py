"""TorchScript and torch.export: programs that torch runs without this package."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scrfdkit import atomic
from scrfdkit.errors import ModelError
from scrfdkit.export.contract import MAX_BATCH, Contract
from scrfdkit.export.faces import Faces as FoundFaces
from scrfdkit.export.faces import compare_faces
from scrfdkit.export.measure import TOLERANCES
from scrfdkit.export.order import Order, Target
from scrfdkit.export.parity import Parity
from scrfdkit.export.reference import Reference
from scrfdkit.export.source import Source
from scrfdkit.export.torch_modules import Faces, Suppression, TracedSuppression, layout_module, trace
from scrfdkit.letterbox import MULTIPLE
from scrfdkit.options import MAX_SIDE
from scrfdkit.runtime.torch_archive import EXTRA, load_exported, load_script
from scrfdkit.runtime.torch_device import choose_device
from scrfdkit.types import Image

_USUAL = (2, 64, 96)
"""Pictures, height and width of what programs are traced with; none of it stays in an open one."""


def write_script(source: Source, path: Path, order: Order) -> dict[str, str]:
    """Traces the network, scripts the suppression, and writes both as TorchScript. Returns what of float16 is
    compared, for the certificate."""
    contract = order.contract
    module = layout_module(source.net, source.info.spec, contract, half=order.precision == "fp16")
    program = trace(module, _example(contract))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
        if contract.layout == "end2end":
            program = torch.jit.script(Faces(program, Suppression(contract.suppression.max_faces)).eval())
        data = BytesIO()
        torch.jit.save(program, data, _extra_files={EXTRA: _about(source, contract)})
    atomic.save(path, data.getvalue())
    return {"arithmetic": _arithmetic(contract)} if order.precision == "fp16" else {}


def _arithmetic(contract: Contract) -> str:
    """What was compared: runtimes turn halves into float32 on the CPU, and `compare_script` always runs there."""
    on_cuda = contract.layout != "end2end" and choose_device("auto") == "cuda"
    return f"float16 weights; compared in {'float16 on CUDA' if on_cuda else 'float32 on the CPU'}"


def write_exported(source: Source, path: Path, order: Order) -> None:
    """Exports the network with torch.export. Raises ModelError where torch cannot."""
    contract = order.contract
    module = layout_module(source.net, source.info.spec, contract)
    examples: tuple[Tensor, ...] = (_example(contract),)
    sides = _open_sides(contract)
    if contract.layout == "end2end":
        module = Faces(module, TracedSuppression(contract.suppression.max_faces)).eval()
        examples = (*examples, torch.tensor([0.5]), torch.tensor([0.4]))
    try:
        program = torch.export.export(module, examples, dynamic_shapes=(sides, *({} for _ in examples[1:])))
        data = BytesIO()
        torch.export.save(program, data, extra_files={EXTRA: _about(source, contract)})
    except Exception as error:  # torch has many kinds
        raise ModelError(
            f"{path}: torch.export cannot take the network: {str(error).strip().splitlines()[0]}"
        ) from error
    atomic.save(path, data.getvalue())


def _example(contract: Contract) -> Tensor:
    batch, height, width = _USUAL
    if contract.size is not None:
        width, height = contract.size
    batch = contract.batch or batch
    if contract.layout == "end2end":
        return torch.zeros(batch, height, width, 3, dtype=torch.uint8)
    return torch.zeros(batch, 3, height, width)


def _open_sides(contract: Contract) -> dict[int, Any]:
    """Which axes of the input may have any length, for torch.export."""
    first = 1 if contract.layout == "end2end" else 2
    found: dict[int, Any] = {}
    if contract.batch is None:
        found[0] = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    if contract.size is None:
        for axis, name in enumerate(("height", "width"), first):
            found[axis] = MULTIPLE * torch.export.Dim(f"{name}_cells", min=1, max=MAX_SIDE // MULTIPLE)
    return found


def _about(source: Source, contract: Contract) -> str:
    """What the file says of itself, for `runtime.torch_archive.metadata_of`."""
    about = source.info.to_metadata() | {"layout": contract.layout, "max_faces": str(contract.suppression.max_faces)}
    if contract.size is not None:
        about["size"] = "x".join(map(str, contract.size))
    if contract.batch is not None:
        about["batch"] = str(contract.batch)
    return json.dumps(about)


Program = Callable[[Tensor, Tensor, Tensor], Tensor]


def compare_script(source: Source, path: Path, order: Order) -> Parity:
    """Runs an end-to-end file beside the network in PyTorch; the maps are those that the file has inside."""
    module, _ = load_script(path)
    module = module.float()
    return _compare(source, module, module.candidates, order, "TorchScript")


def compare_exported(source: Source, path: Path, order: Order) -> Parity:
    """As `compare_script`, with maps of the module that was exported: the file cannot show its own."""
    program, _ = load_exported(path)
    inside = layout_module(source.net, source.info.spec, order.contract)
    return _compare(source, program.module(check_guards=False), inside, order, "torch.export")


def _compare(
    source: Source, program: Program, inside: Callable[[Tensor], Sequence[Tensor]], order: Order, name: str
) -> Parity:
    rule = order.contract.suppression

    def run(canvases: Image, score_threshold: float | None = None) -> tuple[FoundFaces, list[NDArray[Any]]]:
        images = torch.from_numpy(np.ascontiguousarray(canvases))
        score = rule.score_threshold if score_threshold is None else score_threshold
        with torch.inference_mode():
            found = program(images, torch.tensor([score]), torch.tensor([rule.nms_threshold])).numpy()
            maps = [] if score_threshold is None else [m.numpy() for m in inside(images)[1:]]
        return faces_of(found), maps

    cases = compare_faces(Reference(source.net), run, run, order.contract, source.info.spec.input)
    tool = f"{name} {torch.__version__}"
    return Parity(f"PyTorch {torch.__version__}", tool, cases, TOLERANCES[order.precision])


def faces_of(rows: NDArray[np.float32]) -> FoundFaces:
    """The (B, M, 5 + 2K) output of an end-to-end program by its parts."""
    points = rows[..., 5:].reshape(*rows.shape[:2], -1, 2) if rows.shape[2] > 5 else None
    return FoundFaces(rows[..., :4], rows[..., 4], points, (rows[..., 4] > 0).sum(1))


SCRIPT = Target(
    name="torchscript",
    suffix=".torchscript",
    layouts=("reference", "maps", "end2end"),
    precisions=("fp32", "fp16"),
    open_size=True,
    open_batch=True,
    write=write_script,
    compare=compare_script,
)
EXPORTED = Target(
    name="torchexport",
    suffix=".pt2",
    layouts=("reference", "maps", "end2end"),
    # Halves would be computed as such on the CPU too, in 11 (scrfd_500m_kps) and 45 (scrfd_2.5g) times the time.
    precisions=("fp32",),
    open_size=True,
    open_batch=True,
    write=write_exported,
    compare=compare_exported,
)
