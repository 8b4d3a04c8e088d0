"""Batch norms in training: synchronised, frozen, and fitted to folded weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import gap, random_net
from torch import Tensor, nn
from worlds import together

from scrfdkit.model.checkpoint import load
from scrfdkit.model.net import build, fuse
from scrfdkit.train.adapt import unfold
from scrfdkit.train.norms import SyncedBatchNorm2d, calibrate_norms, plain, synchronise, train_mode
from scrfdkit.train.processes import start
from scrfdkit.weights import embedded
from scrfdkit.zoo import ZOO

SPEC = ZOO["scrfd_500m_kps"].spec
DEALT = (slice(0, 3), slice(3, 4))
"""Which of four pictures each of two processes has."""


def norm_and_batch(dtype: torch.dtype) -> tuple[nn.BatchNorm2d, Tensor]:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(5).to(dtype)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    return norm, torch.randn(4, 5, 6, 7, dtype=dtype) * 3 + 20


def small_net() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    net = random_net(SPEC).double().requires_grad_(True)
    return net.train(), torch.randn(4, 3, 64, 64, dtype=torch.float64)


def loss_of(outputs: Any) -> Tensor:
    """Not the same for every picture."""
    outputs = outputs if isinstance(outputs, list) else [outputs]
    total: Tensor = sum(
        (output * torch.arange(output.shape[1:].numel()).reshape(output.shape[1:]).sin()).pow(2).sum()
        for output in outputs
    )
    return total


def learn(net: nn.Module, x: Tensor) -> dict[str, Any]:
    x = x.clone().requires_grad_(True)
    outputs = net(x)
    loss_of(outputs).backward()
    return {
        "outputs": [o.detach() for o in (outputs if isinstance(outputs, list) else [outputs])],
        "input": x.grad,
        "gradients": {key: p.grad for key, p in net.named_parameters()},
        "buffers": dict(net.named_buffers()),
    }


def dealt_out(folder: Path) -> dict[str, Any]:
    """In each of two processes."""
    me = start("cpu")
    mine = DEALT[me.rank]
    results: dict[str, Any] = {}
    for dtype in (torch.float32, torch.float64):
        norm, x = norm_and_batch(dtype)
        synchronise(norm)
        results[str(dtype)] = learn(norm, x[mine])
    norm, x = norm_and_batch(torch.float64)
    synchronise(norm)
    results["one has none"] = learn(norm, x[:0] if me.rank else x)
    norm, x = norm_and_batch(torch.float32)
    synchronise(norm)
    norm.momentum = None
    norm(x[mine].bfloat16())
    results["half"] = (norm(x[mine].bfloat16()), norm.running_mean)
    norm.track_running_stats = False
    norm(x[mine] + 100)
    results["at rest"] = norm.running_mean
    norm.track_running_stats = True
    results["eval"] = norm.eval()(x)
    net, x = small_net()
    synchronise(net)
    results["net"] = learn(net, x[mine])
    net, x = small_net()
    calibrate_norms(net, [x[mine]])
    results["calibrated"] = net.state_dict()
    me.stop()
    return results


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return together(dealt_out, tmp_path_factory.mktemp("ranks"))


def assert_same(ranks: list[dict[str, Any]], whole: dict[str, Any], limit: float) -> None:
    """Outputs and gradients of inputs side by side, gradients of parameters added up, and buffers on each."""
    for number, output in enumerate(whole["outputs"]):
        both = torch.cat([rank["outputs"][number] for rank in ranks])
        assert torch.allclose(both, output, rtol=limit, atol=limit)
    assert torch.allclose(torch.cat([rank["input"] for rank in ranks]), whole["input"], rtol=limit, atol=limit)
    for key, gradient in whole["gradients"].items():
        size = float(gradient.abs().max())
        assert float((sum(rank["gradients"][key] for rank in ranks) - gradient).abs().max()) <= limit * max(size, 1), (
            key
        )
    for key, value in whole["buffers"].items():
        for rank in ranks:
            assert torch.allclose(rank["buffers"][key], value, rtol=limit, atol=limit), key


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 2e-6), (torch.float64, 1e-13)], ids=str)
def test_one_norm_of_two_processes_is_one_with_the_whole_batch(
    ranks: list[dict[str, Any]], dtype: torch.dtype, limit: float
) -> None:
    assert_same([rank[str(dtype)] for rank in ranks], learn(*norm_and_batch(dtype)), limit)


def test_a_network_of_two_processes_is_one_with_the_whole_batch(ranks: list[dict[str, Any]]) -> None:
    assert_same([rank["net"] for rank in ranks], learn(*small_net()), 1e-9)


def test_a_process_may_have_no_pictures(ranks: list[dict[str, Any]]) -> None:
    assert_same([rank["one has none"] for rank in ranks], learn(*norm_and_batch(torch.float64)), 1e-12)


def test_half_precision_goes_in_and_out(ranks: list[dict[str, Any]]) -> None:
    norm, x = norm_and_batch(torch.float32)
    wanted = norm(x.bfloat16().float())
    for rank, mine in zip(ranks, DEALT, strict=True):
        output, mean = rank["half"]
        assert output.dtype == torch.bfloat16
        assert torch.allclose(output.float(), wanted[mine], rtol=1e-2, atol=1e-2)
        assert torch.allclose(mean, x.bfloat16().float().mean((0, 2, 3)), rtol=1e-5)  # the plain mean of two batches


def test_a_norm_that_does_not_track_remembers_nothing(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert torch.equal(rank["at rest"], rank["half"][1])


def test_eval_mode_is_batch_norms_own(ranks: list[dict[str, Any]]) -> None:
    assert torch.equal(ranks[0]["eval"], ranks[1]["eval"])


def test_synchronised_norms_are_batch_norms_to_all_others() -> None:
    net = random_net(SPEC)
    keys, parameters = list(net.state_dict()), list(net.parameters())
    x = torch.randn(2, 3, 64, 64)
    before, fused = net(x), fuse(net)(x)
    synchronise(net)
    assert sum(type(m) is SyncedBatchNorm2d for m in net.modules()) == 41
    assert list(net.state_dict()) == keys
    assert all(a is b for a, b in zip(net.parameters(), parameters, strict=True))
    assert gap(net(x), before) == 0
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fuse(net).modules())
    assert gap(fuse(net)(x), fused) == 0
    alone, own = copy.deepcopy(net).train(), net.train()
    plain(alone)
    assert sum(type(m) is nn.BatchNorm2d for m in alone.modules()) == 41
    assert gap(alone(x), own(x)) == 0  # with one process


def test_frozen_norms_stay_in_eval_mode() -> None:
    net = build(SPEC)
    net.backbone.requires_grad_(False)
    before = {key: value.clone() for key, value in net.backbone.state_dict().items()}
    train_mode(net)
    net(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(value, before[key]) for key, value in net.backbone.state_dict().items())
    assert net.training
    head = [m for m in net.bbox_head.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {int(m.num_batches_tracked) for m in head if m.num_batches_tracked is not None} == {1}


def folded(name: str) -> nn.Module:
    """A network as it comes out of a folded file."""
    trained = fuse(random_net(ZOO[name].spec))
    net = build(ZOO[name].spec)
    net.load_state_dict(unfold(trained.state_dict(), ZOO[name].spec))
    return net


@pytest.mark.parametrize("name", ["scrfd_500m_kps", "scrfd_500m", "scrfd_2.5g_kps", "scrfd_34g"])
@torch.no_grad()
def test_unfolding_keeps_the_function(name: str) -> None:
    spec = ZOO[name].spec
    x = torch.randn(2, 3, 64, 64)
    assert gap(folded(name).eval()(x), random_net(spec)(x)) < 1e-4


@pytest.mark.parametrize("name", ["scrfd_500m_kps", "scrfd_2.5g_kps"])
@torch.no_grad()
def test_calibration_keeps_the_function_and_brings_training_to_it(name: str) -> None:
    net = folded(name)
    x = torch.rand(4, 3, 96, 96) * 2 - 1
    wanted = net.eval()(x)
    astray = gap(copy.deepcopy(net).train()(x), wanted)
    calibrate_norms(net.train(), [x])
    assert net.training
    assert gap(net.eval()(x), wanted) < 1e-4
    assert astray > 0.1
    assert gap(net.train()(x), wanted) < 1e-3


@torch.no_grad()
def test_calibration_of_the_trained_network() -> None:
    """Pictures that it was not calibrated on give the same as well."""
    trained, info = load(embedded(".safetensors"))
    net = build(info.spec)
    net.load_state_dict(unfold(fuse(trained).state_dict(), info.spec))
    torch.manual_seed(0)
    x, other = torch.rand(2, 4, 3, 128, 128) * 2 - 1
    calibrate_norms(net, [x[:3], x[3:]])
    assert gap(net.eval()(other), trained(other)) < 1e-3
    assert gap(net.train()(x), trained(x)) < 1e-3


def test_calibration_over_processes_is_that_of_all_pictures(ranks: list[dict[str, Any]]) -> None:
    net, x = small_net()
    calibrate_norms(net, [x])
    for rank in ranks:
        for key, value in net.state_dict().items():
            assert torch.allclose(rank["calibrated"][key], value, rtol=1e-4, atol=1e-6), key


def test_calibration_needs_pictures() -> None:
    with pytest.raises(ValueError, match="at least one"):
        calibrate_norms(build(SPEC), [])
