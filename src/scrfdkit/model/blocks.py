"""The units that networks are made of. Attribute names give the official checkpoints' state-dict keys.

Shapes: B pictures, C channels, H and W height and width.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn


def conv3x3(source: int, out: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    """3x3, padding 1, no bias: a norm follows."""
    return nn.Conv2d(source, out, 3, stride, 1, groups=groups, bias=False)


def conv1x1(source: int, out: int) -> nn.Conv2d:
    """1x1, no bias: a norm follows."""
    return nn.Conv2d(source, out, 1, bias=False)


def normed(conv: nn.Conv2d) -> list[nn.Module]:
    """conv, batch norm, ReLU."""
    return [conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU(inplace=True)]


def separable(source: int, out: int, stride: int) -> nn.Sequential:
    """Depth-wise 3x3 then point-wise 1x1, each with batch norm and ReLU: keys 0, 1, 3, 4."""
    return nn.Sequential(*normed(conv3x3(source, source, stride, groups=source)), *normed(conv1x1(source, out)))


def shortcut(source: int, out: int, stride: int) -> nn.Sequential | None:
    """What makes a block's input fit its output; None where it already does.

    Index 0 is the average pool; at stride 1 (first stage of the bottleneck networks) it would change nothing.
    """
    if stride == 1 and source == out:
        return None
    pool = nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
    return nn.Sequential(pool, conv1x1(source, out), nn.BatchNorm2d(out))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (B, source, H, W) -> (B, width, H / stride, W / stride)."""

    def __init__(self, source: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(source, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(source, width, stride)

    @property
    def last_norm(self) -> nn.Module:
        """The norm whose weight starts at 0, so that a fresh block passes its input through."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 and a shortcut: (B, source, H, W) -> (B, 4 width, H / stride, W / stride)."""

    def __init__(self, source: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv1x1(source, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv1x1(width, 4 * width)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = shortcut(source, 4 * width, stride)

    @property
    def last_norm(self) -> nn.Module:
        """As in `BasicBlock`."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        return self.relu(out)  # type: ignore[no-any-return]


class Scale(nn.Module):
    """One learnt factor."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def tower_conv(conv: nn.Conv2d, groups: int) -> nn.Sequential:
    """conv, group norm (batch norm for 0 groups), ReLU: keys conv and gn or bn."""
    channels = conv.out_channels
    norm = ("gn", nn.GroupNorm(groups, channels)) if groups else ("bn", nn.BatchNorm2d(channels))
    return nn.Sequential(OrderedDict([("conv", conv), norm, ("relu", nn.ReLU(inplace=True))]))


def tower_unit(source: int, out: int, groups: int, depthwise: bool) -> nn.Sequential:
    """One unit of the head's tower: a 3x3 convolution, or a depth-wise 3x3 and a point-wise 1x1, each with its norm."""
    if not depthwise:
        return tower_conv(conv3x3(source, out), groups)
    units = [
        ("depthwise_conv", tower_conv(conv3x3(source, source, groups=source), groups)),
        ("pointwise_conv", tower_conv(conv1x1(source, out), groups)),
    ]
    return nn.Sequential(OrderedDict(units))
