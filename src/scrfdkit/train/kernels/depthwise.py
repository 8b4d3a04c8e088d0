"""Depth-wise 3x3 convolution, padding 1, stride 1 or 2: the norm and ReLU before it on load, sums for the next."""

# mypy: disallow-untyped-defs=False, disallow-untyped-decorators=False, disallow-incomplete-defs=False
# mypy: disallow-untyped-calls=False, disable-error-code="import-untyped,import-not-found,no-any-return"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

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
    height,
    width,
    out_height,
    out_width,
    pixels,
    blocks,
    STRIDE: tl.constexpr,
    C: tl.constexpr,
    NORMED: tl.constexpr,
    ROWS: tl.constexpr,
    BM: tl.constexpr,
    BC: tl.constexpr,
):
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    real = c < C
    if NORMED:
        factor = tl.load(before_ptr + c, mask=real, other=0.0)[None, :]
        summand = tl.load(before_ptr + C + c, mask=real, other=0.0)[None, :]
    middle = middle_of(mean_ptr, c, real)[None, :]
    first = tl.zeros([BM, BC], tl.float32)
    second = tl.zeros([BM, BC], tl.float32)
    for block in range(tl.program_id(0), blocks, tl.num_programs(0)):
        p = block * BM + tl.arange(0, BM)
        n = p // (out_height * out_width)
        rest = p - n * (out_height * out_width)
        oy = rest // out_width
        ox = rest - oy * out_width
        total = tl.zeros([BM, BC], tl.float32)
        for tap in tl.static_range(9):
            iy = oy * STRIDE + (tap // 3) - 1
            ix = ox * STRIDE + (tap % 3) - 1
            on_map = (p < pixels) & (iy >= 0) & (iy < height) & (ix >= 0) & (ix < width)
            mask = on_map[:, None] & real[None, :]
            place = ((n * height + iy) * width + ix)[:, None] * C + c[None, :]
            x = tl.load(x_ptr + place, mask=mask, other=0.0).to(tl.float32)
            if NORMED:
                x = entered(x, factor, summand, mask)
            total += x * tl.load(weight_ptr + c * 9 + tap, mask=real, other=0.0)[None, :]
        y = total.to(y_ptr.dtype.element_ty)
        mask = (p < pixels)[:, None] & real[None, :]
        tl.store(y_ptr + p[:, None] * C + c[None, :], y, mask=mask)
        offset = tl.where(mask, y.to(tl.float32) - middle, 0.0)
        first += offset
        second += offset * offset
    add_sums(sums_ptr, c, real, tl.sum(first, 0), tl.sum(second, 0), C, ROWS)


@triton.jit
def _raw_gradient(g_ptr, y_ptr, coefficients_ptr, pixels, C: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr):
    """In place, because nine taps will read each value."""
    p = tl.program_id(0) * BM + tl.arange(0, BM)
    c = tl.arange(0, BC)
    real = c < C
    mask = (p < pixels)[:, None] & real[None, :]
    place = p[:, None] * C + c[None, :]
    d = raw_gradient(g_ptr, y_ptr, coefficients_ptr, place, c, real, mask, C)
    tl.store(g_ptr + place, d.to(g_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _tap(d_ptr, weight_ptr, z, dx, dw, at, STRIDE: tl.constexpr, C: tl.constexpr, TAP: tl.constexpr):
    """What one of the nine weights adds to the gradient dx of the pixels, and they to its own gradient dw."""
    n, iy, ix, on_map, c, real, out_height, out_width = at
    ny = iy + 1 - TAP // 3
    nx = ix + 1 - TAP % 3
    oy = ny // STRIDE
    ox = nx // STRIDE
    mask = on_map & (ny >= 0) & (nx >= 0) & (oy < out_height) & (ox < out_width)
    if STRIDE == 2:
        mask = mask & (ny % 2 == 0) & (nx % 2 == 0)
    place = ((n * out_height + oy) * out_width + ox)[:, None] * C + c[None, :]
    d = tl.load(d_ptr + place, mask=mask[:, None] & real[None, :], other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + c * 9 + TAP, mask=real, other=0.0)[None, :]
    return dx + d * weight, dw + z * d


@triton.jit
def _row(d_ptr, weight_ptr, z, dx, left, centre, right, at, STRIDE: tl.constexpr, C: tl.constexpr, ROW: tl.constexpr):
    """The three taps of a row."""
    dx, left = _tap(d_ptr, weight_ptr, z, dx, left, at, STRIDE, C, 3 * ROW)
    dx, centre = _tap(d_ptr, weight_ptr, z, dx, centre, at, STRIDE, C, 3 * ROW + 1)
    dx, right = _tap(d_ptr, weight_ptr, z, dx, right, at, STRIDE, C, 3 * ROW + 2)
    return dx, left, centre, right


@triton.jit
def _add_row(place, left, centre, right, real):
    tl.atomic_add(place, tl.sum(left, 0), mask=real)
    tl.atomic_add(place + 1, tl.sum(centre, 0), mask=real)
    tl.atomic_add(place + 2, tl.sum(right, 0), mask=real)


@triton.jit
def _backward(
    d_ptr,
    x_ptr,
    before_ptr,
    weight_ptr,
    gx_ptr,
    sums_ptr,
    dw_ptr,
    height,
    width,
    out_height,
    out_width,
    pixels,
    blocks,
    STRIDE: tl.constexpr,
    C: tl.constexpr,
    NORMED: tl.constexpr,
    ROWS: tl.constexpr,
    BM: tl.constexpr,
    BC: tl.constexpr,
):
    """One pass over the pixels of the input, which gather from the output: no two programs write one place."""
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    real = c < C
    if NORMED:
        factor = tl.load(before_ptr + c, mask=real, other=0.0)[None, :]
        summand = tl.load(before_ptr + C + c, mask=real, other=0.0)[None, :]
        mean = tl.load(before_ptr + 2 * C + c, mask=real, other=0.0)[None, :]
    zero = tl.zeros([BM, BC], tl.float32)
    total, slope = zero, zero
    w0, w1, w2 = zero, zero, zero
    w3, w4, w5 = zero, zero, zero
    w6, w7, w8 = zero, zero, zero
    for block in range(tl.program_id(0), blocks, tl.num_programs(0)):
        p = block * BM + tl.arange(0, BM)
        on_map = p < pixels
        n = p // (height * width)
        rest = p - n * (height * width)
        iy = rest // width
        ix = rest - iy * width
        place = p[:, None] * C + c[None, :]
        mask = on_map[:, None] & real[None, :]
        x = tl.load(x_ptr + place, mask=mask, other=0.0).to(tl.float32)
        z = x
        if NORMED:
            z = entered(x, factor, summand, mask)
        dx = tl.zeros([BM, BC], tl.float32)
        at = (n, iy, ix, on_map, c, real, out_height, out_width)
        dx, w0, w1, w2 = _row(d_ptr, weight_ptr, z, dx, w0, w1, w2, at, STRIDE, C, 0)
        dx, w3, w4, w5 = _row(d_ptr, weight_ptr, z, dx, w3, w4, w5, at, STRIDE, C, 1)
        dx, w6, w7, w8 = _row(d_ptr, weight_ptr, z, dx, w6, w7, w8, at, STRIDE, C, 2)
        if NORMED:
            dx = tl.where(z > 0.0, dx, 0.0)
        g = dx.to(gx_ptr.dtype.element_ty)
        tl.store(gx_ptr + place, g, mask=mask)
        if NORMED:
            total += g.to(tl.float32)
            slope += g.to(tl.float32) * (x - mean)
    if NORMED:
        add_sums(sums_ptr, c, real, tl.sum(total, 0), tl.sum(slope, 0), C, ROWS)
    _add_row(dw_ptr + c * 9 + 0, w0, w1, w2, real)
    _add_row(dw_ptr + c * 9 + 3, w3, w4, w5, real)
    _add_row(dw_ptr + c * 9 + 6, w6, w7, w8, real)


def forward(
    x: Tensor, before: Tensor | None, weight: Tensor, stride: int, running_mean: Tensor, sums: Tensor
) -> Tensor:
    """Raw output (B, h, w, C) for x (B, H, W, C), which the state `before` norms first, and weight (C, 1, 3, 3).

    Adds the sums of y - running_mean (C,) and of its square to `sums`.
    """
    batch, height, width, channels = x.shape
    size = ((height - 1) // stride + 1, (width - 1) // stride + 1)
    y, cut = x.new_empty(batch, *size, channels), tuning.depthwise_forward(channels, stride)
    pixels = batch * size[0] * size[1]
    state = x if before is None else before  # never read for None
    _forward[cut.grid(pixels, channels, x.device)](
        *(x, state, weight, running_mean, y, sums, height, width, *size, pixels, cut.count(pixels)),
        *(stride, channels, before is not None, ROWS, cut.rows, cut.tile),
        num_warps=cut.warps,
    )
    return y


def backward(
    g: Tensor,
    y: Tensor,
    coefficients: Tensor,
    x: Tensor,
    before: Tensor | None,
    weight: Tensor,
    stride: int,
    sums: Tensor | None,
    weight_gradient: Tensor,
) -> Tensor:
    """Gradient behind the norm before x, or at x where there is none; g becomes the gradient at y.

    g (B, h, w, C): gradient behind the norm of y. Adds to `weight_gradient` and to the `sums` of the norm before.
    """
    batch, height, width, channels = x.shape
    each = tuning.elementwise(channels)
    pixels = y.numel() // channels
    _raw_gradient[(each.count(pixels),)](
        g, y, coefficients, pixels, channels, each.rows, each.tile, num_warps=each.warps
    )
    gx, cut = torch.empty_like(x), tuning.depthwise_backward(channels, stride)
    pixels = batch * height * width
    state, into = (x, x) if before is None or sums is None else (before, sums)
    _backward[cut.grid(pixels, channels, x.device)](
        *(g, x, state, weight, gx, into, weight_gradient, height, width, *y.shape[1:3], pixels, cut.count(pixels)),
        *(stride, channels, before is not None, ROWS, cut.rows, cut.tile),
        num_warps=cut.warps,
    )
    return gx


def plain_forward(
    x: Tensor, before: Tensor | None, weight: Tensor, stride: int, running_mean: Tensor, sums: Tensor
) -> Tensor:
    """Twin of `forward`."""
    z = plain_entered(x, before).permute(0, 3, 1, 2)
    y = F.conv2d(z, weight, None, stride, 1, groups=len(weight)).permute(0, 2, 3, 1).to(x.dtype)
    plain_statistics(y, running_mean, sums)
    return y


def plain_backward(
    g: Tensor,
    y: Tensor,
    coefficients: Tensor,
    x: Tensor,
    before: Tensor | None,
    weight: Tensor,
    stride: int,
    sums: Tensor | None,
    weight_gradient: Tensor,
) -> Tensor:
    """Twin of `backward`."""
    d = plain_raw_gradient(g, y, coefficients).permute(0, 3, 1, 2)
    z = plain_entered(x, before).permute(0, 3, 1, 2)
    weight_gradient += conv2d_weight(z, weight.shape, d, stride, 1, groups=len(weight))
    gradient = conv2d_input(z.shape, weight, d, stride, 1, groups=len(weight))
    return plain_leave(gradient.permute(0, 2, 3, 1), x, before, sums)
