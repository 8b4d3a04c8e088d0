"""Networks for tests: random weights and statistics, and the CrowdHuman network, which is no row of the zoo."""

from __future__ import annotations

import torch

from scrfdkit.model.net import SCRFD, build
from scrfdkit.spec import Backbone, Head, ModelSpec, Neck

CROWDHUMAN = ModelSpec(
    Backbone("basic", (12, 12, 24), (3, 5, 3, 2), (24, 48, 48, 80)),
    Neck(24),
    Head(
        depth=2,
        channels=64,
        norm="bn",
        groups=0,
        shared=False,
        depthwise=False,
        scale=True,
        num_keypoints=5,
        strides=(8, 16, 32, 64, 128),
        anchor_sizes=((24,), (48,), (96,), (192,), (384,)),
        anchor_ratio=2.0,
    ),
)


def random_net(spec: ModelSpec, seed: int = 0) -> SCRFD:
    """Eval mode; every tensor random, as after training: no weight is 0, no norm is the identity, scales are not 1."""
    torch.manual_seed(seed)
    net = build(spec).eval().requires_grad_(False)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.GroupNorm):
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(std=0.2)
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 2.0)
    for name, parameter in net.named_parameters():
        if name.endswith(".scale"):
            parameter.uniform_(0.5, 1.5)
        elif name.endswith("conv.bias") or (name.startswith("bbox_head.stride") and name.endswith("bias")):
            parameter.normal_(std=0.1)
    return net


def gap(first: list[torch.Tensor], second: list[torch.Tensor]) -> float:
    """Largest difference between two outputs."""
    assert [a.shape for a in first] == [b.shape for b in second]
    return max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True))
