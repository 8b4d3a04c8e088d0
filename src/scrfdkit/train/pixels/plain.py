"""Samples from a store of pictures in plain torch: for every device, and what the other implementations must equal."""

from __future__ import annotations

import torch
from torch import Tensor

from scrfdkit.spec import Input
from scrfdkit.train.pixels import OUTSIDE
from scrfdkit.train.pixels.store import Store

EPSILON = 2.0**-23
"""What OpenCV adds to the divisors of its HSV conversion: the last bit of 1 in float32."""


def draw(
    store: Store, rows: Tensor, views: Tensor, size: int, input: Input, out_dtype: torch.dtype = torch.float32
) -> Tensor:
    """Samples (B, 3, size, size) of `out_dtype`, memory format channels_last, on the store's device.

    rows: (B,) int64, pictures of the store. views: (B, 11) float32, columns of `crops.VIEW`. Both on that device.
    The whole batch at once, without the host ever waiting for the device.
    """
    left, top, side, flip, *colours = views[:, :, None, None].unbind(1)  # each (B, 1, 1)
    forth = torch.arange(size, device=views.device)
    across = torch.where(flip > 0.5, forth.flip(0), forth)
    window = side.long()
    x0, x1, share_x = _neighbours(across, window, size)
    y0, y1, share_y = _neighbours(forth[:, None], window, size)
    xs, ys = (x0 + left.long(), x1 + left.long()), (y0 + top.long(), y1 + top.long())
    taps = [_tap(store, rows, x, y) for y in ys for x in xs]
    red, green, blue = (_blend(taps, shift, share_x, share_y) for shift in (0, 8, 16))
    channels = _coloured(red, green, blue, colours)
    # The reciprocal is what the kernel multiplies by, too; the usual 128 makes it exact.
    finished = [((channel - input.mean) * (1 / input.std)).to(out_dtype) for channel in channels]
    return torch.stack(finished, -1).permute(0, 3, 1, 2)


def _neighbours(place: Tensor, side: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """First and second column of the window for output columns `place`, and the second's share.

    In whole numbers of 1 / (2 size) of a column, so that every implementation finds the same neighbours. The second may
    lie beyond the window's end; its share is 0 then.
    """
    position = ((2 * place + 1) * side - size).clamp(min=0).minimum((side - 1) * (2 * size))
    first = position // (2 * size)
    share = (position - first * (2 * size)).float() * (1 / (2 * size))
    return first, first + 1, share


def _tap(store: Store, rows: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Packed colours (B, size, size) int32 at columns x (B, 1, size) and rows y (B, size, 1) of the pictures."""
    start = store.offsets[rows][:, None, None]
    width, height = store.sizes[rows].long()[:, :, None, None].unbind(1)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    colours = store.pixels.take(torch.where(inside, start + y * width + x, 0))
    return torch.where(inside, colours, OUTSIDE | OUTSIDE << 8 | OUTSIDE << 16)


def _blend(taps: list[Tensor], shift: int, share_x: Tensor, share_y: Tensor) -> Tensor:
    """One channel (B, size, size) float32 between its four neighbours, upper left, upper right, lower left, lower
    right. Not `lerp`, which may round otherwise."""
    a, b, c, d = ((tap >> shift & 255).float() for tap in taps)
    upper = a + (b - a) * share_x
    lower = c + (d - c) * share_x
    return upper + (lower - upper) * share_y


def _coloured(red: Tensor, green: Tensor, blue: Tensor, colours: list[Tensor]) -> list[Tensor]:
    """Steps 4 to 6 of the definition. colours: the columns of `crops.VIEW` from brightness on, each (B, 1, 1)."""
    brightness, contrast, contrast_first, saturation, hue, order, gray = colours
    before = torch.where(contrast_first > 0.5, contrast, 1.0)
    after = torch.where(contrast_first > 0.5, 1.0, contrast)
    red, green, blue = ((channel + brightness) * before for channel in (red, green, blue))
    pairs = zip(turn(red, green, blue, saturation, hue), (red, green, blue), strict=True)
    needed = (saturation != 1) | (hue != 0)
    red, green, blue = (torch.where(needed, new, old) * after for new, old in pairs)
    # Of the three channels, `first` is given by order // 2; the other two follow in rising order, or in falling order
    # where `order` is odd. Computed, because a table would have to be brought to the device.
    first, odd = torch.div(order, 2, rounding_mode="floor"), order.remainder(2) == 1
    low, high = torch.where(first == 0, 1.0, 0.0), torch.where(first == 2, 1.0, 2.0)
    places = torch.where(odd, low, high), torch.where(odd, high, low), first  # what becomes R, G, B
    channels = [torch.where(p == 0, blue, torch.where(p == 1, green, red)) for p in places]
    luma = 0.299 * channels[0] + 0.587 * channels[1] + 0.114 * channels[2]
    return [torch.where(gray > 0.5, luma, channel) for channel in channels]


def turn(red: Tensor, green: Tensor, blue: Tensor, saturation: Tensor, hue: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Saturation multiplied and hue turned by so many degrees: OpenCV's float32 HSV conversion, there and back.

    Any shapes that broadcast, any values, also below 0 and over 255. The hue is counted in sixths of the circle.
    """
    highest = torch.maximum(torch.maximum(red, green), blue)
    spread = highest - torch.minimum(torch.minimum(red, green), blue)
    is_red, is_green = red == highest, green == highest
    ahead = torch.where(is_red, green - blue, torch.where(is_green, blue - red, red - green))
    start = torch.where(is_red, torch.where(green < blue, 6.0, 0.0), torch.where(is_green, 2.0, 4.0))
    place = ahead / (spread + EPSILON) + start
    place = place + hue * (1 / 60)
    place = torch.where(place > 6, place - 6, place)
    place = torch.where(place < 0, place + 6, place)
    strength = spread / (highest.abs() + EPSILON) * saturation
    # How much of the strength each channel loses: none within a sixth of the circle of its own hue (red 0 and 6,
    # green 2, blue 4), all of it at two sixths and beyond, linearly between.
    lost_red = (2 - (place - 3).abs()).clamp(0, 1)
    lost_green = ((place - 2).abs() - 1).clamp(0, 1)
    lost_blue = ((place - 4).abs() - 1).clamp(0, 1)
    lost = (lost_red, lost_green, lost_blue)
    new_red, new_green, new_blue = (highest * (1 - strength * share) for share in lost)
    return new_red, new_green, new_blue
