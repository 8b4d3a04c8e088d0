"""Programs of torch.export, .pt2 files, on the CPU or on CUDA."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.export.passes import move_to_device_pass

from scrfdkit.errors import ModelError
from scrfdkit.runtime.base import Binding
from scrfdkit.runtime.torch_archive import load_exported
from scrfdkit.runtime.torch_device import choose_device
from scrfdkit.runtime.torchscript import ProgramRuntime, bindings_of


def open_model(path: str | Path, *, device: str = "auto", threads: int | None = None) -> ProgramRuntime:
    """Loads a .pt2 file: one that `scrfd export` wrote, or any that takes a blob and gives an SCRFD head.

    Such a file is a program. It is looked through first (`runtime.torch_archive`), but open only what you trust.
    device, threads: as `runtime.torchscript.open_model`. Raises ModelError, naming the file.
    """
    path = Path(path)
    program, metadata = load_exported(path)
    chosen = choose_device(device)
    runtime = ProgramRuntime(str(path), _module(program, chosen), metadata, chosen, threads)
    if len(program.graph_signature.user_inputs) != 1:
        found = ", ".join(map(str, program.graph_signature.user_inputs))
        raise ModelError(f"{path}: one tensor (batch, 3, height, width) as input is needed; it has {found}")
    return runtime


def bindings(path: str | Path) -> list[Binding]:
    """Inputs and outputs of a .pt2 file; shapes of outputs are found by running it. Raises ModelError."""
    program, metadata = load_exported(Path(path))
    return bindings_of(path, _module(program, "cpu"), metadata)


def _module(program: Any, device: str) -> Any:
    """What can be called. Its guards are Python text in the file, and stay unread; `ProgramRuntime` checks shapes."""
    if device != "cpu":
        program = move_to_device_pass(program, device)  # moves devices that are written in the graph too
    return program.module(check_guards=False)
