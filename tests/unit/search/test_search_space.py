"""Spaces as data: budgets in words, families, JSON there and back, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from scrfdkit.errors import OptionError
from scrfdkit.search.space import (
    KINDS,
    BackboneSpace,
    CropSpace,
    Space,
    WholeSpace,
    backbone_space,
    budget_of,
    from_dict,
    kind_of,
    to_dict,
)
from scrfdkit.zoo import ZOO

SPEC = ZOO["scrfd_2.5g"].spec
SPACES: dict[str, Space] = {
    "backbone": backbone_space(2.5e9),
    "narrowed": replace(backbone_space(5e8), shares={"stem": (0.1, 0.2)}),
    "all": WholeSpace(2.5e9, SPEC),
    "crops": CropSpace(SPEC),
}


@pytest.mark.parametrize(
    ("text", "flops"),
    [("2.5G", 2.5e9), ("500M", 5e8), ("500mf", 5e8), ("0.5GFLOPs", 5e8), ("3e9", 3e9), ("10 G", 1e10)],
)
def test_budgets_in_words(text: str, flops: float) -> None:
    assert budget_of(text) == flops


@pytest.mark.parametrize("text", ["0", "0G", "1e400", "", "G", "-1G", "2.5T", "2,5G", "much", "1e"])
def test_what_is_no_budget(text: str) -> None:
    with pytest.raises(OptionError, match="--budget"):
        budget_of(text)


@pytest.mark.parametrize(
    ("budget", "template"),
    [
        (5e8, "base_500m"),
        (1e9, "base_1g"),
        (1.3e9, "base_1.3g"),
        (2.5e9, "base_2.5g"),
        (1e10, "base_10g"),
        (3.4e10, "base_34g"),
    ],
)
def test_the_template_is_the_nearest_baseline(budget: float, template: str) -> None:
    space = backbone_space(budget)
    assert space.template == ZOO[template].spec
    assert space.blocks == (("separable",) if budget < 1.2e9 else ("basic", "bottleneck"))


def test_the_space_of_2_5_gflops_is_the_published_one() -> None:
    space = backbone_space(2.5e9)
    assert (space.base, space.depth, space.ratio, space.tolerance) == ((8, 64), (1, 10), (1.0, 4.0), 0.02)
    second = WholeSpace(2.5e9, SPEC)
    assert (second.depth_ratio, second.width_ratio) == ((0.5, 3.0), (0.5, 3.0))
    assert (second.neck, second.tower, second.tower_depth) == ((8, 128), (8, 256), (1, 4))
    assert second.likeness == 5 * second.tolerance


def test_a_family_of_ones_own() -> None:
    assert backbone_space(2e9, "separable").blocks == ("separable",)
    assert backbone_space(5e8, "residual").template == ZOO["base_1.3g"].spec


@pytest.mark.parametrize("name", SPACES)
def test_there_and_back_as_json(name: str) -> None:
    space = SPACES[name]
    assert from_dict(json.loads(json.dumps(to_dict(space)))) == space
    assert isinstance(space, KINDS[kind_of(space)])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": "genetic"}, "kind"),
        ({"budgets": 1}, "unknown fields"),
        ({"template": {}}, "missing"),
        ({"base": [64, 8]}, "base"),
        ({"base": 8}, "space"),
        ({"shares": {"C2": [0.5, 0.1]}}, "shares.C2"),
        ({"shares": 3}, "space"),
        ({"tolerance": 0}, "tolerance"),
        ({"blocks": []}, "blocks"),
        ({"blocks": ["x"]}, "blocks"),
        ({"blocks": ["basic", "separable"]}, "blocks"),
        ({"shares": {"nonsense": [0.1, 0.2]}}, "shares.nonsense"),
        ({"shares": {"C2": [0.1, 2]}}, "shares.C2"),
        ({"depth": [1, 1e30]}, "depth"),
        ({"base": [8.5, 64.2]}, "base"),
        ({"ratio": [1, 1e300]}, "ratio"),
        ({"kind": [1]}, "kind"),
        ({"budget": 1}, "budget"),
    ],
)
def test_damaged_spaces(change: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        from_dict(to_dict(SPACES["backbone"]) | change)


def test_missing_fields_and_other_things() -> None:
    data = to_dict(SPACES["all"])
    del data["template"]
    with pytest.raises(OptionError, match="template"):
        from_dict(data)
    for other in (None, [], "all", 3):
        with pytest.raises(OptionError, match="object"):
            from_dict(other)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (WholeSpace, {"likeness": 0.0}),
        (WholeSpace, {"neck": (0, 8)}),
        (CropSpace, {"smallest": (0.2, 1.2)}),
        (CropSpace, {"lean": (-9.0, 1.0)}),
        (CropSpace, {"slots": 1}),
        (CropSpace, {"slots": 2.5}),
        (CropSpace, {"smallest": (0.0, 0.5)}),
    ],
)
def test_ranges_that_mean_nothing(kind: type[Any], fields: dict[str, Any]) -> None:
    words = {"template": SPEC} | ({} if kind is CropSpace else {"budget": 1e9})
    with pytest.raises(OptionError):
        kind(**words, **fields)


def test_blocks_stay_the_published_kinds() -> None:
    assert isinstance(SPACES["backbone"], BackboneSpace)
