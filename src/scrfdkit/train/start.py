"""The network that a training begins with: fresh or from somebody's weights, with a changed head, partly frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from scrfdkit import network, zoo
from scrfdkit import weights as files
from scrfdkit.errors import ModelError, OptionError, WeightError
from scrfdkit.model.checkpoint import fit, load, recognise
from scrfdkit.model.net import SCRFD, build
from scrfdkit.model.onnx_import import import_onnx, onnx_metadata
from scrfdkit.model.origin import Origin, origin_of
from scrfdkit.model.plan import state_shapes
from scrfdkit.model.pth import read_state
from scrfdkit.spec import ModelSpec, Norm
from scrfdkit.train.adapt import change_head, transfer, unfold
from scrfdkit.train.norms import train_mode

_UNFOLDED_FIRST = (".pth", ".safetensors", ".onnx")
"""Weights by name: a .pth file has its batch norms, which the others may have lost."""

_PARTS = {"backbone": "backbone", "neck": "neck", "head": "bbox_head", "stem": "backbone.stem"}


@dataclass(frozen=True)
class Begin:
    """A network ready to be trained, on the CPU.

    name: of the network, the zoo's where it has one. notes: sentences for the user. new: names of the tensors with
    fresh weights although the others have trained ones. folded: the weights came with batch norms folded into
    convolutions, so that `norms.calibrate_norms` is needed. licence, source: of the weights, "" for fresh ones.
    """

    net: SCRFD
    spec: ModelSpec
    name: str
    notes: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    folded: bool = False
    licence: str = ""
    source: str = ""


def begin(
    model: str | Path | ModelSpec,
    *,
    weights: str | Path | None = None,
    num_keypoints: int | None = None,
    norm: Norm | None = None,
    freeze: Sequence[str] = (),
) -> Begin:
    """The network `model`: a name of the zoo, a .json description (`network.read`), a ModelSpec, or a weight file
    (.safetensors, .pth, .onnx), whose weights it then starts with.

    weights: a weight file, a .json description that names one, or a name of the zoo whose weights are in the cache or
    in this package; without them (and no weight file as model) every weight is fresh, from torch's global generator.
    num_keypoints, norm: changes of the head (`adapt.change_head`); everything that still fits is kept
    (`adapt.transfer`). freeze: as in `freeze_parts`.

    Raises OptionError for words that mean nothing, and WeightError for files that cannot be read or do not fit.
    """
    spec, name, file = _architecture(model)
    if weights is not None:
        file = _weights(weights, spec)
    target = change_head(spec, num_keypoints, norm)
    net = build(target)
    notes: list[str] = []
    new: tuple[str, ...] = ()
    if file is None:
        notes.append("all weights are fresh")
    else:
        try:
            kept = transfer(file.state, file.spec, target)
        except WeightError as error:
            raise WeightError(f"{file.path}: {error}: {file.name} instead of {name}") from None
        net.load_state_dict(kept, strict=False)
        new = tuple(key for key, _ in net.named_parameters() if key not in kept)
        notes += _about(file, spec, target, new)
    frozen = freeze_parts(net, freeze)
    if frozen:
        notes.append(f"frozen: {', '.join(freeze)} ({frozen} of {_numbers(net)} weights)")
    train_mode(net)
    origin = file.origin if file else Origin()
    folded = file is not None and file.folded
    return Begin(net, target, _named(name, spec, target), tuple(notes), new, folded, origin.licence, origin.source)


def freeze_parts(net: nn.Module, names: Sequence[str]) -> int:
    """Takes parts of net out of training: "backbone", "neck", "head", "stem", or the beginning of names of its state
    dict, like "backbone.layer1". Returns how many numbers are frozen. Call `norms.train_mode`, not `net.train()`, for
    their batch norms to keep their statistics. Raises OptionError for a name that is not there.
    """
    parameters = dict(net.named_parameters())
    for name in names:
        prefix = _PARTS.get(name, name).rstrip(".")
        members = [p for key, p in parameters.items() if f"{key}.".startswith(f"{prefix}.")]
        if not prefix or not members:
            known = dict.fromkeys([*_PARTS, *(".".join(key.split(".")[:2]) for key in parameters)])
            raise OptionError(f"freeze: {name!r} is no part of this network; there are {', '.join(known)}")
        for parameter in members:
            parameter.requires_grad_(False)
    return sum(p.numel() for p in parameters.values() if not p.requires_grad)


class _File(NamedTuple):
    """A weight file: its state dict, unfolded."""

    path: Path
    state: Mapping[str, Tensor]
    spec: ModelSpec
    name: str
    folded: bool
    origin: Origin


def _architecture(model: str | Path | ModelSpec) -> tuple[ModelSpec, str, _File | None]:
    if isinstance(model, ModelSpec):
        return model, "custom", None
    path = Path(model)
    if path.suffix in files.SUFFIXES:
        file = _read(path, None)
        return file.spec, file.name, file
    try:
        found = network.find(model)
    except ModelError as error:
        raise OptionError(f"model: {error}") from None
    return found.spec, found.name, None


def _weights(weights: str | Path, spec: ModelSpec) -> _File:
    path, known = Path(weights), None
    if path.suffix not in files.SUFFIXES:
        try:
            path, known = network.find_weights(weights, _UNFOLDED_FIRST)
        except ModelError as error:
            raise OptionError(f"weights: {error}") from None
    return _read(path, spec, known)


def _read(path: Path, spec: ModelSpec | None, known: network.Network | None = None) -> _File:
    """spec: what a .pth file that is no network of the zoo may be. known: what a description says of the weights."""
    if path.suffix == ".onnx":
        net, name, found = import_onnx(path)
        origin = origin_of(path, onnx_metadata(path), name)
        return _File(path, unfold(net.state_dict(), found), found, name, True, origin)
    if path.suffix == ".pth":
        return _read_pth(path, spec)
    net, info = load(path)
    info = info if known is None else network.described(info, known)
    state = net.state_dict()
    if info.fused:
        state = unfold(state, info.spec)
    return _File(path, state, info.spec, info.name, info.fused, Origin(info.source, info.licence))


def _read_pth(path: Path, spec: ModelSpec | None) -> _File:
    state = read_state(path)
    try:
        name, found = recognise({key: tuple(value.shape) for key, value in state.items()}, str(path))
    except WeightError:
        if spec is None:
            raise
        name, found = path.stem, spec
    state = fit(state, state_shapes(found), str(path))
    origin = origin_of(path, {}, name) if name in zoo.ZOO else Origin(path.name)
    return _File(path, state, found, name, False, origin)


def _about(file: _File, spec: ModelSpec, target: ModelSpec, new: Sequence[str]) -> list[str]:
    notes = [f"starts with the weights of {file.path} ({file.name})"]
    if file.origin.licence:
        notes.append(f"terms of these weights, which also hold for what is made of them: {file.origin.licence}")
    if file.folded:
        notes.append("their batch norms were folded into convolutions: new ones are fitted to the first pictures")
    if file.spec.head.shared != target.head.shared:
        taken = "the finest level's" if target.head.shared else "the shared one, copied,"
        notes.append(f"the head has another norm than {file.name}: {taken} is the start, its norms are new")
    if new:
        modules = dict.fromkeys(".".join(key.split(".")[:2]) for key in new)
        notes.append(f"fresh weights: {len(new)} tensors of {', '.join(modules)}")
    return notes


def _named(name: str, spec: ModelSpec, target: ModelSpec) -> str:
    """The zoo's name of what the network has become, or the old one with what was changed."""
    if spec == target:
        return name
    known = next((row.name for row in zoo.ZOO.values() if row.spec == target), None)
    if known is not None:
        return known
    if target.head.num_keypoints != spec.head.num_keypoints:
        name += f"_{target.head.num_keypoints}points"
    return name if target.head.norm == spec.head.norm else f"{name}_{target.head.norm}"


def _numbers(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())
