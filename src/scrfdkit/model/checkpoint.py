"""Weight files: complete ones of our own (safetensors), and the import of official `.pth` files.

A weight file holds the tensors and, as safetensors metadata, everything needed to use them: the network's spec with
its preprocessing, measured AP, licence, origin, and a sha256 over all tensors. Reading its header needs no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from scrfdkit import atomic
from scrfdkit.errors import WeightError
from scrfdkit.model import header
from scrfdkit.model.header import Layout, PathLike
from scrfdkit.model.plan import Shape, plan, state_shapes
from scrfdkit.model.pth import read_state, require_torch
from scrfdkit.spec import ModelSpec
from scrfdkit.zoo import ZOO, find

if TYPE_CHECKING:
    from torch import Tensor

    from scrfdkit.model.net import SCRFD

FORMAT = "scrfdkit-1"

_IGNORED = "bbox_head.integral.project"
_OPTIONAL = ".num_batches_tracked"


@dataclass(frozen=True)
class WeightInfo:
    """What a weight file says about itself.

    name: of the network. fused: batch norms are folded into convolutions. metrics: plain JSON values.
    licence, source: "" where unknown. sha256: over the tensors (`header.digest`), "" for a plain safetensors file.
    num_bytes: of the tensors.
    """

    name: str
    spec: ModelSpec
    fused: bool = False
    metrics: Mapping[str, Any] = field(default_factory=dict)
    licence: str = ""
    source: str = ""
    sha256: str = ""
    num_bytes: int = 0

    def to_metadata(self) -> dict[str, str]:
        """The strings that go into a file; `read_header` reads them back."""
        return {
            "format": FORMAT,
            "name": self.name,
            "spec": self.spec.to_json(),
            "fused": json.dumps(self.fused),
            "metrics": json.dumps(dict(self.metrics)),
            "licence": self.licence,
            "source": self.source,
            "sha256": self.sha256,
        }


class Imported(NamedTuple):
    """A network made from somebody else's file: eval mode; fused or not as the importer says."""

    net: SCRFD
    name: str
    spec: ModelSpec


def save(
    path: PathLike,
    net: SCRFD | Mapping[str, Tensor],
    spec: ModelSpec,
    *,
    name: str,
    fused: bool = False,
    metrics: Mapping[str, Any] | None = None,
    licence: str = "",
    source: str = "",
) -> WeightInfo:
    """Writes a complete weight file, float32, and returns what it says of itself.

    net is a module or its state dict; it must fit spec (and `fused`), else WeightError. The file appears whole or not
    at all. Raises ScrfdError, naming the file, where it cannot be written.
    """
    require_torch("writing a weight file")
    from safetensors.torch import save as serialise

    given = net if isinstance(net, Mapping) else net.state_dict()
    state = _plain(fit(given, file_shapes(spec, fused), f"cannot save {path}"))
    tensors = {k: (_code(v), tuple(v.shape), v.numpy().tobytes()) for k, v in state.items()}
    size = sum(len(data) for _, _, data in tensors.values())
    info = WeightInfo(name, spec, fused, dict(metrics or {}), licence, source, header.digest(tensors), size)
    atomic.save(Path(path), header.ordered(serialise(state, info.to_metadata())))
    return info


def load(path: PathLike) -> tuple[SCRFD, WeightInfo]:
    """The network of a weight file, in eval mode and without gradients, and what the file says about itself.

    Reads files of `save`, whose sha256 is checked, and plain safetensors files with official key names and the
    metadata {"model": name}. Raises WeightError for a file that is absent, damaged, cut short, not a weight file, or
    whose tensors do not fit its spec.
    """
    require_torch("loading a weight file into PyTorch")
    from safetensors.torch import load as deserialise

    from scrfdkit.model.net import blank

    data, layout = header.read(path, whole=True)
    info = _info(path, layout)
    if info.sha256:
        _verify(path, data, layout, info.sha256)
    try:
        state = deserialise(data)
    except Exception as error:  # the library's own SafetensorError is not a public name in every version
        raise WeightError(f"{path}: not a safetensors file: {error}") from None
    net = blank(info.spec, info.fused)
    net.load_state_dict(fit(state, file_shapes(info.spec, info.fused), str(path)))
    return net, info


def read_header(path: PathLike) -> WeightInfo:
    """What a weight file says about itself; reads only the header, needs no torch, does not check the sha256.

    Raises WeightError as `load` does, also for a file that is shorter than its header says.
    """
    return _info(path, header.read(path, whole=False)[1])


def import_pth(path: PathLike, name: str | None = None) -> Imported:
    """An official checkpoint (mmcv's {meta, state_dict, ...}, or a bare state dict), not fused, in eval mode.

    The network is recognised by the names and shapes of its tensors; `name` allows only that row of the zoo. Only
    tensors, plain values and numpy's numbers are unpickled. Raises WeightError for a file that is not such a
    checkpoint, that needs other classes to be unpickled, or that fits no row: the message gives the nearest and the
    first differences. Raises MissingExtraError without torch.
    """
    state = read_state(path)
    from scrfdkit.model.net import blank

    if name is None:
        name, spec = recognise({k: tuple(v.shape) for k, v in state.items()}, str(path))
    else:
        name, spec = row(name)
    state = fit(state, state_shapes(spec), f"{path} as {name}")
    net = blank(spec, fused=False)
    net.load_state_dict(state)
    return Imported(net, name, spec)


