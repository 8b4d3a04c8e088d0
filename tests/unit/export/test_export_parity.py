"""The comparison that decides whether a file is written: it must see every kind of difference."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from export_files import SPECS, source

from scrfdkit.errors import ModelError
from scrfdkit.export.contract import Contract
from scrfdkit.export.parity import SIZES, Case, Parity, blob_of, cases, compare_heads, pictures, worst
from scrfdkit.export.reference import Reference
from scrfdkit.letterbox import blank, draw, place_fixed
from scrfdkit.model.net import SCRFD
from scrfdkit.spec import Input

SPEC = SPECS["basic, bn"]
SMALL = Contract("maps", size=(64, 96), batch=2)


def compare(changed: SCRFD) -> Case:
    (case,) = compare_heads(Reference(source(SPEC).net), Reference(changed), SMALL, SPEC.input)
    return case


@pytest.mark.parametrize(("output", "kind"), [("cls", "scores"), ("reg", "boxes"), ("kps", "keypoints")])
def test_a_change_shows_where_it_was_made(output: str, kind: str) -> None:
    net = copy.deepcopy(source(SPEC).net)
    assert compare(net) == Case(64, 96, 2, 0.0, 0.0, 0.0)
    with torch.no_grad():
        net.get_parameter(f"bbox_head.stride_{output}.(16, 16).bias")[-1] += 0.25
    case = compare(net)
    if kind == "scores":
        assert 0.01 < case.scores < 0.25, "a probability, not a logit"
    else:
        assert getattr(case, kind) == pytest.approx(0.25, abs=1e-4)
    assert {name for name in ("scores", "boxes", "keypoints") if getattr(case, name) > 0} == {kind}


def test_a_forgotten_sigmoid_is_a_difference() -> None:
    runtime = Reference(source(SPEC).net)
    (case,) = compare_heads(runtime, runtime, replace(SMALL, sigmoid=True), SPEC.input)
    assert case.scores > 0.1


def test_another_head_is_an_error() -> None:
    other = source(SPECS["separable, gn"])
    with pytest.raises(ModelError, match="different outputs"):
        compare(other.net)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("head", ["cls", "reg", "kps"])
def test_what_is_no_number_never_passes(head: str, stride: int, value: float) -> None:
    net = copy.deepcopy(source(SPEC).net)
    with torch.no_grad():
        net.get_parameter(f"bbox_head.stride_{head}.({stride}, {stride}).bias")[0] = value
    case = compare(net)
    if head != "cls" or math.isnan(value):  # a logit without an end is the probability 1
        assert not math.isfinite(case.largest)
    for tolerance in (1e-3, None):
        parity = Parity("one", "other", (Case(32, 32, 1, 0.0, 0.0), case), tolerance)
        assert not parity.passed or math.isfinite(case.largest)
        assert bool(parity.complaint()) is not parity.passed


def test_the_largest_is_no_number_where_one_is_none() -> None:
    assert math.isnan(worst([0.0, math.nan, 1.0]))
    assert math.isnan(worst([math.nan, 1.0]))
    assert worst([]) == 0.0
    assert worst([1.0, 2.0]) == 2.0


def test_the_tolerance_decides() -> None:
    near, far = Case(32, 32, 1, 1e-4, 1e-3, 0.0, 1e-5), Case(64, 64, 2, 0.0, 0.0, 0.0, 2e-3)
    assert Parity("a", "b", (near,)).passed
    assert Parity("a", "b", (near,)).complaint() == ""
    both = Parity("a", "b", (near, far))
    assert (both.largest, both.passed) == (2e-3, False)
    assert both.complaint() == "b differs from a by up to 0.002, and at most 0.001 is allowed"
    told = both.to_dict()
    assert (told["passed"], told["largest"], told["cases"][1]["faces"]) == (False, 2e-3, 2e-3)


def test_cases_keep_to_the_contract() -> None:
    assert cases(Contract()) == [(SIZES[0], 1), (SIZES[1], 2), (SIZES[2], 3)]
    assert cases(Contract(batch=4)) == [(size, 4) for size in SIZES]
    assert cases(Contract(size=(64, 32))) == [((64, 32), 1), ((64, 32), 2), ((64, 32), 3)]
    assert cases(Contract(size=(64, 32), batch=8)) == [((64, 32), 8)]


def test_pictures_are_a_face_and_more() -> None:
    canvases = pictures((96, 160), 3)
    assert canvases.shape == (3, 160, 96, 3)
    assert canvases[0, :96].std() > 30
    assert not canvases[0, 96:].any()
    assert np.array_equal(canvases[1], canvases[0, :, ::-1])
    assert canvases[2, 96:].std() > 30


def test_the_blob_is_that_of_the_letterbox() -> None:
    spec = Input(100.0, 50.0)
    canvases = pictures((96, 64), 2)
    drawn = blank(2, (96, 64))
    for picture, slot in zip(canvases, drawn, strict=True):
        draw(picture, place_fixed(96, 64, (96, 64)), slot, spec)
    assert np.abs(blob_of(canvases, spec) - drawn).max() <= 1e-6
