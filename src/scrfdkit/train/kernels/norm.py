"""Batch norm around the convolutions: statistics from sums, gradients from sums, and the chain's last norm and ReLU."""

# mypy: disallow-untyped-defs=False, disallow-untyped-decorators=False, disallow-incomplete-defs=False
# mypy: disallow-untyped-calls=False, disable-error-code="import-untyped,import-not-found,no-any-return"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from scrfdkit.train.kernels import tuning
from scrfdkit.train.kernels.common import ROWS, add_sums, entered, middle_of, plain_entered, plain_leave, plain_middle


@triton.jit
def _finish_statistics(
    sums_ptr,
    weight_ptr,
    bias_ptr,
    mean_ptr,
    variance_ptr,
    tracked_ptr,
    state_ptr,
    count,
    unbiased,
    momentum,
    eps,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    BC: tl.constexpr,
):
    """One program."""
    c = tl.arange(0, BC)
    real = c < C
    row = tl.arange(0, ROWS)
    place = sums_ptr + row[:, None] * 2 * C + c[None, :]
    mask = real[None, :] & (row[:, None] < ROWS)
    offset = tl.sum(tl.load(place, mask=mask, other=0.0), 0) / count
    square = tl.sum(tl.load(place + C, mask=mask, other=0.0), 0) / count
    mean = middle_of(mean_ptr, c, real) + offset
    variance = tl.maximum(square - offset * offset, 0.0, propagate_nan=tl.PropagateNan.ALL)
    deviation = 1.0 / tl.sqrt(variance + eps)
    factor = tl.load(weight_ptr + c, mask=real, other=0.0) * deviation
    summand = tl.load(bias_ptr + c, mask=real, other=0.0) - mean * factor
    tl.store(state_ptr + c, factor, mask=real)
    tl.store(state_ptr + C + c, summand, mask=real)
    tl.store(state_ptr + 2 * C + c, mean, mask=real)
    tl.store(state_ptr + 3 * C + c, deviation, mask=real)
    old_mean = tl.load(mean_ptr + c, mask=real, other=0.0)
    old_variance = tl.load(variance_ptr + c, mask=real, other=0.0)
    tracked = tl.load(tracked_ptr)
    tl.debug_barrier()  # several threads may have read what one of them is to overwrite
    tl.store(mean_ptr + c, old_mean + (mean - old_mean) * momentum, mask=real)
    tl.store(variance_ptr + c, old_variance + (variance * unbiased - old_variance) * momentum, mask=real)
    tl.store(tracked_ptr, tracked + 1)


@triton.jit
def _finish_gradients(
    sums_ptr, state_ptr, coefficients_ptr, gradients_ptr, count, C: tl.constexpr, ROWS: tl.constexpr, BC: tl.constexpr
):
    """One program."""
    c = tl.arange(0, BC)
    real = c < C
    row = tl.arange(0, ROWS)
    place = sums_ptr + row[:, None] * 2 * C + c[None, :]
    mask = real[None, :] & (row[:, None] < ROWS)
    total = tl.sum(tl.load(place, mask=mask, other=0.0), 0)
    slope = tl.sum(tl.load(place + C, mask=mask, other=0.0), 0)
    factor = tl.load(state_ptr + c, mask=real, other=0.0)
    mean = tl.load(state_ptr + 2 * C + c, mask=real, other=0.0)
    deviation = tl.load(state_ptr + 3 * C + c, mask=real, other=0.0)
    weight = slope * deviation
    p = -factor * deviation * weight / count
    tl.store(coefficients_ptr + c, factor, mask=real)
    tl.store(coefficients_ptr + C + c, p, mask=real)
    tl.store(coefficients_ptr + 2 * C + c, -factor * total / count - p * mean, mask=real)
    tl.store(gradients_ptr + c, weight, mask=real)
    tl.store(gradients_ptr + C + c, total, mask=real)


