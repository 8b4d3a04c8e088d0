"""The torch module: keys, shapes, initial weights, tracing, and folding of batch norms."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from networks import CROWDHUMAN, gap, random_net
from torch import nn

from scrfdkit.model.net import blank, build, fuse
from scrfdkit.model.plan import state_shapes
from scrfdkit.zoo import ZOO

FAMILIES = ("scrfd_500m", "scrfd_500m_kps", "scrfd_2.5g", "scrfd_2.5g_kps", "scrfd_34g")
"""Every kind of block, norm, tower and sharing."""


def shapes(net: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in net.state_dict().items()}


@pytest.mark.parametrize("name", ZOO)
def test_state_dict_has_the_official_names(name: str) -> None:
    assert shapes(build(ZOO[name].spec)) == state_shapes(ZOO[name].spec)


def test_crowdhuman_keys_are_the_references(shared: Path) -> None:
    file = shared / "reference" / "keys" / "sd_scrfd_crowdhuman_2.5g_bnkps.json"
    golden = {key: tuple(shape) for key, shape in json.loads(file.read_text()).items()}
    golden.pop("bbox_head.integral.project")
    assert shapes(build(CROWDHUMAN)) == state_shapes(CROWDHUMAN) == golden


def test_crowdhuman_has_five_levels_of_one_anchor() -> None:
    with torch.inference_mode():
        outputs = build(CROWDHUMAN).eval()(torch.zeros(1, 3, 256, 128))
    sizes = [(256 // s, 128 // s) for s in (8, 16, 32, 64, 128)]
    assert [tuple(o.shape) for o in outputs] == [(1, c, *size) for c in (1, 4, 10) for size in sizes]


def test_levels_above_stride_32_read_the_level_below() -> None:
    neck = random_net(CROWDHUMAN).neck
    c3, c4, c5 = torch.rand(1, 48, 16, 16), torch.rand(1, 48, 8, 8), torch.rand(1, 80, 4, 4)
    levels = neck((c3, c4, c5))
    assert torch.equal(levels[3], neck.fpn_convs[3](levels[2]))
    assert torch.equal(levels[4], neck.fpn_convs[4](levels[3]))


@pytest.mark.parametrize("name", FAMILIES)
def test_output_is_scores_boxes_keypoints_in_both_modes(name: str) -> None:
    spec = ZOO[name].spec
    kinds = (2, 8, 20) if spec.head.num_keypoints else (2, 8)
    wanted = [(2, c, 64 // s, 96 // s) for c in kinds for s in (8, 16, 32)]
    net = build(spec)
    for mode in (True, False):
        outputs = net.train(mode)(torch.zeros(2, 3, 64, 96))
        assert type(outputs) is list
        assert [tuple(o.shape) for o in outputs] == wanted


def test_any_size_runs() -> None:
    with torch.inference_mode():
        outputs = build(ZOO["scrfd_2.5g"].spec).eval()(torch.zeros(1, 3, 75, 101))
    assert [tuple(o.shape[2:]) for o in outputs[:3]] == [(10, 13), (5, 7), (3, 4)]


def test_initial_weights_follow_the_reference() -> None:
    torch.manual_seed(1)
    net = build(ZOO["scrfd_2.5g_kps"].spec)
    state = net.state_dict()
    stem = state["backbone.stem.6.weight"]
    assert float(stem.std()) == pytest.approx(math.sqrt(2 / (stem.shape[0] * 9)), rel=0.05)
    assert not state["backbone.layer2.1.bn2.weight"].any()  # last norm of a residual block
    assert bool((state["backbone.layer2.1.bn1.weight"] == 1).all())
    assert bool((state["backbone.layer2.0.downsample.2.weight"] == 1).all())
    limit = math.sqrt(6 / (24 * 9 + 24 * 9))
    neck = state["neck.fpn_convs.1.conv.weight"]
    assert 0.95 * limit < float(neck.abs().max()) <= limit
    assert not state["neck.fpn_convs.1.conv.bias"].any()
    for key in ("cls_stride_convs.(8, 8).1.conv", "stride_reg.(16, 16)", "stride_kps.(32, 32)", "stride_cls.(8, 8)"):
        assert float(state[f"bbox_head.{key}.weight"].std()) == pytest.approx(0.01, rel=0.1), key
    assert not state["bbox_head.stride_reg.(16, 16).bias"].any()
    assert state["bbox_head.stride_cls.(32, 32).bias"].tolist() == pytest.approx([-4.595] * 2)
    assert float(state["bbox_head.scales.1.scale"]) == 1.0


def test_bottleneck_blocks_start_as_their_shortcut() -> None:
    state = build(ZOO["scrfd_34g"].spec).state_dict()
    assert not state["backbone.layer1.3.bn3.weight"].any()
    assert bool((state["backbone.layer1.3.bn2.weight"] == 1).all())


def test_a_fresh_network_learns() -> None:
    torch.manual_seed(0)
    net = build(ZOO["scrfd_500m_kps"].spec)
    x = torch.randn(2, 3, 64, 64)
    sum(o.square().mean() for o in net(x)).backward()  # type: ignore[union-attr]
    without = [name for name, p in net.named_parameters() if p.grad is None or not bool(torch.isfinite(p.grad).all())]
    assert without == []


@pytest.mark.parametrize("name", ZOO)
def test_folding_batch_norms_changes_nothing(name: str) -> None:
    net = random_net(ZOO[name].spec)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    fused = fuse(net)
    x = torch.randn(2, 3, 64, 96)
    outputs = net(x)
    size = max(float(o.abs().max()) for o in outputs)
    assert gap(outputs, fused(x)) <= 1e-4 * max(1.0, size)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_blank_leaves_the_random_generator_alone() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    assert shapes(blank(ZOO["scrfd_500m"].spec, fused=True)) == shapes(fuse(build(ZOO["scrfd_500m"].spec).eval()))
    torch.manual_seed(5)
    blank(ZOO["scrfd_500m"].spec, fused=False)
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.parametrize("name", FAMILIES)
def test_fx_traces_it(name: str) -> None:
    net = random_net(ZOO[name].spec)
    x = torch.randn(1, 3, 64, 64)
    assert gap(net(x), torch.fx.symbolic_trace(net)(x)) == 0


@pytest.mark.parametrize("name", ("scrfd_500m_kps", "scrfd_2.5g"))
def test_export_takes_it_with_dynamic_sizes(name: str) -> None:
    net = fuse(random_net(ZOO[name].spec))
    batch, height, width = (torch.export.Dim(n, min=1, max=32) for n in ("batch", "height", "width"))
    shapes_of_x = ({0: batch, 2: 32 * height, 3: 32 * width},)
    program = torch.export.export(net, (torch.randn(2, 3, 96, 64),), dynamic_shapes=shapes_of_x)
    x = torch.randn(3, 3, 64, 128)
    assert gap(net(x), program.module()(x)) <= 1e-5


def test_meta_device_allocates_nothing() -> None:
    with torch.device("meta"):
        net = build(ZOO["scrfd_34g"].spec).eval()
        outputs = fuse(net)(torch.empty(1, 3, 640, 640))
    assert all(p.is_meta for p in net.parameters())
    assert outputs[0].shape == (1, 2, 80, 80)
