"""The accelerated forward pass is the network's own: maps, gradients, running statistics."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from networks import CROWDHUMAN
from networks import gap as networks_gap
from torch import Tensor

from scrfdkit.model.net import SCRFD, build
from scrfdkit.spec import ModelSpec
from scrfdkit.train.kernels.accelerate import accelerate, merged_outputs
from scrfdkit.zoo import ZOO

SPECS = {
    **{name: ZOO[name].spec for name in ("scrfd_500m", "scrfd_500m_kps", "scrfd_1gbn", "scrfd_2.5g", "scrfd_34g")},
    "crowdhuman": CROWDHUMAN,  # five levels, scales, key points
}


def gap(first: list[Tensor], second: list[Tensor]) -> float:
    return networks_gap([one.detach() for one in first], [one.detach() for one in second])


def same(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def rough_net(spec: ModelSpec) -> SCRFD:
    """Training mode; scales are not 1, biases not 0."""
    torch.manual_seed(0)
    net = build(spec)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return net


def backward(maps: list[Tensor]) -> None:
    torch.manual_seed(1)
    torch.autograd.backward(maps, [torch.randn(m.shape).to(m.dtype) for m in maps])


@pytest.mark.parametrize("name", SPECS)
def test_maps_gradients_and_statistics_are_the_networks(name: str) -> None:
    net = rough_net(SPECS[name]).double()  # rounding would hide small differences
    other = copy.deepcopy(net)
    pictures = torch.randn(2, 3, 128, 64).double()
    wanted = net(pictures)
    got = accelerate(other, same, dtype=torch.float64)(pictures)
    assert gap(got, wanted) < 1e-9
    backward(wanted)
    backward(got)
    for (key, a), b in zip(other.named_parameters(), net.parameters(), strict=True):
        assert a.grad is not None, key
        assert b.grad is not None, key
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-7, atol=1e-9 + 1e-7 * float(b.grad.abs().max()), msg=key)
    for (key, a), b in zip(other.named_buffers(), net.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, msg=key)


def test_merged_outputs_have_the_same_gradients() -> None:
    net = rough_net(CROWDHUMAN)
    other = copy.deepcopy(net)
    features = [torch.randn(2, 64, 2**level, 3).requires_grad_() for level in range(5)]
    copies = [f.detach().clone().requires_grad_() for f in features]
    net.bbox_head.cls_stride_convs = torch.nn.ModuleDict({k: torch.nn.Identity() for k in net.bbox_head.keys})
    wanted = [one for kind in net.bbox_head(features) for one in kind]
    got = merged_outputs(other, copies)
    assert gap(got, wanted) < 1e-5
    backward(wanted)
    backward(got)
    for a, b in zip(copies, features, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)
    gradients = dict(net.bbox_head.named_parameters())
    for key, parameter in other.bbox_head.named_parameters():
        if not key.startswith("cls_stride_convs"):
            torch.testing.assert_close(parameter.grad, gradients[key].grad, rtol=1e-4, atol=1e-4, msg=key)


def test_eval_mode_is_the_networks() -> None:
    net = rough_net(ZOO["scrfd_500m_kps"].spec)
    forward = accelerate(net, same, dtype=torch.float32)
    net.eval()
    with torch.no_grad():
        assert gap(forward(torch.ones(1, 3, 64, 64)), net(torch.ones(1, 3, 64, 64))) < 1e-5


def test_half_precision_keeps_master_weights() -> None:
    net = rough_net(ZOO["scrfd_500m_kps"].spec)
    pictures = torch.randn(2, 3, 128, 128)
    maps = accelerate(net, same)(pictures)
    assert {m.dtype for m in maps} == {torch.bfloat16}
    torch.autograd.backward(maps, [torch.ones_like(m) for m in maps])
    assert {p.grad.dtype for p in net.parameters() if p.grad is not None} == {torch.float32}
    exact = net(pictures)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        usual = net(pictures)
    for ours, theirs, one in zip(maps, usual, exact, strict=True):
        assert float((ours.detach() - one.detach()).norm()) < 1.5 * float((theirs.detach() - one.detach()).norm())


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")  # of the tracer's own making
def test_parts_are_compiled_each_and_without_breaks() -> None:
    pytest.importorskip("triton")
    pieces = []

    def trace(function: Callable[..., Any]) -> Callable[..., Any]:
        pieces.append(function)
        return torch.compile(function, dynamic=False, backend="eager", fullgraph=True)  # type: ignore[no-any-return]

    net = rough_net(ZOO["scrfd_500m_kps"].spec)
    pictures = torch.randn(2, 3, 64, 64).double()
    got = accelerate(net.double(), trace, dtype=torch.float64)(pictures)
    assert len(pieces) == 6  # front, middle, three towers, outputs
    assert gap(got, net(pictures)) < 1e-9
    pieces.clear()
    accelerate(net, trace, chains=False)
    assert len(pieces) == 1
