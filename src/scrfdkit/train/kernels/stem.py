"""The first convolution, 3x3 of stride 2 from 3 channels, as one matrix product over windows of 27 values."""

# mypy: disallow-untyped-defs=False, disallow-untyped-decorators=False, disallow-incomplete-defs=False
# mypy: disallow-untyped-calls=False, disable-error-code="import-untyped,import-not-found,no-any-return"

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor
from torch.nn import functional as F
from torch.nn.grad import conv2d_weight

from scrfdkit.train.kernels import tuning
from scrfdkit.train.kernels.common import ROWS, add_sums, middle_of, plain_raw_gradient, plain_statistics, raw_gradient


@triton.jit
def _windows(x_ptr, p, k, pixels, height, width, out_height, out_width):
    """The pictures' values under the windows of pixels p: (BM, 32), of which 27 are used; 0 outside the picture."""
    n = p // (out_height * out_width)
    rest = p - n * (out_height * out_width)
    oy = rest // out_width
    ox = rest - oy * out_width
    iy = oy[:, None] * 2 + (k // 9)[None, :] - 1
    ix = ox[:, None] * 2 + (k // 3 % 3)[None, :] - 1
    mask = (p < pixels)[:, None] & (k < 27)[None, :] & (iy >= 0) & (iy < height) & (ix >= 0) & (ix < width)
    return tl.load(x_ptr + ((n[:, None] * height + iy) * width + ix) * 3 + (k % 3)[None, :], mask=mask, other=0.0)


@triton.jit
def _weight_place(c, k, s0, s1, s2, s3):
    """Where the weights (out, 3, 3, 3) of such windows are, in any order of the axes in memory: (32, BN)."""
    return c[None, :] * s0 + ((k % 3) * s1 + (k // 9) * s2 + (k // 3 % 3) * s3)[:, None]


@triton.jit
def _forward(
    x_ptr,
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
    s0,
    s1,
    s2,
    s3,
    CO: tl.constexpr,
    ROWS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    k = tl.arange(0, 32)
    c = tl.arange(0, BN)
    real = c < CO
    place = weight_ptr + _weight_place(c, k, s0, s1, s2, s3)
    weight = tl.load(place, mask=(k < 27)[:, None] & real[None, :], other=0.0).to(y_ptr.dtype.element_ty)
    middle = middle_of(mean_ptr, c, real)[None, :]
    first = tl.zeros([BN], tl.float32)
    second = tl.zeros([BN], tl.float32)
    for block in range(tl.program_id(0), blocks, tl.num_programs(0)):
        p = block * BM + tl.arange(0, BM)
        x = _windows(x_ptr, p, k, pixels, height, width, out_height, out_width)
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
    dw_ptr,
    height,
    width,
    out_height,
    out_width,
    pixels,
    blocks,
    s0,
    s1,
    s2,
    s3,
    CO: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
):
    k = tl.arange(0, 32)
    c = tl.arange(0, BN)
    real = c < CO
    dw = tl.zeros([32, BN], tl.float32)
    for block in range(tl.program_id(0), blocks, tl.num_programs(0)):
        p = block * BM + tl.arange(0, BM)
        x = _windows(x_ptr, p, k, pixels, height, width, out_height, out_width)
        mask = (p < pixels)[:, None] & real[None, :]
        d = raw_gradient(g_ptr, y_ptr, coefficients_ptr, p[:, None] * CO + c[None, :], c, real, mask, CO)
        dw = tl.dot(tl.trans(x), d.to(y_ptr.dtype.element_ty), dw, input_precision="ieee")
    place = dw_ptr + _weight_place(c, k, s0, s1, s2, s3)
    tl.atomic_add(place, dw, mask=(k < 27)[:, None] & real[None, :])


def forward(x: Tensor, weight: Tensor, running_mean: Tensor, sums: Tensor) -> Tensor:
    """Raw output (B, h, w, out) for pictures (B, H, W, 3) and weight (out, 3, 3, 3), rounded to the type of x.

    Adds the sums of y - running_mean (out,) and of its square to `sums`.
    """
    batch, height, width, _ = x.shape
    out, size = len(weight), ((height + 1) // 2, (width + 1) // 2)
    y, cut = x.new_empty(batch, *size, out), tuning.stem_forward(out)
    pixels = batch * size[0] * size[1]
    _forward[cut.grid(pixels, out, x.device)](
        *(x, weight, running_mean, y, sums, height, width, *size, pixels, cut.count(pixels), *weight.stride()),
        *(out, ROWS, cut.rows, cut.tile),
        num_warps=cut.warps,
    )
    return y


def backward(g: Tensor, y: Tensor, coefficients: Tensor, x: Tensor, weight_gradient: Tensor) -> None:
    """Adds to `weight_gradient` (out, 3, 3, 3), of any memory order, from g, the gradient behind the norm of y.

    There is no gradient of the pictures.
    """
    batch, height, width, _ = x.shape
    size, out = y.shape[1:3], y.shape[3]
    cut, pixels = tuning.stem_backward(out), batch * size[0] * size[1]
    strides = weight_gradient.stride()
    _backward[cut.grid(pixels, out, x.device)](
        *(g, y, coefficients, x, weight_gradient, height, width, *size, pixels, cut.count(pixels), *strides),
        *(out, cut.rows, cut.tile),
        num_warps=cut.warps,
    )


def plain_forward(x: Tensor, weight: Tensor, running_mean: Tensor, sums: Tensor) -> Tensor:
    """Twin of `forward`."""
    rounded = weight.to(x.dtype).float()
    y = F.conv2d(x.float().permute(0, 3, 1, 2), rounded, None, 2, 1).permute(0, 2, 3, 1).to(x.dtype)
    plain_statistics(y, running_mean, sums)
    return y


def plain_backward(g: Tensor, y: Tensor, coefficients: Tensor, x: Tensor, weight_gradient: Tensor) -> None:
    """Twin of `backward`."""
    d = plain_raw_gradient(g, y, coefficients).permute(0, 3, 1, 2)
    weight_gradient += conv2d_weight(x.float().permute(0, 3, 1, 2), weight_gradient.shape, d, 2, 1)
