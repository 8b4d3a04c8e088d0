"""Checkpoints of a run, from which it goes on to the same bits, and the weight files that come out of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import scrfdkit
from scrfdkit import atomic
from scrfdkit.errors import ScrfdError, WeightError
from scrfdkit.model import checkpoint, header
from scrfdkit.model.checkpoint import WeightInfo
from scrfdkit.model.net import SCRFD

FORMAT = "scrfdkit-run-1"
FOLDER = "checkpoints"

_NUMBER = (int, float)


@dataclass(frozen=True)
class State:
    """A run after `step` optimiser steps.

    tensors: of `capture`. best: what the best evaluation so far measured, with its "step"; {} before the first. recipe,
    spec: their JSON. settings, versions: plain JSON values.
    """

    step: int
    tensors: Mapping[str, Tensor]
    recipe: str = ""
    spec: str = ""
    best: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(
        default_factory=lambda: {"scrfdkit": scrfdkit.__version__, "torch": str(torch.__version__)}
    )


def capture(
    net: nn.Module, optimiser: Optimizer, average: nn.Module | None = None, scaler: Any = None
) -> dict[str, Tensor]:
    """Copies on the CPU of all that a step changes, bit by bit: "net/...", "average/...", "scaler/..." and, by
    parameter name, "optimiser/<parameter>/<state>".

    net: the network itself, not wrapped. average: its `AveragedModel`. scaler: anything with state_dict() of numbers,
    like torch's GradScaler. Settings of the optimiser are not in it: they are the recipe's, and the learning rate
    comes from the step.
    """
    live = _live(net, optimiser, average)
    if scaler is not None:
        live |= {f"scaler/{key}": _tensor(value) for key, value in scaler.state_dict().items()}
    return {key: value.detach().to("cpu", copy=True).contiguous() for key, value in live.items()}


def restore(
    state: State, net: nn.Module, optimiser: Optimizer, average: nn.Module | None = None, scaler: Any = None
) -> None:
    """Writes the tensors of `capture` back into objects made as those were, in place: what a captured CUDA graph
    points at stays where it is. The optimiser is one of `optimiser.make`, whose state exists before the first step.

    Raises WeightError, changing nothing, where names, shapes or dtypes differ.
    """
    live = _live(net, optimiser, average)
    saved = {key: value for key, value in state.tensors.items() if not key.startswith("scaler/")}
    wrong = [f"missing {key}" for key in live if key not in saved]
    wrong += [f"unexpected {key}" for key in saved if key not in live]
    both = [key for key in live if key in saved]
    wrong += [
        f"{key} is {_kind(saved[key])}, not {_kind(live[key])}" for key in both if _kind(saved[key]) != _kind(live[key])
    ]
    scales = {key.removeprefix("scaler/"): value for key, value in state.tensors.items() if key not in saved}
    if scaler is not None and set(scaler.state_dict()) != set(scales):
        wrong.append("the state of the loss scaler is another one's")
    if wrong:
        more = f", and {len(wrong) - 4} more" if len(wrong) > 4 else ""
        raise WeightError(f"the checkpoint of step {state.step} is of another run: {'; '.join(wrong[:4])}{more}")
    with torch.no_grad():
        for key, value in live.items():
            value.copy_(saved[key])
    if scaler is not None:
        scaler.load_state_dict({key: value.item() for key, value in scales.items()})


def save(folder: Path, state: State, keep: int) -> Path:
    """Writes checkpoints/step-00001234.safetensors, and beside it a .json with everything but the tensors.

    Keeps the newest `keep` (at least this one) and that of the step in `best`; older ones go once the new one is there.
    Raises ScrfdError where it cannot be written; the older ones are then as they were.
    """
    from safetensors.torch import save as serialise

    path = folder / FOLDER / f"step-{state.step:08d}.safetensors"
    words = {
        "step": state.step,
        "best": dict(state.best),
        "settings": dict(state.settings),
        "versions": dict(state.versions),
        "recipe": state.recipe,
        "spec": state.spec,
    }
    text = json.dumps(words, sort_keys=True)
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.tensors.items()}
    metadata = {"format": FORMAT, "run": text, "sha256": _digest(tensors, text)}
    atomic.save(path, header.ordered(serialise(tensors, metadata)))
    readable = words | {name: json.loads(words[name]) for name in ("recipe", "spec") if words[name]}  # type: ignore[arg-type]
    atomic.save(path.with_suffix(".json"), json.dumps(readable, indent=2).encode())
    found = _found(folder)
    past = sorted(step for step in found if step <= state.step)
    for step in past[: -max(keep, 1)]:
        if step != state.best.get("step"):
            _remove(found[step])
    return path


def load(path: Path) -> State:
    """Reads a checkpoint. Raises WeightError, naming the file, if it is absent, damaged, cut short or none."""
    from safetensors.torch import load as deserialise

    data, layout = header.read(path, whole=True)
    found = layout.metadata.get("format")
    if found != FORMAT:
        raise WeightError(f"{path}: not a checkpoint of a run: its format is {found!r}, not {FORMAT!r}")
    try:
        tensors = deserialise(data)
        text = layout.metadata["run"]
        if _digest(tensors, text) != layout.metadata["sha256"]:
            raise ValueError("its sha256 is not what it should be")
        words = json.loads(text)
        return State(tensors=tensors, **words)
    except Exception as error:  # the library's own SafetensorError is not a public name in every version
        raise WeightError(f"{path}: damaged: {error}") from None


def latest(folder: Path, note: Callable[[str], None] = lambda text: None) -> Path | None:
    """The newest checkpoint of a run's folder that can be read, or None. `note` hears of each that cannot."""
    for _, path in sorted(_found(folder).items(), reverse=True):
        try:
            load(path)
        except WeightError as error:
            note(f"{error}; going back to the checkpoint before it")
            continue
        return path
    return None


