"""The loss of a batch: without faces, with partly labelled and hidden points, and in parts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from scrfdkit.model.net import build
from scrfdkit.spec import ModelSpec
from scrfdkit.train.assign import Targets, assign
from scrfdkit.train.criterion import normalise, normalisers, terms
from scrfdkit.train.crops import Samples
from scrfdkit.train.losses import BETA, distance_iou, overlap, quality_focal, smooth_l1
from scrfdkit.train.recipe import Loss
from scrfdkit.zoo import find

SPEC: ModelSpec = find("scrfd_500m_kps").spec
SIZE = 128


def samples(boxes: list[list[tuple[float, ...]]], visibility: float = 1.0) -> Samples:
    places = max(1, *(len(b) for b in boxes))
    found = torch.zeros(len(boxes), places, 4)
    face = torch.zeros(len(boxes), places) > 0
    for b, each in enumerate(boxes):
        for g, box in enumerate(each):
            found[b, g], face[b, g] = torch.tensor(box), True
    middle = (found[..., :2] + found[..., 2:]) / 2
    points = torch.cat([middle[:, :, None].expand(-1, -1, 5, -1), torch.full((*face.shape, 5, 1), visibility)], 3)
    return Samples(found, points, face)


def maps(number: int) -> list[Tensor]:
    torch.manual_seed(0)
    return [m.detach().requires_grad_() for m in build(SPEC)(torch.randn(number, 3, SIZE, SIZE))]


def losses(found: list[Tensor], targets: Targets, loss: Loss | None = None) -> Tensor:
    parts = terms(found, targets, SPEC.head, loss or Loss())
    return normalise(parts, normalisers(parts.confidence_P, targets))


def test_a_batch_without_faces_has_a_loss_and_a_gradient() -> None:
    """The reference divides 0 by 0 here."""
    outputs = maps(2)
    found = losses(outputs, assign(samples([[], []]), SPEC.head, SIZE))
    assert found.isfinite().all()
    assert found[0] > 0
    assert found[1:].tolist() == [0, 0]
    found.sum().backward()
    assert all(m.grad is not None and m.grad.isfinite().all() for m in outputs)


def test_a_batch_is_the_sum_of_its_parts_under_the_same_norms() -> None:
    boxes = [[(10.0, 10, 60, 70)], [(30.0, 20, 50, 44), (80.0, 70, 120, 126)], []]
    outputs = maps(3)
    whole = samples(boxes)
    parts = terms(outputs, assign(whole, SPEC.head, SIZE), SPEC.head, Loss())
    norms = normalisers(parts.confidence_P, assign(whole, SPEC.head, SIZE))
    total, counted = torch.zeros(3), torch.zeros(2)
    for i in range(3):
        targets = assign(Samples(*(t[i : i + 1] for t in whole)), SPEC.head, SIZE)
        mine = terms([m[i : i + 1] for m in outputs], targets, SPEC.head, Loss())
        total += normalise(mine, norms)
        counted += normalisers(mine.confidence_P, targets)
    assert torch.allclose(counted, norms)
    assert torch.allclose(total, normalise(parts, norms))


def test_rows_that_fill_up_the_shape_change_nothing() -> None:
    outputs = maps(1)
    targets = assign(samples([[(10.0, 10, 60, 70)]]), SPEC.head, SIZE)
    filled = Targets(*(torch.cat([t, torch.zeros(7, *t.shape[1:], dtype=t.dtype)]) for t in targets[:5]), targets[5])
    assert torch.allclose(losses(outputs, filled), losses(outputs, targets))
    losses(outputs, filled).sum().backward()
    gradient = [m.grad.clone() for m in outputs if m.grad is not None]
    for m in outputs:
        m.grad = None
    losses(outputs, targets).sum().backward()
    assert all(
        torch.allclose(a, m.grad, atol=1e-7) for a, m in zip(gradient, outputs, strict=True) if m.grad is not None
    )


def points_loss(loss: Loss, visibility: list[float]) -> float:
    found = samples([[(10.0, 10, 60, 70)]])
    found.points_BGK3[..., 2] = torch.tensor(visibility)
    found.points_BGK3[..., :2] = torch.where(
        found.points_BGK3[..., 2:] < 0, torch.full((2,), -1.0), found.points_BGK3[..., :2] + 3
    )
    outputs = [m * (i < 6) for i, m in enumerate(maps(1))]  # all points are drawn where the anchor is
    return float(losses(outputs, assign(found, SPEC.head, SIZE), loss)[2].detach())


def test_points_without_label_do_not_count() -> None:
    all_five = points_loss(Loss(), [1] * 5)
    three = points_loss(Loss(), [1, 1, 1, -1, -1])
    assert three == pytest.approx(all_five * 3 / 5, rel=1e-3)
    assert points_loss(Loss(), [-1] * 5) == 0
    # The reference draws the two missing points towards (-1, -1), with the face's share of labelled ones as weight.
    assert points_loss(Loss(points="face"), [1, 1, 1, -1, -1]) > 2 * three


def test_hidden_points_weigh_what_the_recipe_says() -> None:
    visible, mixed = points_loss(Loss(), [1] * 5), [1, 1, 1, 0, 0]
    assert points_loss(Loss(), mixed) == pytest.approx(visible)
    assert points_loss(Loss(hidden=0.5), mixed) == pytest.approx(visible * 4 / 5, rel=1e-3)
    assert points_loss(Loss(hidden=0.0), mixed) == pytest.approx(visible * 3 / 5, rel=1e-3)


def test_single_losses() -> None:
    box = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    assert float(overlap(box, box)) == 1
    assert float(overlap(box, box + 4)) == 0
    assert float(overlap(box, torch.tensor([[4.0, 4.0, 0.0, 0.0]]))) == 0
    assert float(distance_iou(box, box)) == pytest.approx(0, abs=1e-6)
    # Beside each other: no overlap, middles 4 apart, the box around both 8 x 4.
    assert float(distance_iou(box, box + torch.tensor([4.0, 0, 4, 0]))) == pytest.approx(1 + 16 / 80, abs=1e-6)
    assert float(smooth_l1(torch.tensor(BETA))) == pytest.approx(BETA / 2)
    assert float(smooth_l1(torch.tensor(-2.0))) == pytest.approx(2 - BETA / 2)
    # At p = 0.5: entropy ln 2 times the squared distance from the wanted score.
    assert float(quality_focal(torch.tensor(0.0), torch.tensor(0.0))) == pytest.approx(0.693147 / 4, abs=1e-6)
    assert float(quality_focal(torch.tensor(0.0), torch.tensor(0.5))) == 0
