"""Point-wise 1x1 convolution: the norm and ReLU before it on load, sums for the norm behind it."""

# mypy: disallow-untyped-defs=False, disallow-untyped-decorators=False, disallow-incomplete-defs=False
# mypy: disallow-untyped-calls=False, disable-error-code="import-untyped,import-not-found,no-any-return"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from scrfdkit.train.kernels import tuning
from scrfdkit.train.kernels.common import (
    ROWS,
    add_sums,
    entered,
    middle_of,
    plain_entered,
    plain_leave,
    plain_raw_gradient,
    plain_statistics,
    raw_gradient,
)


@triton.jit
def _forward(
    x_ptr,
    before_ptr,
    weight_ptr,
    mean_ptr,
    y_ptr,
    sums_ptr,
    pixels,
    blocks,
    CI: tl.constexpr,
    CO: tl.constexpr,
    NORMED: tl.constexpr,
    ROWS: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
    BN: tl.constexpr,
):
    """Every input channel, a tile of BN output channels."""
    k = tl.arange(0, BK)
    enters = k < CI
    c = tl.program_id(1) * BN + tl.arange(0, BN)
    real = c < CO
    if NORMED:
        factor = tl.load(before_ptr + k, mask=enters, other=0.0)[None, :]
        summand = tl.load(before_ptr + CI + k, mask=enters, other=0.0)[None, :]
    middle = middle_of(mean_ptr, c, real)[None, :]
    both = enters[:, None] & real[None, :]
    weight = tl.load(weight_ptr + c[None, :] * CI + k[:, None], mask=both, other=0.0).to(y_ptr.dtype.element_ty)
    first = tl.zeros([BN], tl.float32)
    second = tl.zeros([BN], tl.float32)
    for block in range(tl.program_id(0), blocks, tl.num_programs(0)):
        p = block * BM + tl.arange(0, BM)
        mask = (p < pixels)[:, None] & enters[None, :]
        x = tl.load(x_ptr + p[:, None] * CI + k[None, :], mask=mask, other=0.0)
        if NORMED:
            x = entered(x, factor, summand, mask).to(y_ptr.dtype.element_ty)
        y = tl.dot(x, weight, input_precision="ieee").to(y_ptr.dtype.element_ty)
        mask = (p < pixels)[:, None] & real[None, :]
        tl.store(y_ptr + p[:, None] * CO + c[None, :], y, mask=mask)
        offset = tl.where(mask, y.to(tl.float32) - middle, 0.0)
        first += tl.sum(offset, 0)
        second += tl.sum(offset * offset, 0)
    add_sums(sums_ptr, c, real, first, second, CO, ROWS)


@triton.jit
def _backward(
    g_ptr,
    y_ptr,
    coefficients_ptr,
    x_ptr,
    before_ptr,
    weight_ptr,
    gx_ptr,
    sums_ptr,
    dw_ptr,
    pixels,
    blocks,
    CI: tl.constexpr,
    CO: tl.constexpr,
    NORMED: tl.constexpr,
    ROWS: tl.constexpr,
    BM: tl.constexpr,
    BK: tl.constexpr,
    BN: tl.constexpr,
):
    """A tile of BK input channels, every output channel."""
    k = tl.program_id(1) * BK + tl.arange(0, BK)
    enters = k < CI
    c = tl.arange(0, BN)
    real = c < CO
    if NORMED:
        factor = tl.load(before_ptr + k, mask=enters, other=0.0)[None, :]
        summand = tl.load(before_ptr + CI + k, mask=enters, other=0.0)[None, :]
        mean = tl.load(before_ptr + 2 * CI + k, mask=enters, other=0.0)[None, :]
    both = real[:, None] & enters[None, :]
    weight = tl.load(weight_ptr + c[:, None] * CI + k[None, :], mask=both, other=0.0).to(y_ptr.dtype.element_ty)
    total = tl.zeros([BK], tl.float32)
    slope = tl.zeros([BK], tl.float32)
    dw = tl.zeros([BK, BN], tl.float32)
    for block in range(tl.program_id(0), blocks, tl.num_programs(0)):
        p = block * BM + tl.arange(0, BM)
        mask = (p < pixels)[:, None] & real[None, :]
        d = raw_gradient(g_ptr, y_ptr, coefficients_ptr, p[:, None] * CO + c[None, :], c, real, mask, CO)
        d = d.to(y_ptr.dtype.element_ty)
        mask = (p < pixels)[:, None] & enters[None, :]
        x = tl.load(x_ptr + p[:, None] * CI + k[None, :], mask=mask, other=0.0)
        dx = tl.dot(d, weight, input_precision="ieee")
        z = x
        if NORMED:
            normed = entered(x, factor, summand, mask)
            z = normed.to(y_ptr.dtype.element_ty)
            dx = tl.where(normed > 0.0, dx, 0.0)
        g = dx.to(gx_ptr.dtype.element_ty)
        tl.store(gx_ptr + p[:, None] * CI + k[None, :], g, mask=mask)
        if NORMED:
            total += tl.sum(g.to(tl.float32), 0)
            slope += tl.sum(g.to(tl.float32) * (x.to(tl.float32) - mean), 0)
        dw = tl.dot(tl.trans(z), d, dw, input_precision="ieee")
    if NORMED:
        add_sums(sums_ptr, k, enters, total, slope, CI, ROWS)
    tl.atomic_add(dw_ptr + c[None, :] * CI + k[:, None], dw, mask=enters[:, None] & real[None, :])


