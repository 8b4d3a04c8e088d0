"""Specs: their JSON, and every mistake they refuse."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from scrfdkit.spec import Backbone, Head, Input, ModelSpec, Neck
from scrfdkit.zoo import ZOO

SPEC = ZOO["scrfd_500m"].spec


def test_json_round_trip_keeps_every_field() -> None:
    spec = replace(SPEC, input=Input(mean=0.0, std=255.0))
    assert ModelSpec.from_json(spec.to_json()) == spec
    assert hash(ModelSpec.from_json(spec.to_json())) == hash(spec)


def test_fields_with_defaults_may_be_missing_from_json() -> None:
    data = json.loads(SPEC.to_json())
    for name in ("num_keypoints", "strides", "anchor_sizes", "anchor_ratio"):
        del data["head"][name]
    del data["input"]
    assert ModelSpec.from_json(json.dumps(data)) == SPEC


def test_derived_numbers() -> None:
    bottleneck = ZOO["scrfd_34g"].spec
    assert bottleneck.backbone.out_channels == (224, 224, 576, 736)
    assert SPEC.backbone.out_channels == SPEC.backbone.widths
    assert SPEC.head.num_anchors == 2


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("backbone", {"block": "vgg"}, "backbone.block: 'vgg'"),
        ("backbone", {"stem": (16,)}, "backbone.stem: separable needs 2"),
        ("backbone", {"block": "basic"}, "backbone.stem: basic needs 3"),
        ("backbone", {"blocks": (1, 2, 3)}, "backbone.blocks: four"),
        ("backbone", {"widths": (1, 2, 3, 4, 5)}, "backbone.widths: four"),
        ("backbone", {"widths": (1, 2, 3, 0)}, "backbone: whole numbers"),
        ("neck", {"channels": 0}, "neck.channels"),
        ("head", {"norm": "ln"}, "head.norm: 'ln'"),
        ("head", {"depth": 0}, "head.depth, head.channels"),
        ("head", {"groups": 0}, "head.groups: 0 does not divide"),
        ("head", {"groups": 7}, "head.groups: 7 does not divide 64"),
        ("head", {"num_keypoints": -1}, "num_keypoints"),
        ("head", {"strides": (8, 16), "anchor_sizes": ((1,), (2,))}, "head.strides"),
        ("head", {"anchor_sizes": ((16, 32), (64,), (256,))}, "anchor_sizes"),
        ("input", {"std": 0.0}, "input: mean and std"),
    ],
)
def test_mistakes_are_named(part: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(getattr(SPEC, part), **change)


def test_groups_must_divide_the_neck_of_a_depthwise_tower() -> None:
    with pytest.raises(ValueError, match="neck's 24 channels"):
        replace(SPEC, neck=Neck(24))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", "JSON object"),
        ("{", "Expecting"),
        (json.dumps(asdict(SPEC) | {"tail": {}}), r"unknown fields \['tail'\]"),
        (json.dumps({"neck": {"channels": 1}}), "missing fields"),
        (json.dumps(asdict(SPEC) | {"neck": 3}), "neck must be an object"),
        (json.dumps(asdict(SPEC) | {"neck": {"channels": 3, "depth": 1}}), r"neck has unknown fields \['depth'\]"),
        (json.dumps(asdict(SPEC) | {"neck": {}}), "neck: .*channels"),
    ],
)
def test_bad_json_is_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelSpec.from_json(text)


def test_specs_are_built_from_their_parts() -> None:
    head = Head(depth=1, channels=8, norm="bn", groups=0, shared=False, depthwise=False, scale=False)
    spec = ModelSpec(Backbone("basic", (4, 4, 8), (1, 1, 1, 1), (8, 8, 8, 8)), Neck(8), head)
    assert spec.input == Input(127.5, 128.0)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"mean":127.5', '"mean":"a"'),
        ('"std":128.0', '"std":0'),
        ('"strides":[8,16,32]', '"strides":[7,16,32]'),
        ('"channels":16', '"channels":1000000'),
        ('"channels":16', '"channels":16.5'),
        ('"num_keypoints":5', '"num_keypoints":-1'),
    ],
)
def test_numbers_that_no_network_has_are_refused(old: str, new: str) -> None:
    text = ZOO["scrfd_500m_kps"].spec.to_json()
    assert old in text
    with pytest.raises(ValueError, match=r"input|head|neck"):
        ModelSpec.from_json(text.replace(old, new, 1))
