"""A network's forward pass in pieces that train fast: fused chains, compiled modules, few output convolutions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scrfdkit.model.net import SCRFD
from scrfdkit.train.kernels.units import Unit, applies, units_of

Forward = Callable[[Tensor], list[Tensor]]

_LOW = (torch.bfloat16, torch.float16)


def accelerate(
    net: SCRFD,
    compile: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None,
    dtype: torch.dtype = torch.bfloat16,
    chains: bool = True,
) -> Forward:
    """`net.forward` for training: pictures (B, 3, H, W) -> the same list of raw maps, in the type `dtype`.

    Parameters and buffers are the network's own, and may be moved, loaded and frozen later; modules must not be
    replaced (synchronised norms: convert first). Everything runs in channels_last order and, where `dtype` is bfloat16
    or float16, under autocast. compile: what makes a function faster, `torch.compile(dynamic=False)` if left out.
    chains: whether depth-wise separable parts go through this package's kernels wherever those can run (see
    `units.applies`); without them the network is one piece.
    """
    compile = compile or _compile
    front, towers = (_front(net), _towers(net)) if chains and find_spec("triton") else (None, None)
    start = None if front is None else _Chain(front, _autocast(compile(_before_c3(net)), dtype))
    middle = _autocast(compile(_middle(net, front is not None, towers is None)), dtype)
    if towers is not None:
        plain = {key: _autocast(compile(tower), dtype) for key, tower in net.bbox_head.cls_stride_convs.items()}
        ends = [_Chain(towers[key], plain[key]) for key in net.bbox_head.keys]
        outputs = _autocast(compile(lambda *maps: merged_outputs(net, maps)), dtype)

    def forward(pictures: Tensor) -> list[Tensor]:
        x = pictures.to(dtype=dtype, memory_format=torch.channels_last)
        maps: list[Tensor] = middle(x if start is None else start(x))
        if towers is None:
            return maps
        return outputs(*(end(x) for end, x in zip(ends, maps, strict=True)))  # type: ignore[no-any-return]

    return forward


def chains_of(net: SCRFD) -> list[tuple[Unit, ...]]:
    """Every chain that `accelerate` would give to the kernels: before the map of stride 8, and each tower."""
    front, towers = _front(net), _towers(net)
    return [*([] if front is None else [front]), *([] if towers is None else towers.values())]


def merged_outputs(net: SCRFD, features: Sequence[Tensor]) -> list[Tensor]:
    """Raw maps from each level's tower output, in the order of `net.forward`, with one convolution a level.

    The factor of the boxes goes into the convolution's weights.
    """
    head = net.bbox_head
    kinds: list[list[Tensor]] = [[], [], []]
    for level, (key, x) in enumerate(zip(head.keys, features, strict=True)):
        parts = [_output(head.stride_cls[key]), _output(head.stride_reg[key])]
        if head.scales is not None:
            factor = head.scales[level].scale
            assert isinstance(factor, Tensor)
            parts[1] = (parts[1][0] * factor, parts[1][1] * factor)
        if head.stride_kps is not None:
            parts.append(_output(head.stride_kps[key]))
        weights, biases = zip(*parts, strict=True)
        maps = F.conv2d(x, torch.cat(weights), torch.cat(biases), padding=1)
        for kind, one in zip(kinds, torch.split(maps, [len(bias) for bias in biases], 1), strict=False):
            kind.append(one)
    return [one for kind in kinds for one in kind]


def _output(conv: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight and bias."""
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    return conv.weight, conv.bias


@dataclass(frozen=True)
class _Chain:
    """Units for the kernels, and the same modules for when those do not apply."""

    units: tuple[Unit, ...]
    plain: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        if not applies(self.units, x):
            return self.plain(x)
        from scrfdkit.train.kernels.chain import run_chain

        return run_chain(x, self.units)


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=False)


def _autocast(function: Callable[..., Any], dtype: torch.dtype) -> Callable[..., Any]:
    def run(*maps: Tensor) -> Any:
        with torch.autocast(maps[0].device.type, dtype=dtype, enabled=dtype in _LOW):
            return function(*maps)

    return run


def _front(net: SCRFD) -> tuple[Unit, ...] | None:
    """Up to stride 8, where the maps are large and kernels gain most."""
    body = net.backbone
    return units_of([body.stem, body.layer1, body.layer2]) if net.spec.backbone.block == "separable" else None


def _towers(net: SCRFD) -> dict[str, tuple[Unit, ...]] | None:
    """Units of every tower by its key, if all have them."""
    towers = {key: units_of([tower]) for key, tower in net.bbox_head.cls_stride_convs.items()}
    found = {key: units for key, units in towers.items() if units is not None}
    return found if len(found) == len(towers) else None


def _before_c3(net: SCRFD) -> nn.Sequential:
    return nn.Sequential(net.backbone.stem, net.backbone.layer1, net.backbone.layer2)


def _middle(net: SCRFD, after_front: bool, to_end: bool) -> Callable[[Tensor], list[Tensor]]:
    """From the pictures or the map of stride 8 to the neck's maps or, with towers of modules, to the raw maps."""
    body, head = net.backbone, net.bbox_head

    def run(x: Tensor) -> list[Tensor]:
        if after_front:
            c4 = body.layer3(x)
            maps = net.neck((x, c4, body.layer4(c4)))
        else:
            maps = net.neck(body(x))
        if to_end:
            return merged_outputs(net, [head.cls_stride_convs[key](x) for key, x in zip(head.keys, maps, strict=True)])
        return [x.contiguous(memory_format=torch.channels_last) for x in maps]

    return run
