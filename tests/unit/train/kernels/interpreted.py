"""Run as a program with TRITON_INTERPRET=1: compares kernels in triton's interpreter, and prints distances as JSON.

bfloat16 is not tried: the interpreter's matrix product does not have it.
"""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable

import torch
from torch import Tensor, nn

from scrfdkit.model.blocks import conv3x3, normed, separable, tower_unit
from scrfdkit.model.net import build
from scrfdkit.spec import Backbone, Head, ModelSpec, Neck
from scrfdkit.train.kernels import check, depthwise, norm, pointwise, stem
from scrfdkit.train.kernels.accelerate import accelerate
from scrfdkit.train.kernels.chain import run_chain
from scrfdkit.train.kernels.common import ROWS
from scrfdkit.train.kernels.units import applies, units_of

TINY = ModelSpec(
    Backbone("separable", (8, 16), (1, 1, 1, 1), (16, 24, 24, 24)),
    Neck(8),
    Head(depth=1, channels=16, norm="bn", groups=0, shared=False, depthwise=True, scale=True, num_keypoints=1),
)
Distances = dict[str, float]


def far(ours: Tensor, exact: Tensor) -> float:
    ours, exact = ours.detach().double(), exact.detach().double()
    assert ours.shape == exact.shape
    return float((ours - exact).norm() / exact.norm().clamp(min=1e-9))


def random_norm(width: int) -> nn.BatchNorm2d:
    module = nn.BatchNorm2d(width, momentum=0.2, eps=1e-3)
    module.weight.data.uniform_(0.5, 1.5)
    module.bias.data.normal_(std=0.3)
    module.running_mean.normal_()
    module.running_var.uniform_(0.5, 2)
    return module


def state_of(width: int) -> Tensor:
    """factor, summand, mean, 1 / deviation."""
    return torch.stack([torch.rand(width) + 0.5, torch.randn(width), torch.randn(width), torch.rand(width) + 0.5])


def twin(
    kind: str, source: int, out: int, stride: int, normed: bool, size: tuple[int, int, int], name: str
) -> Distances:
    """One convolution and its gradients, kernel against twin."""
    dtype = getattr(torch, name)
    batch, height, width = size
    module = {"stem": stem, "depthwise": depthwise, "pointwise": pointwise}[kind]
    x = torch.randn(batch, height, width, source).to(dtype)
    before = state_of(source) if normed else None
    shape = {"stem": (out, 3, 3, 3), "depthwise": (source, 1, 3, 3), "pointwise": (out, source, 1, 1)}[kind]
    weight, mean, coefficients = torch.randn(shape), torch.randn(out), torch.randn(3, out)
    if kind == "stem":
        weight = weight.to(memory_format=torch.channels_last)
    steps = [stride] if kind == "depthwise" else []
    enters = [] if kind == "stem" else [before]

    def both_ways(forward: Callable[..., Tensor], backward: Callable[..., Tensor | None]) -> dict[str, Tensor]:
        torch.manual_seed(5)
        sums, sums_before, dw = torch.zeros(ROWS, 2, out), torch.zeros(ROWS, 2, source), torch.zeros_like(weight)
        y = forward(x, *enters, weight, *steps, mean, sums)
        g = torch.randn(y.shape).to(dtype)
        rest = [] if kind == "stem" else [before, weight, *steps, sums_before]
        gx = backward(g, y, coefficients, x, *rest, dw)
        found = {"y": y, "sums": sums.sum(0), "weight gradient": dw}
        return found if gx is None else {**found, "gx": gx, "sums before": sums_before.sum(0) if normed else dw}

    kernels = both_ways(module.forward, module.backward)
    twins = both_ways(module.plain_forward, module.plain_backward)
    return {key: far(kernels[key], twins[key]) for key in twins}


