"""Weights of one network for another that differs in its head, and batch norms back out of convolutions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor, nn

from scrfdkit.errors import OptionError, WeightError
from scrfdkit.model.plan import head_keys, plan, state_shapes
from scrfdkit.spec import ModelSpec, Norm

_OUTPUTS = ("stride_cls", "stride_reg", "stride_kps")
_MOST_GROUPS = 16


def change_head(spec: ModelSpec, num_keypoints: int | None = None, norm: Norm | None = None) -> ModelSpec:
    """The network with another number of key points, or another norm in its head; None leaves it.

    As in every official network group norm comes with one tower for all levels and a factor a level on the boxes, batch
    norm with one tower a level. Groups are 16 or the largest smaller power of two that divides the channels. Raises
    OptionError for a number that cannot be.
    """
    head = spec.head
    if num_keypoints is not None:
        try:
            head = replace(head, num_keypoints=num_keypoints)
        except ValueError as error:
            raise OptionError(f"num_keypoints: {error}") from None
    if norm == "gn" and head.norm == "bn":
        widths = (head.channels, *((spec.neck.channels,) if head.depthwise else ()))
        head = replace(head, norm="gn", groups=math.gcd(_MOST_GROUPS, *widths), shared=True, scale=True)
    elif norm == "bn" and head.norm == "gn":
        head = replace(head, norm="bn", groups=0, shared=False)
    return replace(spec, head=head)


def transfer(state: Mapping[str, Tensor], source: ModelSpec, target: ModelSpec) -> dict[str, Tensor]:
    """The part of `state`, an unfused state dict of `source`, that a network `target` can start with, by its names.

    Tensors of the same meaning and shape are kept. Where only the target shares its head, it takes the tower and the
    outputs of the finest level: those of different levels were trained apart, so that their average would compute
    nothing. Where only the source does, every level gets a copy. Outputs are kept if they mean the same: anchors a
    cell, and for key points their number, agree. Raises WeightError where the backbones differ.
    """
    if source.backbone != target.backbone:
        raise WeightError("weights: they belong to a network with another backbone")
    kept = {}
    for key, shape in state_shapes(target).items():
        theirs = _source_key(key, source, target)
        if theirs in state and state[theirs].shape == shape and _same_meaning(key, source, target):
            kept[key] = state[theirs].clone()
    return kept


def _source_key(key: str, source: ModelSpec, target: ModelSpec) -> str:
    """The same tensor's name in the source; where one of the two shares its head, the level's word is another."""
    parts = key.split(".")
    if source.head.shared != target.head.shared and parts[1] in ("cls_stride_convs", *_OUTPUTS):
        parts[2] = head_keys(source)[0]
    return ".".join(parts)


def _same_meaning(key: str, source: ModelSpec, target: ModelSpec) -> bool:
    kind = key.split(".")[1]
    if kind not in _OUTPUTS:
        return True
    same_points = source.head.num_keypoints == target.head.num_keypoints
    return source.head.num_anchors == target.head.num_anchors and (kind != "stride_kps" or same_points)


def unfold(state: Mapping[str, Tensor], spec: ModelSpec) -> dict[str, Tensor]:
    """The state dict of `spec` from the one with batch norms folded into convolutions.

    Every norm passes its input through with the convolution's bias added, by statistics of mean 0 and variance 1: right
    in eval mode. For training they need `norms.calibrate_norms`.
    """
    plain = dict(state)
    root = math.sqrt(1 + nn.BatchNorm2d(1).eps)
    ops = [op for op in plan(spec, 64, 64).ops if op.params]
    for op, after in pairwise(ops):
        if op.kind != "conv" or after.kind != "bn" or f"{op.name}.bias" not in plain:
            continue
        bias = plain.pop(f"{op.name}.bias")
        plain[f"{after.name}.weight"] = torch.full_like(bias, root)
        plain[f"{after.name}.bias"] = bias
        plain[f"{after.name}.running_mean"] = torch.zeros_like(bias)
        plain[f"{after.name}.running_var"] = torch.ones_like(bias)
        plain[f"{after.name}.num_batches_tracked"] = torch.tensor(0)
    return plain
