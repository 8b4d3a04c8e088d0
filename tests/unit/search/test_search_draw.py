"""Sampling: seeded, exact in its FLOPs, with the rates of acceptance that the reference's rules have."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from scrfdkit.errors import OptionError
from scrfdkit.model.cost import cost, flops_of_many
from scrfdkit.search.candidate import BACKBONE, shares
from scrfdkit.search.draw import accept, sample
from scrfdkit.search.space import BackboneSpace, CropSpace, WholeSpace, backbone_space, budget_of
from scrfdkit.train.recipe import Recipe
from scrfdkit.zoo import ZOO

RELEASED = ZOO["scrfd_2.5g"].spec


def step_two(budget: float = 2.5e9) -> WholeSpace:
    return WholeSpace(budget, RELEASED)


@pytest.mark.parametrize("name", sorted(ZOO))
def test_counted_many_at_a_time_flops_are_those_of_the_walk(name: str) -> None:
    spec = ZOO[name].spec
    body, head = spec.backbone, spec.head
    arrays = [[np.array([v, v + 8]) for v in part] for part in (body.stem, body.blocks, body.widths)]
    neck, depth, tower = (np.array([v, v + 8]) for v in (spec.neck.channels, head.depth, head.channels))
    found = flops_of_many(body.block, *arrays, neck, (depth, tower), head)
    for row, more in enumerate((0, 8)):
        grown = replace(
            body, **{part: tuple(v + more for v in getattr(body, part)) for part in ("stem", "blocks", "widths")}
        )
        groups = head.groups and 8
        other = replace(
            spec,
            backbone=grown,
            neck=replace(spec.neck, channels=spec.neck.channels + more),
            head=replace(head, depth=head.depth + more, channels=head.channels + more, groups=groups),
        )
        exact = {part.name: part.flops for part in cost(other).parts}
        assert {part: int(values[row]) for part, values in found.items()} == exact


def test_networks_with_and_without_a_widening_first_stage_are_not_walked_together() -> None:
    stem, widths = (8, 8, np.array([16, 24])), (np.array([16, 16]), 32, 32, 64)
    with pytest.raises(ValueError, match="cannot be walked together"):
        flops_of_many("basic", stem, (1, 1, 1, 1), widths, 16, (2, 32), RELEASED.head)


@pytest.mark.parametrize(
    ("space", "draws", "rate"),
    [(backbone_space(2.5e9), 400_000, 0.0072), (step_two(), 2_600_000, 0.00017)],
    ids=["backbone", "all"],
)
def test_as_many_draws_are_accepted_as_by_the_reference(
    space: BackboneSpace | WholeSpace, draws: int, rate: float
) -> None:
    """Published rules give 0.72 % and 0.014 to 0.02 %. The bounds are four standard errors of a count."""
    random = np.random.default_rng(7)
    accepted = sum(1 for _ in accept(space, draws, random))
    expected = draws * rate
    assert abs(accepted - expected) < 4 * expected**0.5


def test_backbones_meet_the_budget_exactly_counted_and_come_in_both_kinds() -> None:
    space = backbone_space(2.5e9)
    found = sample(space, 64, seed=3)
    assert [c.number for c in found.candidates] == list(range(1, 65))
    assert len({c.spec for c in found.candidates}) == 64
    kinds = Counter(c.spec.backbone.block for c in found.candidates)
    assert min(kinds["basic"], kinds["bottleneck"]) > 15
    for candidate in found.candidates:
        spec, body = candidate.spec, candidate.spec.backbone
        assert abs(cost(spec).flops - 2.5e9) <= 0.02 * 2.5e9
        assert (spec.neck, spec.head) == (ZOO["base_2.5g"].spec.neck, ZOO["base_2.5g"].spec.head)
        assert body.stem == (body.widths[0] // 2, body.widths[0] // 2, body.widths[0])
        assert all(width % 8 == 0 for width in body.widths)
        assert list(body.widths) == sorted(body.widths)
        assert all(1 <= depth <= 10 for depth in body.blocks)
        assert candidate.traits == shares(spec)


def test_whole_detectors_compute_where_the_template_does() -> None:
    own = {part.name: part.flops for part in cost(RELEASED).parts}
    found = sample(step_two(), 64, seed=3)
    bodies = {(c.spec.backbone.blocks, c.spec.backbone.widths) for c in found.candidates}
    # The only two that survive the rules, as in the reference.
    assert bodies == {((3, 5, 3, 2), (24, 48, 48, 80)), ((3, 5, 3, 2), (16, 32, 32, 56))}
    for candidate in found.candidates:
        flops = {part.name: part.flops for part in cost(candidate.spec).parts}
        assert abs(sum(flops.values()) - 2.5e9) <= 0.02 * 2.5e9
        for stage in BACKBONE[1:]:
            ratio = flops[stage] / flops["stem"]
            assert abs(own[stage] / own["stem"] - ratio) <= 0.1 * ratio
        head = candidate.spec.head
        assert head.channels % head.groups == 0
        assert head.groups == 64 or head.channels % (2 * head.groups) or head.groups == 8


def test_the_released_network_lies_in_both_spaces() -> None:
    first = backbone_space(2.5e9, template=RELEASED)
    body = RELEASED.backbone
    assert body.block in first.blocks
    assert first.base[0] <= body.stem[-1] <= first.base[1]
    assert all(first.depth[0] <= depth <= first.depth[1] for depth in body.blocks)
    for before, width in zip(body.widths, body.widths[1:], strict=False):
        # The least ratio, a little above width / before, that is not cut down below this width.
        ratio = max(first.ratio[0], width / before + 1e-9)
        assert ratio <= first.ratio[1]
        assert int(before * ratio) // 8 * 8 == width
    assert abs(cost(RELEASED).flops - first.budget) <= first.tolerance * first.budget
    # Step 2 really draws it, neck and tower too; the rule for groups is another than what was released.
    drawn = {replace(c.spec, head=replace(c.spec.head, groups=8)) for c in sample(step_two(), 80, seed=0).candidates}
    assert replace(RELEASED, head=replace(RELEASED.head, groups=8)) in drawn


@pytest.mark.parametrize("budget", ["500M", "1G", "10G", "34G"])
def test_other_budgets(budget: str) -> None:
    flops = budget_of(budget)
    space = backbone_space(flops)
    for candidate in sample(space, 16).candidates:
        assert abs(cost(candidate.spec).flops - flops) <= 0.02 * flops
        assert (candidate.spec.backbone.block == "separable") == (flops < 1.2e9)


@pytest.mark.parametrize("name", ["scrfd_500m", "scrfd_500m_kps", "scrfd_1g", "scrfd_10g_kps", "scrfd_34g"])
def test_step_two_around_other_networks(name: str) -> None:
    spec = ZOO[name].spec
    budget = cost(spec).flops
    for candidate in sample(WholeSpace(budget, spec), 4).candidates:
        assert abs(cost(candidate.spec).flops - budget) <= 0.02 * budget
        kept = ("norm", "shared", "depthwise", "scale", "num_keypoints")
        assert all(getattr(candidate.spec.head, field) == getattr(spec.head, field) for field in kept)


def test_a_template_whose_first_stage_widens() -> None:
    """1.3g's stem has 16 channels as its first stage; scaled, other templates' may differ from it by rounding."""
    body = replace(RELEASED.backbone, stem=(10, 10, 20))
    template = replace(RELEASED, backbone=body)
    found = sample(WholeSpace(cost(template).flops, template, likeness=0.5), 8).candidates
    assert len(found) == 8


def test_a_seed_gives_the_same_candidates_and_a_longer_sample_begins_alike() -> None:
    space = backbone_space(2.5e9)
    first, again, longer, other = (sample(space, n, s) for n, s in ((16, 5), (16, 5), (40, 5), (16, 6)))
    assert first == again
    assert longer.candidates[:16] == first.candidates
    assert {c.spec for c in first.candidates} != {c.spec for c in other.candidates}


def test_narrowed_shares_hold() -> None:
    shares_of = {"C2": (0.1, 0.2), "C5": (0.0, 0.2)}
    space = replace(backbone_space(2.5e9), shares=shares_of)
    for candidate in sample(space, 16).candidates:
        for name, (low, high) in shares_of.items():
            assert low <= candidate.traits[name] <= high


def test_a_space_that_holds_too_few() -> None:
    space = replace(backbone_space(2.5e9), base=(24, 24), depth=(3, 3), ratio=(1.9, 2.0), tolerance=0.2)
    many = WholeSpace(cost(RELEASED).flops, RELEASED, (1, 1), (1, 1), (24, 24), (64, 64), (2, 2))
    with pytest.raises(OptionError, match=r"only 1 networks of this space"):
        sample(many, 2)
    with pytest.raises(OptionError, match="--num 0"):
        sample(space, 0)


def test_crop_ratios() -> None:
    space = CropSpace(ZOO["scrfd_500m_kps"].spec)
    found = sample(space, 64, seed=1).candidates
    for candidate in found:
        ratios = candidate.recipe["crop.ratios"]
        assert len(ratios) == 10
        assert list(ratios) == sorted(ratios)
        assert space.smallest[0] <= candidate.traits["smallest"] == ratios[0] <= space.smallest[1]
        assert space.largest[0] <= candidate.traits["largest"] == ratios[-1] <= space.largest[1]
        assert Recipe().change(candidate.recipe).crop.ratios == ratios
        assert candidate.spec == space.template
    lean = [c for c in found if c.traits["lean"] > 0.5]
    crowd = [c for c in found if c.traits["lean"] < -0.5]
    middles = [
        np.mean(
            [
                np.log(c.recipe["crop.ratios"][4] / c.traits["smallest"])
                / np.log(c.traits["largest"] / c.traits["smallest"])
                for c in some
            ]
        )
        for some in (lean, crowd)
    ]
    assert middles[0] < 0.4
    assert middles[1] > 0.55


def test_the_reference_crop_lists_are_close_to_members() -> None:
    for reference in ((0.3, 0.45, 0.6, 0.8, 1.0), (0.3, 0.45, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0)):
        best = np.inf
        for lean in np.linspace(-1, 1, 21):
            place = np.linspace(0, 1, len(reference)) ** np.exp(lean)
            best = min(best, np.abs(np.log(reference[0] * (reference[-1] / reference[0]) ** place / reference)).max())
        assert best < 0.1


def test_draws_come_in_their_order_so_that_few_candidates_are_of_both_kinds() -> None:
    """Of 16 from each of 20 seeds, half are bottlenecks; the bounds are four standard errors of that count."""
    space = backbone_space(2.5e9)
    bottlenecks = sum(
        candidate.spec.backbone.block == "bottleneck"
        for seed in range(20)
        for candidate in sample(space, 16, seed).candidates
    )
    assert abs(bottlenecks - 160) < 4 * (320 * 0.25) ** 0.5