def publish(
    path: Path,
    net: nn.Module,
    *,
    name: str,
    metrics: Mapping[str, Any] | None = None,
    licence: str = "",
    source: str = "",
) -> WeightInfo:
    """Writes a weight file that can be used and passed on: `checkpoint.save` of a network, or of the running average
    (`AveragedModel`) of one. Raises ScrfdError where it cannot be written."""
    inner = net if isinstance(net, SCRFD) else net.module
    assert isinstance(inner, SCRFD), "a network, or one in a single wrapper"
    return checkpoint.save(path, inner, inner.spec, name=name, metrics=metrics, licence=licence, source=source)


def _live(net: nn.Module, optimiser: Optimizer, average: nn.Module | None) -> dict[str, Tensor]:
    """The very tensors that the objects compute with."""
    live = {f"net/{key}": value for key, value in net.state_dict().items()}
    if average is not None:
        live |= {f"average/{key}": value for key, value in average.state_dict().items()}
    names = {parameter: name for name, parameter in net.named_parameters()}
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            state = optimiser.state[parameter]
            live |= {f"optimiser/{names[parameter]}/{key}": value for key, value in state.items() if value is not None}
    return live


def _tensor(value: Any) -> Tensor:
    """Python's numbers, without loss."""
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=_dtype(value))


def _dtype(value: Any) -> torch.dtype:
    assert isinstance(value, _NUMBER)
    return torch.float64 if isinstance(value, float) else torch.int64


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    """sha256 over the tensors and the words."""
    parts: dict[str, tuple[str, tuple[int, ...], bytes | memoryview]] = {
        key: (str(value.dtype), tuple(value.shape), value.reshape(-1).view(torch.uint8).numpy().data)
        for key, value in tensors.items()
    }
    return header.digest(parts | {"": ("json", (), text.encode())})


def _found(folder: Path) -> dict[int, Path]:
    """The checkpoints in a run's folder by step, whole or not."""
    steps = {}
    try:
        for path in (folder / FOLDER).glob("step-*.safetensors"):
            number = path.stem.removeprefix("step-")
            if number.isdecimal():
                steps[int(number)] = path
    except OSError as error:
        raise ScrfdError(f"{folder}: cannot be read: {error.strerror or error}") from None
    return steps


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
        path.with_suffix(".json").unlink(missing_ok=True)
    except OSError as error:
        raise ScrfdError(f"{path}: cannot be removed: {error.strerror or error}") from None
