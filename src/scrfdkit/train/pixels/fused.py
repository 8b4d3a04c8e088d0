"""Samples from a store of pictures in one Triton kernel: every pixel is read, coloured and written once.

It rounds after every step, as `plain` does, whose results it is meant to equal bit for bit in float32.
"""

# mypy: disallow-untyped-decorators=False

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from scrfdkit.spec import Input
from scrfdkit.train.pixels import OUTSIDE, plain
from scrfdkit.train.pixels.store import Store

_COLUMNS = tl.constexpr(11)  # of a view
_OUTSIDE = tl.constexpr(OUTSIDE | OUTSIDE << 8 | OUTSIDE << 16)
_EPSILON = tl.constexpr(plain.EPSILON)
_BLOCK = 512  # pixels of a program


def draw(
    store: Store, rows: Tensor, views: Tensor, size: int, input: Input, out_dtype: torch.dtype = torch.float32
) -> Tensor:
    """As `plain.draw`, in one launch: samples (B, 3, size, size), memory format channels_last.

    out_dtype: float32, bfloat16 or float16. The host never waits, so the call can be part of a CUDA graph.
    """
    shape = (len(rows), 3, size, size)
    out = torch.empty(shape, dtype=out_dtype, device=store.pixels.device, memory_format=torch.channels_last)
    grid = (len(rows), triton.cdiv(size * size, _BLOCK))
    with torch.cuda.device_of(store.pixels):  # type: ignore[no-untyped-call]
        _samples[grid](
            store.pixels,
            store.offsets,
            store.sizes,
            rows.contiguous(),
            views.contiguous(),
            out,
            float(input.mean),
            1 / input.std,
            SIZE=size,
            BLOCK=_BLOCK,
            num_warps=4,
            enable_fp_fusion=False,  # a fused multiply-add rounds once where plain torch rounds twice
        )
    return out


def check(device: torch.device | str) -> float:
    """Largest difference in grey levels between the kernel and `plain` on this very device, for some random views.

    Both round alike, so it should be 0; a trainer may take the kernel below 0.01. Infinite for pixels that are not
    numbers. Raises whatever Triton raises where the kernel does not compile or run.
    """
    random = torch.Generator().manual_seed(0)

    def uniform(low: float, high: float) -> Tensor:
        return torch.empty(48).uniform_(low, high, generator=random)

    # No pixel becomes black, where the HSV formulas jump and a last bit could show as many grey levels.
    shapes = ((90, 120), (120, 90), (33, 65), (150, 150))
    images = [torch.randint(64, 256, (*shape, 3), generator=random, dtype=torch.uint8).numpy() for shape in shapes]
    flags = [(uniform(0, 1) < 0.5).float() for _ in range(3)]
    saturation = torch.where(flags[0] == flags[1], 1.0, uniform(0.5, 1.5))
    hue = torch.where(flags[1] == flags[2], 0.0, uniform(-18, 18))
    columns = [uniform(-60, 60).floor(), uniform(-60, 60).floor(), uniform(1, 200).floor(), flags[0]]
    columns += [uniform(-32, 32), uniform(0.5, 1.5), flags[1], saturation, hue, uniform(0, 6).floor(), flags[2]]
    store = Store.of(images, device)
    rows = (torch.arange(48) % len(images)).to(device)
    views = torch.stack(columns, 1).to(device)
    size, levels = 40, Input(mean=0.0, std=1.0)  # the last block of each sample is not full
    difference = draw(store, rows, views, size, levels) - plain.draw(store, rows, views, size, levels)
    return float(difference.abs().nan_to_num(nan=torch.inf).max())


