"""PAFPN: mixes the backbone's three maps downwards and upwards, so that each level sees the others."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

from scrfdkit.spec import ModelSpec


class Neck(nn.Module):
    """Maps of strides 8, 16, 32 -> one map of `spec.neck.channels` a level.

    Path aggregation (Liu et al., 2018). No norm and no activation anywhere. Levels above stride 32 are 3x3
    convolutions of stride 2 on the level below; they live in `fpn_convs` because official checkpoints have them there.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        out = spec.neck.channels
        extra = len(spec.head.strides) - 3
        self.lateral_convs = nn.ModuleList(_conv(c, out, 1) for c in spec.backbone.out_channels[1:])
        self.fpn_convs = nn.ModuleList(
            [_conv(out, out, 3) for _ in range(3)] + [_conv(out, out, 3, 2) for _ in range(extra)]
        )
        self.downsample_convs = nn.ModuleList(_conv(out, out, 3, 2) for _ in range(2))
        self.pafpn_convs = nn.ModuleList(_conv(out, out, 3) for _ in range(2))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, maps: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
        x = [conv(m) for conv, m in zip(self.lateral_convs, maps, strict=True)]
        for i in (1, 0):
            x[i] = x[i] + F.interpolate(x[i + 1], size=x[i].shape[-2:], mode="nearest")
        x = [self.fpn_convs[i](x[i]) for i in range(3)]
        for i in (0, 1):
            x[i + 1] = x[i + 1] + self.downsample_convs[i](x[i])
        x = [x[0], self.pafpn_convs[0](x[1]), self.pafpn_convs[1](x[2])]
        for i in range(3, len(self.fpn_convs)):
            x.append(self.fpn_convs[i](x[-1]))
        return x


def _conv(source: int, out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(source, out, kernel, stride, kernel // 2)))
