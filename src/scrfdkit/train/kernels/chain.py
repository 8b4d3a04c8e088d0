"""A chain of convolution, batch norm and ReLU units as one step of autograd, which stores only the raw convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from scrfdkit.train.kernels import depthwise, norm, pointwise, stem
from scrfdkit.train.kernels.common import ROWS
from scrfdkit.train.kernels.units import Unit


def run_chain(x: Tensor, units: Sequence[Unit]) -> Tensor:
    """What the modules of the units, in training mode, make of x (B, C, H, W); `units.applies` must have agreed.

    x in bfloat16, float16 or float32, best in channels_last order; the result (B, out, h, w) has the same type and
    that order. Running statistics move, as with the modules. Parameters stay in float32, and so do their gradients.
    """
    parameters = [parameter for unit in units for parameter in unit.parameters]
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
        z: Tensor = Chain.apply(x.permute(0, 2, 3, 1).contiguous(), tuple(units), *parameters)  # type: ignore[no-untyped-call]
    return z.permute(0, 3, 1, 2)


class Chain(torch.autograd.Function):
    """x (B, H, W, C), units, and their parameters, which are arguments so that autograd sees them -> (B, h, w, out).

    Nothing waits for the device, and memory comes from torch: a CUDA graph may capture both ways.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, units: tuple[Unit, ...], *parameters: Tensor) -> Tensor:
        sums = _sums(units, x.device)
        maps, states, before = [x], [], None
        for unit, unit_sums in zip(units, sums, strict=True):
            y = _convolve(unit, maps[-1], before, unit_sums)
            before = norm.finish_statistics(unit_sums, unit.norm, _pixels(y))
            maps.append(y)
            states.append(before)
        ctx.units = units
        ctx.save_for_backward(*maps, *states, *parameters[::3])
        return norm.norm_relu(maps[-1], states[-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gz: Tensor) -> tuple[Tensor | None, ...]:
        units: tuple[Unit, ...] = ctx.units
        count = len(units)
        saved = ctx.saved_tensors
        maps, states, weights = saved[: count + 1], saved[count + 1 : 2 * count + 1], saved[2 * count + 1 :]
        sums, weight_gradients = _sums(units, gz.device), _zeros_like(weights)
        gradients: list[Tensor] = []
        g: Tensor | None = norm.norm_relu_backward(gz.contiguous(), maps[-1], states[-1], sums[-1])
        for i in reversed(range(count)):
            assert g is not None
            coefficients, of_norm = norm.finish_gradients(sums[i], states[i], _pixels(maps[i + 1]))
            before, into = (states[i - 1], sums[i - 1]) if i else (None, None)
            g = _return(units[i], g, maps[i + 1], coefficients, maps[i], before, weights[i], into, weight_gradients[i])
            gradients = [weight_gradients[i], of_norm[0], of_norm[1], *gradients]
        return g, None, *gradients


def _convolve(unit: Unit, x: Tensor, before: Tensor | None, sums: Tensor) -> Tensor:
    weight, mean = unit.conv.weight, unit.norm.running_mean
    assert mean is not None
    if unit.kind == "stem":
        return stem.forward(x, weight, mean, sums)
    if unit.kind == "depthwise":
        return depthwise.forward(x, before, weight.contiguous(), unit.stride, mean, sums)
    return pointwise.forward(x, before, weight.contiguous(), mean, sums)


def _return(
    unit: Unit,
    g: Tensor,
    y: Tensor,
    coefficients: Tensor,
    x: Tensor,
    before: Tensor | None,
    weight: Tensor,
    sums: Tensor | None,
    weight_gradient: Tensor,
) -> Tensor | None:
    if unit.kind == "stem":
        stem.backward(g, y, coefficients, x, weight_gradient)
        return None
    weight = weight.contiguous()
    if unit.kind == "depthwise":
        return depthwise.backward(g, y, coefficients, x, before, weight, unit.stride, sums, weight_gradient)
    return pointwise.backward(g, y, coefficients, x, before, weight, sums, weight_gradient)


def _sums(units: Sequence[Unit], device: torch.device) -> list[Tensor]:
    """Zeros for the sums of every norm, cleared at once."""
    sizes = [ROWS * 2 * unit.out for unit in units]
    parts = torch.split(torch.zeros(sum(sizes), device=device), sizes)
    return [part.view(ROWS, 2, unit.out) for part, unit in zip(parts, units, strict=True)]


def _zeros_like(weights: Sequence[Tensor]) -> list[Tensor]:
    """Zeros of the weights' shapes, cleared at once."""
    sizes = [weight.numel() for weight in weights]
    parts = torch.split(torch.zeros(sum(sizes), device=weights[0].device), sizes)
    return [_ordered(part, weight) for part, weight in zip(parts, weights, strict=True)]


def _ordered(flat: Tensor, weight: Tensor) -> Tensor:
    """The numbers in the weight's own order in memory, so that autograd need not copy; only the stem cares."""
    if weight.shape[1] > 1 and weight.shape[2] > 1 and weight.is_contiguous(memory_format=torch.channels_last):
        out, source, height, width = weight.shape
        return flat.view(out, height, width, source).permute(0, 3, 1, 2)
    return flat.view(weight.shape)


def _pixels(y: Tensor) -> int:
    return y.numel() // y.shape[-1]