def forward(x: Tensor, before: Tensor | None, weight: Tensor, running_mean: Tensor, sums: Tensor) -> Tensor:
    """Raw output (B, H, W, out) for x (B, H, W, source), which the state `before` norms first.

    weight (out, source, 1, 1) is rounded to the type of x. Adds the sums of y - running_mean (out,)
    and of its square to `sums`.
    """
    out, source = weight.shape[:2]
    y, cut = x.new_empty(*x.shape[:3], out), tuning.pointwise_forward(source, out)
    pixels = x.numel() // source
    state = x if before is None else before  # never read for None
    _forward[cut.grid(pixels, out, x.device)](
        *(x, state, weight, running_mean, y, sums, pixels, cut.count(pixels)),
        *(source, out, before is not None, ROWS, cut.rows, tuning.padded(source), cut.tile),
        num_warps=cut.warps,
        num_stages=cut.stages,
    )
    return y


def backward(
    g: Tensor,
    y: Tensor,
    coefficients: Tensor,
    x: Tensor,
    before: Tensor | None,
    weight: Tensor,
    sums: Tensor | None,
    weight_gradient: Tensor,
) -> Tensor:
    """Gradient behind the norm before x, or at x where there is none, from g, the gradient behind the norm of y.

    Adds to `weight_gradient` and to the `sums` of the norm before.
    """
    out, source = weight.shape[:2]
    gx, cut = torch.empty_like(x), tuning.pointwise_backward(source, out)
    pixels = x.numel() // source
    state, into = (x, x) if before is None or sums is None else (before, sums)
    _backward[cut.grid(pixels, source, x.device)](
        *(g, y, coefficients, x, state, weight, gx, into, weight_gradient, pixels, cut.count(pixels)),
        *(source, out, before is not None, ROWS, cut.rows, cut.tile, tuning.padded(out)),
        num_warps=cut.warps,
        num_stages=cut.stages,
    )
    return gx


def plain_forward(x: Tensor, before: Tensor | None, weight: Tensor, running_mean: Tensor, sums: Tensor) -> Tensor:
    """Twin of `forward`."""
    z = plain_entered(x, before).to(x.dtype).float()
    y = (z @ weight.flatten(1).to(x.dtype).float().T).to(x.dtype)
    plain_statistics(y, running_mean, sums)
    return y


def plain_backward(
    g: Tensor,
    y: Tensor,
    coefficients: Tensor,
    x: Tensor,
    before: Tensor | None,
    weight: Tensor,
    sums: Tensor | None,
    weight_gradient: Tensor,
) -> Tensor:
    """Twin of `backward`."""
    d = plain_raw_gradient(g, y, coefficients)
    z = plain_entered(x, before).to(x.dtype).float()
    weight_gradient += (d.flatten(0, 2).T @ z.flatten(0, 2)).view(weight.shape)
    return plain_leave(d @ weight.flatten(1).to(x.dtype).float(), x, before, sums)
