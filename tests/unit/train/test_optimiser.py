"""The optimiser of a recipe: its groups, its first state, its rate, and the length of the gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from scrfdkit.errors import OptionError
from scrfdkit.model.net import build
from scrfdkit.train.optimiser import clip, make, set_lr
from scrfdkit.train.recipe import Optimiser
from scrfdkit.zoo import ZOO


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))


def learn(net: nn.Module, optimiser: Optimizer, steps: int) -> None:
    torch.manual_seed(1)
    for _ in range(steps):
        optimiser.zero_grad()
        net(torch.randn(2, 3, 8, 8)).square().sum().backward()
        optimiser.step()


def test_every_parameter_is_there_once_and_in_the_order_of_names() -> None:
    net = build(ZOO["scrfd_500m"].spec)
    groups = make(net, Optimiser()).param_groups
    assert [group["weight_decay"] for group in groups] == [5e-4]
    names = {p: name for name, p in net.named_parameters()}
    order = [names[p] for p in groups[0]["params"]]
    assert order == sorted(names.values())


def test_norms_and_biases_can_be_spared_from_decay() -> None:
    net = small()
    decayed, spared = make(net, Optimiser(rule="adamw", decay=0.05, decay_norms=False)).param_groups
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.05, 0)
    assert [p.ndim for p in decayed["params"]] == [4, 4]
    assert [p.ndim for p in spared["params"]] == [1, 1, 1, 1]


def test_frozen_parameters_stay_out() -> None:
    net = small()
    net[0].requires_grad_(False)
    assert len(make(net, Optimiser()).param_groups[0]["params"]) == 4
    net.requires_grad_(False)
    with pytest.raises(OptionError, match=r"freeze: .*nothing is left"):
        make(net, Optimiser())


@pytest.mark.parametrize(
    ("options", "torchs"),
    [
        (Optimiser(lr=0.1), lambda p: SGD(p, 0.1, 0.9, weight_decay=5e-4)),
        (Optimiser(lr=0.1, nesterov=True), lambda p: SGD(p, 0.1, 0.9, weight_decay=5e-4, nesterov=True)),
        (Optimiser(lr=0.1, momentum=0.0, nesterov=True), lambda p: SGD(p, 0.1, 0.0, weight_decay=5e-4)),
        (Optimiser("adamw", lr=0.01, decay=0.05), lambda p: AdamW(p, 0.01, (0.9, 0.999), weight_decay=0.05)),
    ],
    ids=["sgd", "nesterov", "no momentum", "adamw"],
)
def test_steps_are_torchs_although_the_state_is_there_from_the_start(
    options: Optimiser, torchs: Callable[..., Optimizer]
) -> None:
    ours, theirs = small(), small()
    theirs.load_state_dict(copy.deepcopy(ours.state_dict()))
    optimiser = make(ours, options)
    before = [value for state in optimiser.state.values() for value in state.values()]
    assert bool(before) == (options.rule == "adamw" or options.momentum > 0)
    learn(ours, optimiser, 4)
    learn(theirs, torchs(theirs.parameters()), 4)
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    after = [value for state in optimiser.state.values() for value in state.values() if value is not None]
    assert all(a is b for a, b in zip(after, before, strict=True))


def test_the_rate_of_every_group_is_set_as_number_or_in_place() -> None:
    optimiser = make(small(), Optimiser(decay_norms=False))
    set_lr(optimiser, 0.5)
    assert [group["lr"] for group in optimiser.param_groups] == [0.5, 0.5]
    tensor = torch.tensor(0.1)
    for group in optimiser.param_groups:
        group["lr"] = tensor
    set_lr(optimiser, 0.25)
    assert all(group["lr"] is tensor for group in optimiser.param_groups)
    assert float(tensor) == 0.25


@pytest.mark.parametrize(("limit", "after"), [(0.0, 5.0), (2.0, 2.0), (7.0, 5.0)])
def test_the_gradient_is_measured_and_shortened(limit: float, after: float) -> None:
    first, second, unused = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    first.grad, second.grad = torch.tensor([3.0, 0.0]), torch.tensor([0.0, -4.0])
    length = clip([first, unused, second], limit)
    assert float(length) == pytest.approx(5.0)
    assert float(torch.cat([first.grad, second.grad]).norm()) == pytest.approx(after, rel=1e-5)
    assert float(second.grad[1]) < 0


@pytest.mark.gpu
@pytest.mark.parametrize("rule", ["sgd", "adamw"])
def test_a_captured_step_is_an_eager_one(rule: str) -> None:
    """The first step is captured already; the rate changes between replays."""
    options = Optimiser(rule=rule, lr=0.01)  # type: ignore[arg-type]
    eager, captured = small().cuda(), small().cuda()
    gradients = [torch.randn_like(p) for p in eager.parameters()]
    graph = torch.cuda.CUDAGraph()
    for net in (eager, captured):
        for p, gradient in zip(net.parameters(), gradients, strict=True):
            p.grad = gradient.clone()
    first, second = make(eager, options), make(captured, options)
    with torch.cuda.graph(graph):
        second.step()
    for lr in (0.01, 0.1, 0.001):
        set_lr(first, lr)
        set_lr(second, lr)
        first.step()
        graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(eager.parameters(), captured.parameters(), strict=True))
