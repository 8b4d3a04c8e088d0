"""Stem and four stages: the part of a network that turns a picture into feature maps."""

from __future__ import annotations

from torch import Tensor, nn

from scrfdkit.model.blocks import BasicBlock, Bottleneck, conv3x3, normed, separable
from scrfdkit.spec import Backbone as Spec


class Backbone(nn.Module):
    """Pictures (B, 3, H, W) -> maps of strides 8, 16 and 32, the last three of `spec.out_channels`.

    "separable" is a MobileNet without shortcuts. "basic" and "bottleneck" are ResNets with a stem of three 3x3
    convolutions, a 2x2 max pool, and an average pool in the shortcuts (SCRFD paper, section 3; insightface's
    ResNetV1e).
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        separate = spec.block == "separable"
        self.stem = _separable_stem(spec) if separate else _residual_stem(spec)
        self.maxpool = nn.Identity() if separate else nn.MaxPool2d(2, 2)
        sources = (spec.stem[-1], *spec.out_channels)
        stages = [_stage(spec, i, sources[i]) for i in range(4)]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self._initialise()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.layer1(self.maxpool(self.stem(x)))
        c3 = self.layer2(x)
        c4 = self.layer3(c3)
        return c3, c4, self.layer4(c4)

    def _initialise(self) -> None:
        """He et al. (fan-out); norms are 1 and 0 already, save the last of a residual block, which starts at 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, BasicBlock | Bottleneck):
                nn.init.zeros_(module.last_norm.weight)  # type: ignore[arg-type]


def _separable_stem(spec: Spec) -> nn.Sequential:
    first, second = spec.stem
    return nn.Sequential(nn.Sequential(*normed(conv3x3(3, first, 2))), separable(first, second, 1))


def _residual_stem(spec: Spec) -> nn.Sequential:
    sources = (3, *spec.stem)
    units = [normed(conv3x3(sources[i], out, 1 if i else 2)) for i, out in enumerate(spec.stem)]
    return nn.Sequential(*(module for unit in units for module in unit))


def _stage(spec: Spec, index: int, source: int) -> nn.Sequential:
    kinds = {"separable": separable, "basic": BasicBlock, "bottleneck": Bottleneck}
    # A residual stem ends at stride 4 with its pool, a separable one at stride 2.
    first_stride = 1 if index == 0 and spec.block != "separable" else 2
    units: list[nn.Module] = []
    for i in range(spec.blocks[index]):
        units.append(kinds[spec.block](source, spec.widths[index], 1 if i else first_stride))
        source = spec.out_channels[index]
    return nn.Sequential(*units)
