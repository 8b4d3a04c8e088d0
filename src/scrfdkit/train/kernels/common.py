"""What the kernels share: the norm and ReLU at a convolution's entrance, sums of channels, the way back through a norm.

Maps are NHWC: (B, H, W, C), contiguous, in bfloat16, float16 or float32; all sums are float32. Between two units of a
chain only the raw output of a convolution is stored. Its batch norm is a factor and a summand a channel, which the next
convolution applies, with the ReLU, to what it loads.

`state` (4, C) float32 describes a norm for one batch: factor, summand, mean, 1 / standard deviation.
`coefficients` (3, C) float32 lead from the gradient behind a norm to the one before it: a, p, q of a g + p y + q.
`sums` (ROWS, 2, C) float32 are partial sums: programs add to different rows, so that few meet in one place.
"""

# mypy: disallow-untyped-defs=False, disallow-untyped-decorators=False, disallow-incomplete-defs=False
# mypy: disallow-untyped-calls=False, disable-error-code="import-untyped,import-not-found,no-any-return"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 8


@triton.jit
def entered(x, factor, summand, mask):
    """relu(norm(x)) in float32, and 0 outside the map: padding is laid around what comes out of the ReLU."""
    return tl.where(mask, tl.maximum(x.to(tl.float32) * factor + summand, 0.0, propagate_nan=tl.PropagateNan.ALL), 0.0)


@triton.jit
def middle_of(mean_ptr, c, real):
    """What sums are shifted by, which keeps the variance exact where the mean is large: the running mean.

    0 where that is not finite, so that one broken batch breaks no other.
    """
    mean = tl.load(mean_ptr + c, mask=real, other=0.0)
    return tl.where(tl.abs(mean) < 1e30, mean, 0.0)


@triton.jit
def add_sums(sums_ptr, c, real, first, second, C: tl.constexpr, ROWS: tl.constexpr):
    """Adds two sums of each channel to this program's row."""
    row = sums_ptr + (tl.program_id(0) % ROWS) * 2 * C + c
    tl.atomic_add(row, first, mask=real)
    tl.atomic_add(row + C, second, mask=real)


@triton.jit
def raw_gradient(g_ptr, y_ptr, coefficients_ptr, place, c, real, mask, C: tl.constexpr):
    """Gradient at the raw output y of a convolution, float32, from the one behind its norm; 0 outside the mask."""
    a = tl.load(coefficients_ptr + c, mask=real, other=0.0)[None, :]
    p = tl.load(coefficients_ptr + C + c, mask=real, other=0.0)[None, :]
    q = tl.load(coefficients_ptr + 2 * C + c, mask=real, other=0.0)[None, :]
    g = tl.load(g_ptr + place, mask=mask, other=0.0).to(tl.float32)
    y = tl.load(y_ptr + place, mask=mask, other=0.0).to(tl.float32)
    return tl.where(mask, a * g + p * y + q, 0.0)


def plain_entered(x: Tensor, before: Tensor | None) -> Tensor:
    """Twin of `entered`: (B, H, W, C) -> float32 of the same shape; x itself where no norm comes before."""
    return x.float() if before is None else torch.relu(x.float() * before[0] + before[1])


def plain_raw_gradient(g: Tensor, y: Tensor, coefficients: Tensor) -> Tensor:
    """Twin of `raw_gradient`: float32, rounded as the kernels round it."""
    a, p, q = coefficients
    return (a * g.float() + p * y.float() + q).to(y.dtype).float()


def plain_middle(running_mean: Tensor) -> Tensor:
    """Twin of `middle_of`."""
    return torch.where(running_mean.abs() < 1e30, running_mean, 0.0)


def plain_statistics(y: Tensor, running_mean: Tensor, sums: Tensor) -> None:
    """Twin of what a convolution adds to its sums: those of y, less the running mean, and of its square."""
    offset = (y.float() - plain_middle(running_mean)).flatten(0, 2)
    sums[0] += torch.stack([offset.sum(0), offset.square().sum(0)])


def plain_leave(gradient: Tensor, x: Tensor, before: Tensor | None, sums: Tensor | None) -> Tensor:
    """Twin of how a gradient leaves a convolution through the ReLU before it, with the sums its norm will need."""
    if before is None or sums is None:
        return gradient.to(x.dtype)
    g = (gradient * (x.float() * before[0] + before[1] > 0)).to(x.dtype)
    offset = x.float() - before[2]
    sums[0] += torch.stack([g.float().flatten(0, 2).sum(0), (g.float() * offset).flatten(0, 2).sum(0)])
    return g