def file_shapes(spec: ModelSpec, fused: bool) -> dict[str, Shape]:
    """Name and shape of every tensor of a weight file; with batch norms folded, each becomes its convolution's bias."""
    if not fused:
        return state_shapes(spec)
    shapes: dict[str, Shape] = {}
    ops = [op for op in plan(spec, 64, 64).ops if op.params]
    for op, after in pairwise([*ops, ops[-1]]):
        if op.kind == "bn":
            continue
        shapes |= {f"{op.name}.{suffix}": shape for suffix, shape in op.params}
        if op.kind == "conv" and after.kind == "bn":
            shapes[f"{op.name}.bias"] = op.params[0][1][:1]
    return shapes


def recognise(shapes: Mapping[str, tuple[int, ...]], what: str) -> tuple[str, ModelSpec]:
    """The row of the zoo whose state dict has just these names and shapes. Raises WeightError where none has."""
    wrong = {name: _differences(shapes, state_shapes(row.spec)) for name, row in ZOO.items()}
    nearest = min(wrong, key=lambda name: len(wrong[name]))
    if wrong[nearest]:
        raise WeightError(f"{what}: fits no known network; the nearest is {nearest}: {_first(wrong[nearest])}")
    return nearest, ZOO[nearest].spec


def row(name: str) -> tuple[str, ModelSpec]:
    """Name and spec of a row of the zoo. Raises WeightError listing the names where there is no such row."""
    try:
        entry = find(name)
    except ValueError as error:
        raise WeightError(str(error)) from None
    return entry.name, entry.spec


def fit(state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], what: str) -> dict[str, Tensor]:
    """`state` with just the names of `shapes`: counters of batches that are missing become 0, an unused buffer goes.

    Raises WeightError, beginning with `what`, for other differences.
    """
    import torch

    wrong = _differences({k: tuple(v.shape) for k, v in state.items()}, shapes)
    if wrong:
        raise WeightError(f"{what}: the tensors do not fit the network: {_first(wrong)}")
    return {k: state[k] if k in state else torch.tensor(0) for k in shapes}


def _differences(found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]) -> list[str]:
    wrong = [f"missing {k}" for k in wanted if k not in found and not k.endswith(_OPTIONAL)]
    wrong += [f"unexpected {k}" for k in found if k not in wanted and k != _IGNORED]
    shared = [k for k in wanted if k in found]
    return wrong + [f"{k} is {found[k]}, not {wanted[k]}" for k in shared if found[k] != wanted[k]]


def _first(wrong: list[str], count: int = 4) -> str:
    more = f", and {len(wrong) - count} more" if len(wrong) > count else ""
    return "; ".join(wrong[:count]) + more


def _plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, contiguous, floats as float32 and counters as int64."""
    import torch

    return {
        k: v.detach().to("cpu", torch.float32 if v.is_floating_point() else torch.int64).contiguous()
        for k, v in state.items()
    }


def _code(tensor: Tensor) -> str:
    return "F32" if tensor.is_floating_point() else "I64"


def _verify(path: PathLike, data: bytes, layout: Layout, wanted: str) -> None:
    view = memoryview(data)[layout.offset :]
    found = header.digest({k: (e.dtype, e.shape, view[e.start : e.stop]) for k, e in layout.entries.items()})
    if found != wanted:
        raise WeightError(
            f"{path}: damaged: sha256 of its tensors is {found[:12]}..., it should be {wanted[:12]}...; "
            "fetch or convert the file again"
        )


def _info(path: PathLike, layout: Layout) -> WeightInfo:
    """What the metadata says, held against the names and shapes of the tensors: before a network is built, or its cost
    worked out, from numbers that make no sense."""
    info = _stated(path, layout)
    body, head = info.spec.backbone, info.spec.head
    if sum(body.blocks) + head.depth + len(head.strides) > len(layout.entries):
        raise WeightError(
            f"{path}: the tensors do not fit the network: its spec has more layers than there are tensors"
        )
    found = {name: entry.shape for name, entry in layout.entries.items()}
    wrong = _differences(found, file_shapes(info.spec, info.fused))
    if wrong:
        raise WeightError(f"{path}: the tensors do not fit the network: {_first(wrong)}")
    return info


def _stated(path: PathLike, layout: Layout) -> WeightInfo:
    meta = layout.metadata
    try:
        if "format" not in meta and "model" in meta:
            entry = find(meta["model"])
            return WeightInfo(entry.name, entry.spec, num_bytes=layout.num_bytes)
        if meta.get("format") != FORMAT:
            raise ValueError(
                f"its metadata has format {meta.get('format')!r}, and this version reads {FORMAT!r}; "
                "`scrfd convert` makes such files from .pth and .onnx"
            )
        spec = ModelSpec.from_json(meta["spec"])
        fused, metrics = json.loads(meta["fused"]), json.loads(meta["metrics"])
        if not (isinstance(fused, bool) and isinstance(metrics, dict) and len(meta["sha256"]) == 64):
            raise ValueError("fused, metrics or sha256 of its metadata are not what they should be")
        texts = (meta["licence"], meta["source"], meta["sha256"])
        return WeightInfo(meta["name"], spec, fused, metrics, *texts, layout.num_bytes)
    except (ValueError, KeyError) as error:
        reason = f"its metadata lacks {error}" if isinstance(error, KeyError) else str(error)
        raise WeightError(f"{path}: not a weight file of this package: {reason}") from None
