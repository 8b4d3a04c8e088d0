"""The network as a torch module, and its faster form for inference with batch norms folded into convolutions."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise

import torch
from torch import Tensor, nn

from scrfdkit.model.backbone import Backbone
from scrfdkit.model.head import Head
from scrfdkit.model.neck import Neck
from scrfdkit.spec import ModelSpec


class SCRFD(nn.Module):
    """Pictures -> raw maps, the same in training and in inference.

    Input (B, 3, H, W) float32, RGB, (pixel - mean) / std of `spec.input`. H and W should be multiples of 32
    (`plan.check_size`); this is not looked at here, so that the module can be traced.

    Output: a flat list in the order of the official ONNX files, scores of every level, then boxes of every level,
    then key points of every level if the network has any: `scores_BAhw`, `boxes_B4Ahw`, `keypoints_B2KAhw`. See `Head`
    for their meaning. No sigmoid, no reshape, no NMS.

    The state dict has exactly the keys of the official checkpoints, save the fixed buffer
    `bbox_head.integral.project`, which nothing uses.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = Backbone(spec.backbone)
        self.neck = Neck(spec)
        self.bbox_head = Head(spec)

    def forward(self, x: Tensor) -> list[Tensor]:
        scores, boxes, keypoints = self.bbox_head(self.neck(self.backbone(x)))
        return scores + boxes + keypoints  # type: ignore[no-any-return]


def build(spec: ModelSpec) -> SCRFD:
    """A network with fresh weights, in training mode, initialised as in insightface's configurations.

    Weights come from torch's global generator: call `torch.manual_seed` for the same ones again. Under
    `torch.device("meta")` nothing is allocated.
    """
    return SCRFD(spec)


def fuse(net: SCRFD) -> SCRFD:
    """A copy for inference: every batch norm folded into the convolution before it, eval mode, no gradients.

    Group norms stay, because they depend on the picture. Outputs differ from those of `net.eval()` by rounding only.
    """
    fused = copy.deepcopy(net).eval().requires_grad_(False)
    for parent, conv_name, norm_name in list(_pairs(fused)):
        conv, norm = parent.get_submodule(conv_name), parent.get_submodule(norm_name)
        setattr(parent, conv_name, _fold(conv, norm))
        setattr(parent, norm_name, nn.Identity())
    return fused


def blank(spec: ModelSpec, fused: bool) -> SCRFD:
    """A network in eval mode, to be filled with `load_state_dict`; torch's global generator stays as it was.

    It is built on the CPU although nothing of it is kept: the first use of the meta device costs a second of imports.
    """
    with torch.random.fork_rng(devices=[]):
        net = build(spec).eval()
    return fuse(net) if fused else net.requires_grad_(False)


def _pairs(net: nn.Module) -> Iterator[tuple[nn.Module, str, str]]:
    """Convolutions with the batch norm that follows: they are neighbours in every unit of this package."""
    for parent in net.modules():
        children = list(parent.named_children())
        for (first, conv), (second, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                yield parent, first, second


def _fold(conv: nn.Module, norm: nn.Module) -> nn.Conv2d:
    """conv'(x) = norm(conv(x)).

    The factor is computed in float64 and rounded once before it is used: exporters to ONNX multiply by a rounded one
    too, and results stay closest to theirs when both round alike.
    """
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert conv.bias is None
    kind = conv.weight.dtype
    factor = (norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)).to(kind)
    bias = norm.bias.double() - norm.running_mean.double() * factor.double()
    conv.weight = nn.Parameter(conv.weight * factor[:, None, None, None], False)
    conv.bias = nn.Parameter(bias.to(kind), False)
    return conv
