"""Which modules form a chain of convolution, batch norm and ReLU that the kernels know, and when they may run it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Kind = Literal["stem", "depthwise", "pointwise"]

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Triton runs kernels in its interpreter, on the CPU: correct and very slow, for tests."""

MAX_ELEMENTS = 2**31
"""Kernels count in 32 bits: every map must have fewer elements than this."""


@dataclass(frozen=True)
class Unit:
    """A convolution, its batch norm and a ReLU. The modules are the network's own: nothing is copied.

    stem: 3x3, stride 2, from 3 channels. depthwise: 3x3, stride 1 or 2. pointwise: 1x1. None has a bias.
    """

    kind: Kind
    conv: nn.Conv2d
    norm: nn.BatchNorm2d

    @property
    def source(self) -> int:
        """Channels that come in."""
        return self.conv.in_channels

    @property
    def out(self) -> int:
        """Channels that go out."""
        return self.conv.out_channels

    @property
    def stride(self) -> int:
        return self.conv.stride[0]

    @property
    def parameters(self) -> tuple[Tensor, Tensor, Tensor]:
        """Weight of the convolution, weight and bias of the norm."""
        return self.conv.weight, self.norm.weight, self.norm.bias

    @property
    def learns(self) -> bool:
        """Training mode, nothing frozen, parameters in float32."""
        wanted = (p.requires_grad and p.dtype == torch.float32 for p in self.parameters)
        return self.norm.training and all(wanted)


def units_of(modules: Iterable[nn.Module]) -> tuple[Unit, ...] | None:
    """The units of modules that run one after another, or None where anything else is among them."""
    parts = [part for module in modules for part in module.modules() if not isinstance(part, nn.Sequential)]
    if not parts or len(parts) % 3:
        return None
    units: list[Unit] = []
    for conv, norm, relu in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        if not (isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and isinstance(relu, nn.ReLU)):
            return None
        kind = _kind(conv)
        whole = norm.affine and norm.track_running_stats and norm.momentum is not None
        if kind is None or not whole or (kind == "stem" and units):
            return None
        units.append(Unit(kind, conv, norm))
    return tuple(units)


def out_sizes(units: Sequence[Unit], height: int, width: int) -> list[tuple[int, int]]:
    """Height and width of every unit's output."""
    sizes = []
    for unit in units:
        height, width = (height - 1) // unit.stride + 1, (width - 1) // unit.stride + 1
        sizes.append((height, width))
    return sizes


def applies(units: Sequence[Unit], x: Tensor) -> bool:
    """Whether the kernels may run these units on x (B, C, H, W) now; otherwise the modules have to.

    On CUDA in bfloat16 and float16 only: in float32 the matrix products do not fit a processor's registers. No gradient
    of pictures, because the kernel of the stem has none. Norms in eval mode and frozen parameters are left to the
    modules, as are maps that are too large, or too small for statistics (for which the modules raise).
    """
    low = x.dtype in (torch.bfloat16, torch.float16)
    if not (low if x.is_cuda else INTERPRETED and (low or x.dtype == torch.float32)):
        return False
    if units[0].kind == "stem" and x.requires_grad:
        return False
    batch, _, height, width = x.shape
    sizes = out_sizes(units, height, width)
    largest = max(h * w * unit.out for unit, (h, w) in zip(units, sizes, strict=True))
    if (
        batch * max(largest, height * width * units[0].source) >= MAX_ELEMENTS
        or batch * sizes[-1][0] * sizes[-1][1] < 2
    ):
        return False
    return all(unit.learns for unit in units)


def _kind(conv: nn.Conv2d) -> Kind | None:
    if conv.bias is not None or conv.dilation != (1, 1) or conv.padding_mode != "zeros":
        return None
    shape = (conv.kernel_size, conv.padding)
    if shape == ((1, 1), (0, 0)) and conv.groups == 1 and conv.stride == (1, 1):
        return "pointwise"
    if shape != ((3, 3), (1, 1)):
        return None
    if conv.groups == conv.in_channels == conv.out_channels and conv.stride in ((1, 1), (2, 2)):
        return "depthwise"
    return "stem" if conv.in_channels == 3 and conv.groups == 1 and conv.stride == (2, 2) else None
