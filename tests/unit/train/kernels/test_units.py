"""Which modules the kernels take over, and when they leave them alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from scrfdkit.model.blocks import BasicBlock, conv1x1, conv3x3, normed, separable, tower_unit
from scrfdkit.model.net import build
from scrfdkit.train.kernels import units as room
from scrfdkit.train.kernels.accelerate import chains_of
from scrfdkit.train.kernels.check import usable
from scrfdkit.train.kernels.units import applies, out_sizes, units_of
from scrfdkit.zoo import ZOO


def stem() -> nn.Sequential:
    return nn.Sequential(*normed(conv3x3(3, 16, 2)))


def test_units_share_the_networks_modules() -> None:
    modules = [stem(), separable(16, 24, 2)]
    units = units_of(modules)
    assert units is not None
    assert [(u.kind, u.source, u.out, u.stride) for u in units] == [
        ("stem", 3, 16, 2),
        ("depthwise", 16, 16, 2),
        ("pointwise", 16, 24, 1),
    ]
    assert units[1].parameters[0] is modules[1][0].weight
    assert units[2].norm is modules[1][4]


@pytest.mark.parametrize(
    "modules",
    [
        [],
        [nn.Sequential(*normed(conv3x3(16, 16)))],  # neither depth-wise nor of three channels
        [separable(16, 16, 1), stem()[:2]],
        [separable(3, 3, 1), stem()],  # pictures come first
        [BasicBlock(8, 8, 1)],
        [tower_unit(16, 16, 4, True)],  # group norm
        [nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU())],  # bias
        [nn.Sequential(conv1x1(8, 8), nn.BatchNorm2d(8, affine=False), nn.ReLU())],
        [nn.Sequential(conv1x1(8, 8), nn.BatchNorm2d(8, momentum=None), nn.ReLU())],
        [nn.Sequential(conv1x1(8, 8), nn.SyncBatchNorm(8), nn.ReLU())],
        [nn.Sequential(conv1x1(8, 8), nn.BatchNorm2d(8), nn.ReLU6())],
        [nn.Sequential(nn.Conv2d(8, 8, 3, 1, 2, dilation=2, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU())],
        [nn.Sequential(nn.Conv2d(8, 8, 1, 2, bias=False), nn.BatchNorm2d(8), nn.ReLU())],
    ],
)
def test_anything_else_is_no_chain(modules: list[nn.Module]) -> None:
    assert units_of(modules) is None


@pytest.mark.parametrize(
    ("name", "lengths"),
    [
        ("scrfd_500m", [13]),
        ("scrfd_500m_kps", [13, 4, 4, 4]),
        ("scrfd_1g", [13]),
        ("scrfd_1gbn", [13, 4, 4, 4]),
        ("scrfd_2.5g_kps", []),
    ],
)
def test_chains_of_the_zoo(name: str, lengths: list[int]) -> None:
    assert [len(units) for units in chains_of(build(ZOO[name].spec))] == lengths


def test_sizes_are_those_of_the_modules() -> None:
    modules = nn.Sequential(stem(), separable(16, 16, 2), separable(16, 16, 1))
    units = units_of([modules])
    assert units is not None
    assert out_sizes(units, 75, 102)[-1] == tuple(modules(torch.zeros(2, 3, 75, 102)).shape[2:])


def test_modules_run_wherever_kernels_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = nn.Sequential(separable(16, 16, 2))
    units = units_of([modules])
    assert units is not None
    x = torch.zeros(2, 16, 4, 4, requires_grad=True)
    assert not applies(units, x)  # on the CPU
    monkeypatch.setattr(room, "INTERPRETED", True)
    assert applies(units, x)
    assert applies(units, x.bfloat16())
    assert not applies(units, x.double())
    assert not applies(units, x[:1, :, :2, :2])  # one pixel has no variance
    huge = torch.empty(2**15, 16, 64, 64, device="meta")
    assert not applies(units, huge)
    assert applies(units, huge[: 2**15 - 1])
    units[1].norm.eval()
    assert not applies(units, x)
    units[1].norm.train()
    units[0].conv.weight.requires_grad_(False)
    assert not applies(units, x)
    units[0].conv.weight.requires_grad_(True)
    modules.bfloat16()
    assert not applies(units, x)


def test_a_gradient_of_pictures_is_left_to_the_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "INTERPRETED", True)
    units = units_of([stem()])
    assert units is not None
    assert applies(units, torch.zeros(2, 3, 8, 8))
    assert not applies(units, torch.zeros(2, 3, 8, 8, requires_grad=True))


def test_a_device_without_kernels_says_why() -> None:
    assert "CUDA" in str(usable("cpu")) or "triton" in str(usable("cpu"))
