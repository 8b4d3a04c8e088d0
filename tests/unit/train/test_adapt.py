"""Weights of one network for another with a changed head."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from networks import gap, random_net

from scrfdkit.errors import OptionError, WeightError
from scrfdkit.model.net import build, fuse
from scrfdkit.model.plan import state_shapes
from scrfdkit.spec import ModelSpec
from scrfdkit.train.adapt import change_head, transfer, unfold
from scrfdkit.zoo import ZOO

BN = ZOO["scrfd_2.5g_kps"].spec
GN = ZOO["scrfd_2.5g"].spec


def kept(source: ModelSpec, target: ModelSpec) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    state = random_net(source).state_dict()
    return state, transfer(state, source, target)


def test_the_same_network_keeps_everything() -> None:
    state, new = kept(BN, BN)
    assert list(new) == list(state_shapes(BN))
    assert all(torch.equal(value, state[key]) for key, value in new.items())


@pytest.mark.parametrize("points", [0, 3, 98])
def test_another_number_of_key_points_makes_only_their_convolutions_new(points: int) -> None:
    target = change_head(BN, points)
    assert target.head.num_keypoints == points
    _, new = kept(BN, target)
    fresh = set(state_shapes(target)) - set(new)
    assert fresh == {key for key in state_shapes(target) if key.startswith("bbox_head.stride_kps")}
    assert len(fresh) == (6 if points else 0)
    net = random_net(target)
    net.load_state_dict(new, strict=False)
    x = torch.randn(1, 3, 64, 64)
    assert gap(net(x)[:6], random_net(BN)(x)[:6]) == 0


def test_points_can_be_added() -> None:
    with_points, without = ZOO["scrfd_2.5g_kps"].spec, change_head(ZOO["scrfd_2.5g_kps"].spec, 0)
    _, new = kept(without, with_points)
    assert {key.split(".")[1] for key in set(state_shapes(with_points)) - set(new)} == {"stride_kps"}


def test_a_shared_head_comes_from_the_finest_level() -> None:
    target = change_head(BN, norm="gn")
    head = target.head
    assert (head.norm, head.groups, head.shared, head.scale, head.num_keypoints) == ("gn", 16, True, True, 5)
    state, new = kept(BN, target)
    for theirs, ours in (
        ("bbox_head.cls_stride_convs.(8, 8).1.conv.weight", "bbox_head.cls_stride_convs.0.1.conv.weight"),
        ("bbox_head.stride_cls.(8, 8).bias", "bbox_head.stride_cls.0.bias"),
        ("bbox_head.stride_kps.(8, 8).weight", "bbox_head.stride_kps.0.weight"),
        ("bbox_head.scales.2.scale", "bbox_head.scales.2.scale"),
        ("neck.fpn_convs.1.conv.bias", "neck.fpn_convs.1.conv.bias"),
    ):
        assert torch.equal(new[ours], state[theirs])
    assert set(state_shapes(target)) - set(new) == {
        f"bbox_head.cls_stride_convs.0.{unit}.gn.{kind}" for unit in (0, 1) for kind in ("weight", "bias")
    }


def test_every_level_gets_a_copy_of_a_shared_head() -> None:
    target = change_head(GN, norm="bn")
    assert (target.head.norm, target.head.groups, target.head.shared) == ("bn", 0, False)
    state, new = kept(GN, target)
    for stride in (8, 16, 32):
        for kind in ("cls_stride_convs", "stride_cls", "stride_reg"):
            name = "0.conv.weight" if kind == "cls_stride_convs" else "weight"
            key = f"bbox_head.{kind}.({stride}, {stride}).{name}"
            assert torch.equal(new[key], state[f"bbox_head.{kind}.0.{name}"])
    assert all(".bn." in key for key in set(state_shapes(target)) - set(new))


@pytest.mark.parametrize("name", ["scrfd_1gbn", "scrfd_500m_kps", "scrfd_10g_kps"])
def test_groups_are_those_of_the_official_sister(name: str) -> None:
    sister = {"scrfd_1gbn": "scrfd_1g", "scrfd_500m_kps": "scrfd_500m", "scrfd_10g_kps": "scrfd_10g"}[name]
    assert change_head(ZOO[name].spec, 0, "gn") == ZOO[sister].spec


def test_what_is_there_already_changes_nothing() -> None:
    assert change_head(BN, 5, "bn") == BN == change_head(BN)
    assert change_head(GN, 0, "gn") == GN


@pytest.mark.parametrize("points", [-1, 10**9])
def test_impossible_numbers_of_points_are_refused(points: int) -> None:
    with pytest.raises(OptionError, match="num_keypoints"):
        change_head(BN, points)


def test_another_backbone_is_refused() -> None:
    with pytest.raises(WeightError, match="another backbone"):
        kept(ZOO["scrfd_10g_kps"].spec, BN)


def test_outputs_for_other_anchors_are_not_kept() -> None:
    target = replace(BN, head=replace(BN.head, anchor_sizes=((16,), (64,), (256,)), num_keypoints=10))
    _, new = kept(BN, target)  # as many numbers for key points a cell, but of other meaning
    kinds = {key.split(".")[1] for key in set(state_shapes(target)) - set(new)}
    assert kinds == {"stride_cls", "stride_reg", "stride_kps"}


def test_unfolding_gives_the_state_dict_of_the_network() -> None:
    fused = fuse(random_net(GN)).state_dict()
    state = unfold(fused, GN)
    assert {key: tuple(value.shape) for key, value in state.items()} == state_shapes(GN)
    build(GN).load_state_dict(state)
    assert list(fused) == list(fuse(random_net(GN)).state_dict())  # the given one stays
    assert unfold(state, GN) == state  # and what has its norms is left alone