@triton.jit
def _samples(
    pixels: tl.tensor,
    offsets: tl.tensor,
    sizes: tl.tensor,
    rows: tl.tensor,
    views: tl.tensor,
    out: tl.tensor,
    mean: tl.tensor,
    factor: tl.tensor,
    SIZE: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """A program makes BLOCK pixels of one sample. Axis 0 of the grid counts samples, axis 1 blocks of pixels."""
    sample = tl.program_id(0).to(tl.int64)  # products with it and with `row` may exceed 32 bits
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    exists = place < SIZE * SIZE
    view = views + sample * _COLUMNS
    row = tl.load(rows + sample)
    picture = pixels + tl.load(offsets + row)
    width, height = tl.load(sizes + row * 2), tl.load(sizes + row * 2 + 1)
    left, top, side = tl.load(view).to(tl.int32), tl.load(view + 1).to(tl.int32), tl.load(view + 2).to(tl.int32)

    column = place % SIZE
    column = tl.where(tl.load(view + 3) > 0.5, SIZE - 1 - column, column)
    x0, x1, share_x = _neighbours(column, side, SIZE)
    y0, y1, share_y = _neighbours(place // SIZE, side, SIZE)
    a_red, a_green, a_blue = _tap(picture, left + x0, top + y0, width, height, exists)
    b_red, b_green, b_blue = _tap(picture, left + x1, top + y0, width, height, exists)
    c_red, c_green, c_blue = _tap(picture, left + x0, top + y1, width, height, exists)
    d_red, d_green, d_blue = _tap(picture, left + x1, top + y1, width, height, exists)
    red = _blend(a_red, b_red, c_red, d_red, share_x, share_y)
    green = _blend(a_green, b_green, c_green, d_green, share_x, share_y)
    blue = _blend(a_blue, b_blue, c_blue, d_blue, share_x, share_y)

    brightness, contrast, contrast_first = tl.load(view + 4), tl.load(view + 5), tl.load(view + 6)
    before = tl.where(contrast_first > 0.5, contrast, 1.0)
    after = tl.where(contrast_first > 0.5, 1.0, contrast)
    red, green, blue = (red + brightness) * before, (green + brightness) * before, (blue + brightness) * before
    saturation, hue = tl.load(view + 7), tl.load(view + 8)
    if (saturation != 1.0) | (hue != 0.0):  # one answer for the whole program, which then saves the work
        red, green, blue = _turn(red, green, blue, saturation, hue)
    red, green, blue = _ordered(red * after, green * after, blue * after, tl.load(view + 9).to(tl.int32))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    gray = tl.load(view + 10) > 0.5

    target = out + (sample * (SIZE * SIZE) + place) * 3
    tl.store(target, _finished(red, luma, gray, mean, factor, out), mask=exists)
    tl.store(target + 1, _finished(green, luma, gray, mean, factor, out), mask=exists)
    tl.store(target + 2, _finished(blue, luma, gray, mean, factor, out), mask=exists)


@triton.jit
def _neighbours(place: tl.tensor, side: tl.tensor, SIZE: tl.constexpr) -> tl.tensor:
    """First and second column of the window for output columns `place`, and the second's share; see `plain`.

    Whole numbers, never negative when divided, and within 32 bits for windows below a million pixels.
    """
    position = tl.minimum(tl.maximum((2 * place + 1) * side - SIZE, 0), (side - 1) * (2 * SIZE))
    first = position // (2 * SIZE)
    share = (position - first * (2 * SIZE)).to(tl.float32) * (1 / (2 * SIZE))
    return first, first + 1, share


@triton.jit
def _tap(
    picture: tl.tensor, x: tl.tensor, y: tl.tensor, width: tl.tensor, height: tl.tensor, exists: tl.tensor
) -> tl.tensor:
    """Red, green and blue at places that may lie outside the picture, float32."""
    inside = exists & (x >= 0) & (x < width) & (y >= 0) & (y < height)
    colour = tl.load(picture + (y * width + x), mask=inside, other=_OUTSIDE)
    return (colour & 255).to(tl.float32), ((colour >> 8) & 255).to(tl.float32), ((colour >> 16) & 255).to(tl.float32)


@triton.jit
def _blend(a: tl.tensor, b: tl.tensor, c: tl.tensor, d: tl.tensor, share_x: tl.tensor, share_y: tl.tensor) -> tl.tensor:
    """Between upper left, upper right, lower left and lower right."""
    upper = a + (b - a) * share_x
    lower = c + (d - c) * share_x
    return upper + (lower - upper) * share_y


@triton.jit
def _turn(red: tl.tensor, green: tl.tensor, blue: tl.tensor, saturation: tl.tensor, hue: tl.tensor) -> tl.tensor:
    """Saturation multiplied and hue turned, as `plain.turn`. `/` would be an approximate division on a GPU."""
    highest = tl.maximum(tl.maximum(red, green), blue)
    spread = highest - tl.minimum(tl.minimum(red, green), blue)
    is_red, is_green = red == highest, green == highest
    ahead = tl.where(is_red, green - blue, tl.where(is_green, blue - red, red - green))
    start = tl.where(is_red, tl.where(green < blue, 6.0, 0.0), tl.where(is_green, 2.0, 4.0))
    place = tl.div_rn(ahead, spread + _EPSILON) + start
    place = place + hue * (1 / 60)
    place = tl.where(place > 6.0, place - 6.0, place)
    place = tl.where(place < 0.0, place + 6.0, place)
    strength = tl.div_rn(spread, tl.abs(highest) + _EPSILON) * saturation
    lost_red = _share(2.0 - tl.abs(place - 3.0))
    lost_green = _share(tl.abs(place - 2.0) - 1.0)
    lost_blue = _share(tl.abs(place - 4.0) - 1.0)
    return (
        highest * (1.0 - strength * lost_red),
        highest * (1.0 - strength * lost_green),
        highest * (1.0 - strength * lost_blue),
    )


@triton.jit
def _share(value: tl.tensor) -> tl.tensor:
    return tl.minimum(tl.maximum(value, 0.0), 1.0)


@triton.jit
def _ordered(red: tl.tensor, green: tl.tensor, blue: tl.tensor, order: tl.tensor) -> tl.tensor:
    """Channels in the order of that number; see `plain`."""
    first, odd = order // 2, order % 2 == 1
    low, high = tl.where(first == 0, 1, 0), tl.where(first == 2, 1, 2)
    new_red = _channel(red, green, blue, tl.where(odd, low, high))
    new_green = _channel(red, green, blue, tl.where(odd, high, low))
    return new_red, new_green, _channel(red, green, blue, first)


@triton.jit
def _channel(red: tl.tensor, green: tl.tensor, blue: tl.tensor, number: tl.tensor) -> tl.tensor:
    """Channel 0, 1 or 2 of B, G, R."""
    return tl.where(number == 0, blue, tl.where(number == 1, green, red))


@triton.jit
def _finished(
    value: tl.tensor, luma: tl.tensor, gray: tl.tensor, mean: tl.tensor, factor: tl.tensor, out: tl.tensor
) -> tl.tensor:
    """Gray where asked for, and normalised, in the type that `out` points to."""
    return ((tl.where(gray, luma, value) - mean) * factor).to(out.dtype.element_ty)