@triton.jit
def _norm_relu(y_ptr, state_ptr, z_ptr, pixels, C: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr):
    p = tl.program_id(0) * BM + tl.arange(0, BM)
    c = tl.arange(0, BC)
    real = c < C
    mask = (p < pixels)[:, None] & real[None, :]
    place = p[:, None] * C + c[None, :]
    factor = tl.load(state_ptr + c, mask=real, other=0.0)[None, :]
    summand = tl.load(state_ptr + C + c, mask=real, other=0.0)[None, :]
    y = tl.load(y_ptr + place, mask=mask, other=0.0).to(tl.float32)
    tl.store(z_ptr + place, entered(y, factor, summand, mask).to(z_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _norm_relu_backward(
    gz_ptr,
    y_ptr,
    state_ptr,
    g_ptr,
    sums_ptr,
    pixels,
    blocks,
    C: tl.constexpr,
    ROWS: tl.constexpr,
    BM: tl.constexpr,
    BC: tl.constexpr,
):
    c = tl.arange(0, BC)
    real = c < C
    factor = tl.load(state_ptr + c, mask=real, other=0.0)[None, :]
    summand = tl.load(state_ptr + C + c, mask=real, other=0.0)[None, :]
    mean = tl.load(state_ptr + 2 * C + c, mask=real, other=0.0)[None, :]
    total = tl.zeros([BM, BC], tl.float32)
    slope = tl.zeros([BM, BC], tl.float32)
    for block in range(tl.program_id(0), blocks, tl.num_programs(0)):
        p = block * BM + tl.arange(0, BM)
        mask = (p < pixels)[:, None] & real[None, :]
        place = p[:, None] * C + c[None, :]
        y = tl.load(y_ptr + place, mask=mask, other=0.0).to(tl.float32)
        gz = tl.load(gz_ptr + place, mask=mask, other=0.0).to(tl.float32)
        g = tl.where(y * factor + summand > 0.0, gz, 0.0).to(g_ptr.dtype.element_ty)
        tl.store(g_ptr + place, g, mask=mask)
        total += g.to(tl.float32)
        slope += g.to(tl.float32) * (y - mean)
    add_sums(sums_ptr, c, real, tl.sum(total, 0), tl.sum(slope, 0), C, ROWS)


def finish_statistics(sums: Tensor, norm: nn.BatchNorm2d, count: int) -> Tensor:
    """The state of a norm from the sums of its convolution's output of `count` pixels, shifted by its running mean.

    Running mean and variance move as torch moves them, and the batch is counted.
    """
    width, momentum = norm.num_features, norm.momentum
    state = torch.empty(4, width, device=sums.device)
    buffers = (norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.num_batches_tracked)
    numbers = (float(count), count / (count - 1), momentum, norm.eps)
    _finish_statistics[(1,)](sums, *buffers, state, *numbers, width, ROWS, tuning.padded(width), num_warps=4)
    return state


def finish_gradients(sums: Tensor, state: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Coefficients of a norm, and the gradients (2, C) of its weight and bias.

    sums: of the gradient behind the norm, and of its product with y - mean.
    """
    width = state.shape[1]
    coefficients, gradients = torch.empty(3, width, device=sums.device), torch.empty(2, width, device=sums.device)
    _finish_gradients[(1,)](
        sums, state, coefficients, gradients, float(count), width, ROWS, tuning.padded(width), num_warps=4
    )
    return coefficients, gradients


def norm_relu(y: Tensor, state: Tensor) -> Tensor:
    """relu(norm(y)), the end of a chain."""
    width = y.shape[-1]
    z, pixels, cut = torch.empty_like(y), y.numel() // width, tuning.elementwise(width)
    _norm_relu[(cut.count(pixels),)](y, state, z, pixels, width, cut.rows, cut.tile, num_warps=cut.warps)
    return z


def norm_relu_backward(gz: Tensor, y: Tensor, state: Tensor, sums: Tensor) -> Tensor:
    """Gradient behind the norm from that behind the ReLU; adds to the sums of the norm."""
    width = y.shape[-1]
    g, pixels, cut = torch.empty_like(y), y.numel() // width, tuning.elementwise(width, 2048)
    grid = cut.grid(pixels, width, y.device)
    arguments = (gz, y, state, g, sums, pixels, cut.count(pixels))
    _norm_relu_backward[grid](*arguments, width, ROWS, cut.rows, cut.tile, num_warps=cut.warps)
    return g


def plain_finish_statistics(sums: Tensor, norm: nn.BatchNorm2d, count: int) -> Tensor:
    """Twin of `finish_statistics`."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    offset, square = sums.sum(0) / count
    mean, variance = plain_middle(norm.running_mean) + offset, (square - offset.square()).clamp(min=0)
    deviation = torch.rsqrt(variance + norm.eps)
    factor = norm.weight.detach() * deviation
    norm.running_mean += (mean - norm.running_mean) * norm.momentum
    norm.running_var += (variance * (count / (count - 1)) - norm.running_var) * norm.momentum
    norm.num_batches_tracked += 1
    return torch.stack([factor, norm.bias.detach() - mean * factor, mean, deviation])


def plain_finish_gradients(sums: Tensor, state: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Twin of `finish_gradients`."""
    (factor, _, mean, deviation), (total, slope) = state, sums.sum(0)
    weight = slope * deviation
    p = -factor * deviation * weight / count
    return torch.stack([factor, p, -factor * total / count - p * mean]), torch.stack([weight, total])


def plain_norm_relu(y: Tensor, state: Tensor) -> Tensor:
    """Twin of `norm_relu`."""
    return plain_entered(y, state).to(y.dtype)


def plain_norm_relu_backward(gz: Tensor, y: Tensor, state: Tensor, sums: Tensor) -> Tensor:
    """Twin of `norm_relu_backward`."""
    return plain_leave(gz.float(), y, state, sums)
