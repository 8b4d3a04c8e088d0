"""Assignment and losses of the reference's head on formula-made outputs: positives of a face, losses of a level."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from scrfdkit.train.assign import assign, num_anchors
from scrfdkit.train.criterion import normalise, normalisers, terms
from scrfdkit.train.crops import Samples
from scrfdkit.train.recipe import Loss
from scrfdkit.zoo import find

SIZE = 640
FACES = (
    (
        (101.3, 121.7, 181.9, 222.4),
        (301.1, 302.6, 325.8, 333.2),
        (50.2, 400.9, 58.7, 410.3),
        (203.4, 201.2, 498.6, 562.9),
        (10.1, 500.3, 13.2, 504.8),
    ),
    ((320.7, 64.3, 371.9, 130.6), (601.3, 603.7, 661.2, 651.9)),
)
LABELLED = (((1,) * 5, (0,) * 5, (1, 1, 0, 0, 0), (1,) * 5, (0,) * 5), ((1,) * 5, (1,) * 5))
WHERE = ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8))

POSITIVES = (((0, 8, 0), (4, 0, 0), (1, 0, 0), (0, 0, 5), (0, 0, 0)), ((0, 5, 0), (4, 3, 0)))
SCORES = (12.566453, 2.026304, 1.349193)
BOXES = (0.348710, 0.493629, 0.258200)
KEYPOINTS = (0.118736, 0.572756, 0.298296)


def samples(num_keypoints: int) -> Samples:
    boxes, points, face = torch.zeros(2, 5, 4), torch.full((2, 5, num_keypoints, 3), -1.0), torch.zeros(2, 5) > 0
    for b, image in enumerate(FACES):
        for g, box in enumerate(image):
            boxes[b, g], face[b, g] = torch.tensor(box), True
            low, size = boxes[b, g, :2], boxes[b, g, 2:] - boxes[b, g, :2]
            for k in range(num_keypoints):
                points[b, g, k, :2] = low + size * torch.tensor(WHERE[k])
                points[b, g, k, 2] = 1 if LABELLED[b][g][k] else -1
    return Samples(boxes, points, face)


def maps(num_keypoints: int) -> list[Tensor]:
    def grid(channels: int, size: int) -> tuple[Tensor, ...]:
        axes = [torch.arange(n, dtype=torch.float64) for n in (2, channels, size, size)]
        return tuple(torch.meshgrid(*axes, indexing="ij"))

    scores, boxes, points = [], [], []
    for stride in (8, 16, 32):
        b, c, y, x = grid(2, SIZE // stride)
        scores.append((-2 + 1.5 * torch.sin(0.37 * (c + 1) + 0.11 * y + 0.07 * x + 0.5 * b)).float())
        b, c, y, x = grid(8, SIZE // stride)
        boxes.append((2 + 0.5 * torch.sin(0.3 * c + 0.05 * y + 0.09 * x + 0.25 * b)).float())
        b, c, y, x = grid(20, SIZE // stride)
        points.append((0.5 * torch.cos(0.2 * c + 0.03 * y + 0.04 * x + 0.1 * b)).float())
    return scores + boxes + (points if num_keypoints else [])


@pytest.mark.parametrize("name", ["scrfd_2.5g_kps", "scrfd_2.5g"])
def test_the_reference_losses_of_every_level(name: str) -> None:
    head = find(name).spec.head
    found = samples(head.num_keypoints)
    targets = assign(found, head, SIZE)
    parts = terms(maps(head.num_keypoints), targets, head, Loss(points="face"))
    norms = normalisers(parts.confidence_P, targets)
    assert norms[0] == 30
    assert norms[1] == pytest.approx(7.785046, abs=1e-5)

    edges = torch.tensor([0, 12800, 16000, 16800])
    of_anchor = torch.bucketize(torch.arange(16800), edges, right=True).sub(1).repeat(2)
    of_positive = torch.bucketize(targets.anchor_P % num_anchors(head, SIZE), edges, right=True) - 1
    for level in range(3):
        here = of_positive == level
        assert parts.scores_A[of_anchor == level].sum() / norms[0] == pytest.approx(SCORES[level], abs=1e-4)
        assert parts.boxes_P[here].sum() / norms[1] == pytest.approx(BOXES[level], abs=1e-4)
        wanted = KEYPOINTS[level] if head.num_keypoints else 0
        assert parts.keypoints_P[here].sum() / norms[1] == pytest.approx(wanted, abs=1e-4)
        for b, image in enumerate(FACES):
            for g, box in enumerate(image):
                mine = (targets.box_P4 * 8 * 2 ** of_positive[:, None] - torch.tensor(box)).abs().amax(1) < 1e-3
                sample = targets.anchor_P // num_anchors(head, SIZE) == b
                assert int((mine & sample & here).sum()) == POSITIVES[b][g][level]

    wanted_sums = [sum(SCORES), sum(BOXES), sum(KEYPOINTS) if head.num_keypoints else 0]
    assert normalise(parts, norms).tolist() == pytest.approx(wanted_sums, abs=2e-4)
