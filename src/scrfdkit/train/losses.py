"""The losses of single anchors: quality focal, distance IoU and smooth L1, all elementwise."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

BETA = 1 / 9
"""Where the smooth L1 loss of key points turns from a parabola into a line, in strides."""

_TINY = 1e-6


def quality_focal(logits: Tensor, quality: Tensor) -> Tensor:
    """Quality focal loss with beta 2 (Li et al., NeurIPS 2020), for any shape.

    quality: the wanted score, the overlap of predicted and true box where there is a face, 0 elsewhere.
    """
    entropy = F.binary_cross_entropy_with_logits(logits, quality, reduction="none")
    return entropy * (quality - logits.sigmoid()) ** 2


def overlap(found_P4: Tensor, true_P4: Tensor) -> Tensor:
    """(P,) IoU of boxes x1 y1 x2 y2, 0 for boxes turned inside out."""
    shared, union = _shared_and_union(found_P4, true_P4)
    return shared / union.clamp(min=_TINY)


def distance_iou(found_P4: Tensor, true_P4: Tensor) -> Tensor:
    """(P,) 1 - IoU + (distance of the middles / diagonal of the box around both)^2 (Zheng et al., AAAI 2020)."""
    shared, union = _shared_and_union(found_P4, true_P4)
    around = torch.maximum(found_P4[:, 2:], true_P4[:, 2:]) - torch.minimum(found_P4[:, :2], true_P4[:, :2])
    diagonal = (around.clamp(min=0) ** 2).sum(1) + _TINY
    apart = found_P4[:, :2] + found_P4[:, 2:] - true_P4[:, :2] - true_P4[:, 2:]
    return 1 - shared / (union + _TINY) + (apart**2).sum(1) / 4 / diagonal


def smooth_l1(difference: Tensor) -> Tensor:
    """Elementwise: a parabola below BETA, a line of slope 1 above."""
    size = difference.abs()
    return torch.where(size < BETA, size * size / (2 * BETA), size - BETA / 2)


def _shared_and_union(a_P4: Tensor, b_P4: Tensor) -> tuple[Tensor, Tensor]:
    sides = torch.minimum(a_P4[:, 2:], b_P4[:, 2:]) - torch.maximum(a_P4[:, :2], b_P4[:, :2])
    shared = sides.clamp(min=0).prod(1)
    areas = (a_P4[:, 2:] - a_P4[:, :2]).prod(1) + (b_P4[:, 2:] - b_P4[:, :2]).prod(1)
    return shared, areas - shared
