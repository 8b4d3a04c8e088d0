"""The table of official networks."""

from __future__ import annotations

import re

import pytest

from scrfdkit.spec import ModelSpec
from scrfdkit.zoo import ALIASES, ZOO, find


def test_sixteen_networks_all_different() -> None:
    assert len(ZOO) == 16
    assert len({row.spec for row in ZOO.values()}) == 16
    assert len({row.config for row in ZOO.values()}) == 16
    assert all(name == row.name for name, row in ZOO.items())


@pytest.mark.parametrize("name", ZOO)
def test_every_spec_survives_json(name: str) -> None:
    assert ModelSpec.from_json(ZOO[name].spec.to_json()) == ZOO[name].spec


def test_key_points_go_with_the_name() -> None:
    assert {n for n, row in ZOO.items() if row.spec.head.num_keypoints} == {n for n in ZOO if n.endswith("_kps")}


def test_scale_is_missing_from_one_network_only() -> None:
    assert [name for name, row in ZOO.items() if not row.spec.head.scale] == ["scrfd_500m_kps"]


def test_aliases_lead_to_rows_and_hide_none() -> None:
    assert set(ALIASES.values()) <= set(ZOO)
    assert not set(ALIASES) & set(ZOO)


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("scrfd_2.5g_bnkps", "scrfd_2.5g_kps"),
        ("SCRFD_2.5G_KPS", "scrfd_2.5g_kps"),
        ("det_10g", "scrfd_10g_kps"),
        ("base_34g", "base_34g"),
    ],
)
def test_find(word: str, name: str) -> None:
    assert find(word).name == name


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ValueError, match=r"'yolo'.*scrfd_500m_kps.*base_34g"):
        find("yolo")


def test_published_figures_are_percentages_that_fall_with_difficulty() -> None:
    published = [row.published for row in ZOO.values() if row.published]
    assert len(published) == 12
    assert all(100 > p.easy > p.medium > p.hard > 50 for p in published)


def test_hashes_are_whole() -> None:
    hashes = [file.sha256 for row in ZOO.values() for file in row.official if file.sha256]
    assert len(set(hashes)) == len(hashes) >= 6
    assert all(re.fullmatch(r"[0-9a-f]{64}", h) for h in hashes)