def twin_norm(width: int, count: int) -> Distances:
    """Statistics, gradients, and the end of a chain, kernel against twin."""
    first = random_norm(width)
    second = copy.deepcopy(first)
    sums = torch.randn(ROWS, 2, width).abs() * torch.tensor([1.0, 9.0])[:, None]
    state, plain_state = norm.finish_statistics(sums, first, count), norm.plain_finish_statistics(sums, second, count)
    found = {"state": far(state, plain_state)}
    found |= {key: far(value, second.state_dict()[key]) for key, value in first.state_dict().items()}
    found["counted"] = abs(int(first.num_batches_tracked) - 1)
    kernels, twins = norm.finish_gradients(sums, state, count), norm.plain_finish_gradients(sums, state, count)
    found |= {key: far(a, b) for key, a, b in zip(("coefficients", "gradients"), kernels, twins, strict=True)}
    y, gz, into, plain_into = torch.randn(1, 7, 11, width), torch.randn(1, 7, 11, width), sums.clone(), sums.clone()
    found["z"] = far(norm.norm_relu(y, state), norm.plain_norm_relu(y, state))
    g = norm.norm_relu_backward(gz, y, state, into)
    found["g"] = far(g, norm.plain_norm_relu_backward(gz, y, state, plain_into))
    return found | {"sums": far(into.sum(0), plain_into.sum(0))}


def chain(modules: list[nn.Module], size: tuple[int, int, int, int], name: str = "float32") -> Distances:
    """A chain against its modules in float64."""
    dtype = getattr(torch, name)
    net = nn.Sequential(*modules)
    for parent in list(net.modules()):
        for key, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, key, random_norm(child.num_features))
    exact = copy.deepcopy(net).double()
    x = torch.randn(size).to(dtype, memory_format=torch.channels_last).requires_grad_(size[1] != 3)
    exact_x = x.detach().double().requires_grad_(x.requires_grad)
    units = units_of(net)
    assert units
    assert applies(units, x)
    y, wanted = run_chain(x, units), exact(exact_x)
    assert y.dtype == dtype
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.autograd.backward([y, wanted], [(g := torch.randn(y.shape).to(dtype)), g.double()])
    found = {"output": far(y, wanted)}
    pairs = zip(net.named_parameters(), exact.parameters(), strict=True)
    found |= {key: far(p.grad, q.grad) for (key, p), q in pairs}  # type: ignore[arg-type]
    found |= {key: far(p, q) for (key, p), q in zip(net.named_buffers(), exact.buffers(), strict=True)}
    return found if x.grad is None else found | {"x": far(x.grad, exact_x.grad)}  # type: ignore[arg-type]


def far_from_zero() -> Distances:
    """The variance of values with a mean far larger than their deviation, once the running mean is near it."""
    x = (torch.randn(1, 20, 20, 16) + 3000).contiguous()
    module = nn.BatchNorm2d(16)
    module.running_mean.fill_(2999)
    sums = torch.zeros(ROWS, 2, 16)
    weight = torch.zeros(16, 1, 3, 3)
    weight[:, :, 1, 1] = 1
    depthwise.forward(x, None, weight, 1, module.running_mean, sums)
    state = norm.finish_statistics(sums, module, 400)
    return {"deviation": far(1 / state[3], x.double().flatten(0, 2).std(0, unbiased=False))}


def after_a_broken_batch() -> Distances:
    """Running statistics that are no numbers stay so, as with torch, and do no harm while training."""
    modules = separable(16, 16, 1)
    x = torch.randn(2, 16, 5, 5)
    wanted = run_chain(x, units_of([modules]) or ()).detach()
    modules[1].running_mean.fill_(torch.nan)
    modules[4].running_mean.fill_(torch.inf)
    got = run_chain(x, units_of([modules]) or ())
    kept = not any(modules[i].running_mean.isfinite().any() for i in (1, 4))
    bad = run_chain(x * torch.nan, units_of([modules]) or ())
    return {"output": far(got, wanted), "kept": float(not kept), "spread": float(not bad.isnan().all())}


