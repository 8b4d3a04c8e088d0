"""Tower and output convolutions: score logits, boxes and key points of every cell."""

from __future__ import annotations

from torch import Tensor, nn

from scrfdkit.model.blocks import Scale, tower_unit
from scrfdkit.model.plan import head_keys
from scrfdkit.spec import ModelSpec

PRIOR_LOGIT = -4.595
"""First bias of the score output: a face probability of 1 in 100, as focal losses need (Lin et al., 2017)."""


class Head(nn.Module):
    """One map a level -> score logits, boxes, key points, each a list with one map a level.

    A is the number of anchors a cell, K of key points, h and w the size of a level's map:
    scores (B, A, h, w), logits; boxes (B, 4 A, h, w), distances left, top, right, bottom from the anchor's centre in
    strides, which may be negative; keypoints (B, 2 K A, h, w), offsets x, y from the centre in strides, an empty
    list where the network has none. Channels run anchor by anchor.
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        head = spec.head
        self.keys = head_keys(spec)
        names = dict.fromkeys(self.keys)  # one name for all levels where they share the head

        def outputs(numbers: int) -> nn.ModuleDict:
            return nn.ModuleDict({k: nn.Conv2d(head.channels, numbers * head.num_anchors, 3, 1, 1) for k in names})

        self.cls_stride_convs = nn.ModuleDict({k: _tower(spec) for k in names})
        self.stride_cls = outputs(1)
        self.stride_reg = outputs(4)
        self.stride_kps = outputs(2 * head.num_keypoints) if head.num_keypoints else None
        self.scales = nn.ModuleList(Scale() for _ in self.keys) if head.scale else None
        self._initialise()

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        scores, boxes, keypoints = [], [], []
        for level, (key, x) in enumerate(zip(self.keys, maps, strict=True)):
            features = self.cls_stride_convs[key](x)
            scores.append(self.stride_cls[key](features))
            box = self.stride_reg[key](features)
            boxes.append(box if self.scales is None else self.scales[level](box))
            if self.stride_kps is not None:
                keypoints.append(self.stride_kps[key](features))
        return scores, boxes, keypoints

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for conv in self.stride_cls.values():
            nn.init.constant_(conv.bias, PRIOR_LOGIT)  # type: ignore[arg-type]


def _tower(spec: ModelSpec) -> nn.Sequential:
    head = spec.head
    sources = [spec.neck.channels, *[head.channels] * (head.depth - 1)]
    groups = head.groups if head.norm == "gn" else 0
    return nn.Sequential(*(tower_unit(source, head.channels, groups, head.depthwise) for source in sources))
