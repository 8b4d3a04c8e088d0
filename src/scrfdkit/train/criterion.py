"""The loss of a batch: raw maps and targets -> the three losses of the reference.

Shapes: B samples, A anchors of a sample, P positive anchors, K key points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from scrfdkit.spec import Head
from scrfdkit.train.assign import Targets
from scrfdkit.train.losses import distance_iou, overlap, quality_focal, smooth_l1
from scrfdkit.train.recipe import Loss

NAMES = ("scores", "boxes", "keypoints")
"""The losses, in the order of a tensor of them."""


class Terms(NamedTuple):
    """The losses of single anchors, weighted but not yet normalised.

    scores_A: (B A,) of every anchor. boxes_P, keypoints_P: of the positive ones. confidence_P: the score of each
    positive anchor, which weighs its boxes and key points, without gradient.
    """

    scores_A: Tensor
    boxes_P: Tensor
    keypoints_P: Tensor
    confidence_P: Tensor


def rows(maps: Sequence[Tensor], numbers: int) -> Tensor:
    """Maps (B, a n, h, w) of all levels -> (B A, n), float32 or wider, anchors in the order of `Targets.anchor_P`."""
    flat = torch.cat([m.permute(0, 2, 3, 1).reshape(len(m), -1, numbers) for m in maps], 1)
    return flat.reshape(-1, numbers).to(torch.promote_types(flat.dtype, torch.float32))


def terms(maps: Sequence[Tensor], targets: Targets, head: Head, loss: Loss) -> Terms:
    """The losses of every anchor. maps: as `SCRFD.forward` gives them."""
    levels = len(head.strides)
    logits_A = rows(maps[:levels], 1)[:, 0]
    sides_P4 = rows(maps[levels : 2 * levels], 4)[targets.anchor_P]
    found_P4 = torch.cat([targets.centre_P2 - sides_P4[:, :2], targets.centre_P2 + sides_P4[:, 2:]], 1)
    with torch.no_grad():
        confidence_P = logits_A[targets.anchor_P].sigmoid() * targets.valid_P
        reached_P = overlap(found_P4, targets.box_P4) * targets.valid_P
        # Added and not put: rows that fill up the shape point at anchors that may be somebody's.
        quality_A = torch.zeros_like(logits_A).index_add_(0, targets.anchor_P, reached_P)
    boxes_P = distance_iou(found_P4, targets.box_P4) * confidence_P
    keypoints_P = torch.zeros_like(boxes_P)
    if head.num_keypoints:
        offsets_PKn = rows(maps[2 * levels :], 2 * head.num_keypoints)[targets.anchor_P]
        keypoints_P = _points(offsets_PKn, targets, loss) * confidence_P
    return Terms(
        scores_A=loss.scores * quality_focal(logits_A, quality_A),
        boxes_P=loss.boxes * boxes_P,
        keypoints_P=loss.keypoints * keypoints_P,
        confidence_P=confidence_P,
    )


def _points(offsets_PKn: Tensor, targets: Targets, loss: Loss) -> Tensor:
    """(P,) summed over the points of a face."""
    x_y_PK2, v_PK = targets.points_PK3[..., :2], targets.points_PK3[..., 2]
    weight_PK = torch.where(v_PK < 0, 0.0, torch.where(v_PK > 0, 1.0, loss.hidden))
    if loss.points == "face":
        weight_PK = weight_PK.mean(1, keepdim=True).expand_as(weight_PK)
    wanted_PK2 = x_y_PK2 - targets.centre_P2[:, None]
    return (smooth_l1(offsets_PKn.view_as(wanted_PK2) - wanted_PK2).sum(2) * weight_PK).sum(1)


def normalisers(confidence_P: Tensor, targets: Targets) -> Tensor:
    """(2,) number of positives, and sum of their confidences: what the losses are divided by, to be summed over
    processes and over the parts of an accumulated batch."""
    return torch.stack([targets.num_positives, confidence_P.sum()])


def normalise(terms: Terms, norms: Tensor) -> Tensor:
    """(3,) losses in the order of NAMES. norms: (2,) as of `normalisers`.

    Without any positive anchor the sums are 0 and so are the losses; the reference divides 0 by 0 there.
    """
    positives, confidence = norms.unbind()
    confidence = torch.where(confidence > 0, confidence, torch.ones_like(confidence))
    positives = positives.clamp(min=1)
    sums = (terms.scores_A.sum() / positives, terms.boxes_P.sum() / confidence, terms.keypoints_P.sum() / confidence)
    return torch.stack(sums)