def whole(name: str = "float32") -> Distances:
    """A network with kernels in its front and its towers against the same network."""
    net = build(TINY)
    for parameter in net.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    exact = copy.deepcopy(net).double()
    pictures = torch.randn(2, 3, 64, 32)
    calls = []
    from scrfdkit.train.kernels import chain as room

    run = room.run_chain
    room.run_chain = lambda x, units: calls.append(len(units)) or run(x, units)  # type: ignore[func-returns-value]
    ours = accelerate(net, lambda f: f, dtype=getattr(torch, name))(pictures)
    room.run_chain = run
    wanted = exact(pictures.double())
    cotangents = [torch.randn(one.shape) for one in wanted]
    torch.autograd.backward([*ours, *wanted], [*cotangents, *(c.double() for c in cotangents)])
    found = {f"map {i}": far(a, b) for i, (a, b) in enumerate(zip(ours, wanted, strict=True))}
    pairs = zip(net.named_parameters(), exact.parameters(), strict=True)
    found |= {key: far(p.grad, q.grad) for (key, p), q in pairs}  # type: ignore[arg-type]
    found |= {key: far(p, q) for (key, p), q in zip(net.named_buffers(), exact.buffers(), strict=True)}
    return found | {"chains": float(calls != [7, 2, 2, 2])}


def broken() -> str | None:
    """What `usable` says of a kernel whose gradient is too large."""
    right = pointwise.backward
    pointwise.backward = lambda *arguments: right(*arguments) * 1.2
    try:
        return check.usable("cpu", TINY)
    finally:
        pointwise.backward = right


CASES: dict[str, Callable[[], object]] = {
    "depthwise 16": lambda: twin("depthwise", 16, 16, 1, True, (3, 9, 7), "float32"),
    "depthwise 40 stride 2": lambda: twin("depthwise", 40, 40, 2, True, (1, 9, 8), "float32"),
    "depthwise 72 first": lambda: twin("depthwise", 72, 72, 2, False, (2, 6, 5), "float32"),
    "depthwise 152": lambda: twin("depthwise", 152, 152, 1, True, (1, 5, 4), "float16"),
    "pointwise 16 40": lambda: twin("pointwise", 16, 40, 1, True, (3, 9, 11), "float32"),
    "pointwise 40 72 first": lambda: twin("pointwise", 40, 72, 1, False, (1, 20, 21), "float16"),
    "pointwise 48 160": lambda: twin("pointwise", 48, 160, 1, True, (2, 7, 5), "float32"),
    "pointwise 288 312": lambda: twin("pointwise", 288, 312, 1, True, (1, 9, 8), "float32"),
    "stem 16": lambda: twin("stem", 3, 16, 2, False, (3, 21, 32), "float32"),
    "stem 24 half": lambda: twin("stem", 3, 24, 2, False, (1, 32, 27), "float16"),
    "norm 40": lambda: twin_norm(40, 500),
    "norm 312": lambda: twin_norm(312, 3),
    "chain 16 40": lambda: chain([separable(16, 40, 2), separable(40, 40, 1)], (3, 16, 9, 7)),
    "chain 72 152": lambda: chain([separable(72, 152, 1), separable(152, 48, 2)], (1, 72, 7, 6)),
    "chain 160 216": lambda: chain([separable(160, 216, 2)], (1, 160, 6, 5)),
    "chain 288 312": lambda: chain([separable(288, 312, 1)], (1, 288, 3, 4)),
    "chain tower": lambda: chain([tower_unit(16, 64, 0, True), tower_unit(64, 64, 0, True)], (3, 16, 5, 5)),
    "chain stem": lambda: chain([nn.Sequential(*normed(conv3x3(3, 16, 2))), separable(16, 24, 1)], (3, 3, 15, 14)),
    "chain half": lambda: chain([separable(16, 40, 2)], (3, 16, 13, 12), "float16"),
    "far from zero": far_from_zero,
    "broken batch": after_a_broken_batch,
    "whole": whole,
    "check": lambda: check.check("cpu", TINY),
    "usable": lambda: check.usable("cpu", TINY),
    "broken": broken,
}


if __name__ == "__main__":
    torch.set_num_threads(1)
    results = {}
    for name, case in CASES.items():
        torch.manual_seed(0)
        results[name] = case()
    json.dump(results, sys.stdout)
