"""ATSS: which anchors learn which face, and what they learn (Zhang et al., CVPR 2020; SCRFD, section 3).

The nearest anchors of a face are looked for in a small window of cells around its middle and not among all anchors;
the result is the same, ties included.

Shapes: B samples, F faces of all of them, C candidates of a face, P positive anchors, K key points.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from scrfdkit.spec import Head
from scrfdkit.train.crops import Samples

INSIDE = 0.001
"""An anchor's centre lies inside a face if its distance to every edge is more than this share of the face's size."""

_LEAST_AREA = 1e-4
_TINY = 1e-6


class Targets(NamedTuple):
    """What the positive anchors of B samples learn, in strides of their level.

    anchor_P: int64, sample * anchors + anchor; anchors run level by level, row by row, column by column.
    centre_P2: x, y of the anchor. box_P4: x1 y1 x2 y2 of its face. points_PK3: x, y, v.
    valid_P: float32, 1, or 0 for rows that only fill up a fixed shape.
    num_positives: float32 (), positives of all samples, at least 1 for each sample.
    """

    anchor_P: Tensor
    centre_P2: Tensor
    box_P4: Tensor
    points_PK3: Tensor
    valid_P: Tensor
    num_positives: Tensor


def num_anchors(head: Head, size: int) -> int:
    """Anchors of one sample of `size` x `size` pixels."""
    return sum((size // stride) ** 2 for stride in head.strides) * head.num_anchors


def assign(samples: Samples, head: Head, size: int, nearest: int = 9) -> Targets:
    """Targets of all samples. Samples without faces have none.

    A face's candidates are the `nearest` anchors of each level, of equally near ones those that come first. Positive
    are those whose overlap with the face reaches mean + standard deviation of all candidates' overlaps and whose
    centre lies inside it. An anchor that several faces claim goes to the one it overlaps most, the first of equals.
    """
    sample_F, place_F = samples.face_BG.nonzero(as_tuple=True)
    box_F4, points_FK3 = samples.boxes_BG4[sample_F, place_F], samples.points_BGK3[sample_F, place_F]
    levels = [_candidates(box_F4, head, level, size, nearest) for level in range(len(head.strides))]
    anchor_FC, centre_FC2, overlap_FC, stride_FC = (torch.cat(parts, 1) for parts in zip(*levels, strict=True))
    mean_F1 = overlap_FC.mean(1, keepdim=True)
    # Written out, because torch warns of the standard deviation of nothing, and samples may have no faces.
    squares_F1 = ((overlap_FC - mean_F1) ** 2).sum(1, keepdim=True)
    enough_FC = overlap_FC >= mean_F1 + (squares_F1 / max(overlap_FC.shape[1] - 1, 1)).sqrt()
    face_P, candidate_P = (enough_FC & _inside(centre_FC2, box_F4)).nonzero(as_tuple=True)
    key_P = sample_F[face_P] * num_anchors(head, size) + anchor_FC[face_P, candidate_P]
    kept = _best_claims(key_P, overlap_FC[face_P, candidate_P])
    key_P, face_P, candidate_P = key_P[kept], face_P[kept], candidate_P[kept]
    stride_P1 = stride_FC[face_P, candidate_P][:, None]
    points_PK3 = points_FK3[face_P].clone()
    points_PK3[..., :2] /= stride_P1[..., None]
    per_sample = torch.bincount(key_P // num_anchors(head, size), minlength=len(samples.face_BG))
    return Targets(
        anchor_P=key_P,
        centre_P2=centre_FC2[face_P, candidate_P] / stride_P1,
        box_P4=box_F4[face_P] / stride_P1,
        points_PK3=points_PK3,
        valid_P=torch.ones_like(stride_P1[:, 0]),
        num_positives=per_sample.clamp(min=1).sum().float(),
    )


def _candidates(box_F4: Tensor, head: Head, level: int, size: int, nearest: int) -> tuple[Tensor, ...]:
    """anchor (F, C) int64, centre (F, C, 2), overlap (F, C), stride (F, C) of one level's nearest anchors."""
    stride, sizes = head.strides[level], head.anchor_sizes[level]
    across, num = size // stride, len(sizes)
    below = sum((size // s) ** 2 for s in head.strides[:level]) * num
    middle_F2 = (box_F4[:, :2] + box_F4[:, 2:]) / 2
    cell_FW2 = _window(middle_F2 / stride, across, -(-nearest // num))
    distance_FW = ((cell_FW2 * stride - middle_F2[:, None]) ** 2).sum(2).sqrt()
    # All anchors of a cell are equally near. A stable sort keeps them, and equally near cells, in their order.
    order = distance_FW.repeat_interleave(num, 1).sort(stable=True, dim=1).indices[:, : min(nearest, across**2 * num)]
    cell_FC2 = cell_FW2.gather(1, (order // num)[..., None].expand(-1, -1, 2))
    which_FC = order % num
    anchor_FC = below + (cell_FC2[..., 1] * across + cell_FC2[..., 0]) * num + which_FC
    centre_FC2 = (cell_FC2 * stride).to(box_F4.dtype)
    side_FC = torch.tensor(sizes, dtype=box_F4.dtype, device=box_F4.device)[which_FC]
    overlap_FC = _overlap(centre_FC2, side_FC, head.anchor_ratio, box_F4)
    return anchor_FC, centre_FC2, overlap_FC, torch.full_like(overlap_FC, float(stride))


def _window(middle_F2: Tensor, across: int, cells: int) -> Tensor:
    """(F, W, 2) int64 columns and rows of a square of cells that holds the `cells` nearest to a point, given in cells.

    In a corner of the picture, where three quarters of the neighbourhood are missing and the square is moved inwards,
    the n nearest cells reach about sqrt(4 n / pi) cells into the picture.
    """
    reach = math.ceil(0.6 * math.sqrt(cells)) + 1
    width = min(2 * reach + 1, across)
    first_F2 = (middle_F2.round().long() - reach).clamp(0, across - width)
    steps = torch.arange(width, device=middle_F2.device)
    offsets_W2 = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), -1).reshape(-1, 2)  # row by row
    return first_F2[:, None] + offsets_W2


def _overlap(centre_FC2: Tensor, side_FC: Tensor, ratio: float, box_F4: Tensor) -> Tensor:
    """(F, C) IoU of anchors, `ratio` times as high as wide, with their face."""
    half_FC2 = torch.stack([side_FC / math.sqrt(ratio), side_FC * math.sqrt(ratio)], -1) / 2
    low, high = centre_FC2 - half_FC2, centre_FC2 + half_FC2
    box_F14 = box_F4[:, None]
    shared = (torch.minimum(high, box_F14[..., 2:]) - torch.maximum(low, box_F14[..., :2])).clamp(min=0).prod(-1)
    union = (high - low).prod(-1) + (box_F14[..., 2:] - box_F14[..., :2]).prod(-1) - shared
    return shared / union.clamp(min=_TINY)


def _inside(centre_FC2: Tensor, box_F4: Tensor) -> Tensor:
    edge_FC = torch.cat([centre_FC2 - box_F4[:, None, :2], box_F4[:, None, 2:] - centre_FC2], -1).amin(-1)
    size_F = (box_F4[:, 2:] - box_F4[:, :2]).prod(1).clamp(min=_LEAST_AREA).sqrt()
    return edge_FC / size_F[:, None] > INSIDE


def _best_claims(key_P: Tensor, overlap_P: Tensor) -> Tensor:
    """Which claims hold, in rising order of their anchors: of those on one anchor the one with the highest overlap."""
    order = overlap_P.argsort(descending=True, stable=True)
    order = order[key_P[order].argsort(stable=True)]
    key = key_P[order]
    first = torch.ones_like(key, dtype=torch.bool)
    first[1:] = key[1:] != key[:-1]
    return order[first]
