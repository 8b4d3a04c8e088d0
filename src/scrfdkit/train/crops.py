"""From faces to samples: windows, flips and colours drawn from uniform numbers, and labels moved into the samples.

Everything is drawn for a whole batch at once and is a pure function of the labels and of one row of uniform numbers a
sample, so that the same numbers give the same samples on any device, in any process, before and after a resume.

Shapes: B samples, G places for faces, K key points, R rounds, T tries.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from scrfdkit.errors import OptionError
from scrfdkit.train.faces import Padded
from scrfdkit.train.recipe import Colour, Crop, Recipe

VIEW = ("left", "top", "side", "flip", "brightness", "contrast", "contrast_first", "saturation", "hue", "order", "gray")
"""Columns of a tensor of views: where a sample's pixels come from and what is done to them (see `pixels.plain`)."""

CLOSE_UP = (0.4, 0.95)
"""Shares of the window's side that the face of a close-up fills."""

SMALLEST_CLOSE_UP = 48
"""Longer side in pixels from which a face may become a close-up: enlarging smaller ones shows nothing but blur."""

MIRROR = {5: (1, 0, 2, 4, 3)}
"""Order of the key points of a mirrored face, by their number: eyes and corners of the mouth change places."""

_LOOKS_AT = (4, 16, 64)  # tries that are looked at at once
_WINDOW = 6  # uniform numbers for a window besides those of its tries
_LOOK = 16  # ... for flip and colours


class Samples(NamedTuple):
    """Labels of B samples, in the samples' pixels.

    boxes_BG4, points_BGK3: as in `Padded`. face_BG: a face to be found is in the sample.
    """

    boxes_BG4: Tensor
    points_BGK3: Tensor
    face_BG: Tensor


def num_uniforms(crop: Crop) -> int:
    """How many uniform numbers one sample takes."""
    return crop.rounds * (1 + 2 * crop.tries) + _WINDOW + _LOOK


def draw(faces: Padded, uniforms_BU: Tensor, recipe: Recipe) -> Tensor:
    """views (B, len(VIEW)) float32. uniforms_BU: (B, num_uniforms) in [0, 1)."""
    windows = recipe.crop.rounds * (1 + 2 * recipe.crop.tries) + _WINDOW
    window = _windows(faces, uniforms_BU[:, :windows], recipe.crop)
    return torch.cat([window, _looks(uniforms_BU[:, windows:], recipe.flip, recipe.colour)], 1)


def _windows(faces: Padded, uniforms_BU: Tensor, crop: Crop) -> Tensor:
    """left, top, side (B, 3).

    A ratio gives the side; positions are tried until the middle of a face lies inside. Where no position of a round
    does, the next ratio is drawn; after the last round the window is laid around a random face, which ends what is
    an endless search in the reference.
    """
    middle_BG2 = (faces.boxes_BG4[..., :2] + faces.boxes_BG4[..., 2:]) / 2
    extra, tries = uniforms_BU[:, :_WINDOW], uniforms_BU[:, _WINDOW:]
    shorter_B = faces.sizes_B2.amin(1)
    ratios = torch.tensor(crop.ratios, device=tries.device)
    window = _around_a_face(faces, middle_BG2, extra, shorter_B, ratios)
    open_rows = torch.arange(len(tries), device=tries.device)
    for uniforms in tries.reshape(len(tries), crop.rounds, -1).unbind(1):
        pick = (uniforms[open_rows, 0] * len(ratios)).long().clamp(max=len(ratios) - 1)
        side = (ratios[pick] * shorter_B[open_rows]).floor().clamp(min=1)
        spots = uniforms[open_rows, 1:].reshape(len(open_rows), crop.tries, 2)
        spots = _positions(spots, faces.sizes_B2[open_rows], side)
        first = _first_hit(spots, side, middle_BG2[open_rows], faces.face_BG[open_rows])
        hit = first >= 0
        spot = spots[hit].gather(1, first[hit][:, None, None].expand(-1, 1, 2))[:, 0]
        window[open_rows[hit]] = torch.cat([spot, side[hit][:, None]], 1)
        open_rows = open_rows[~hit]
        if not len(open_rows):
            break
    if not crop.close_ups:
        return window
    longer_BG = (faces.boxes_BG4[..., 2:] - faces.boxes_BG4[..., :2]).amax(2)
    large_BG = faces.face_BG & (longer_BG >= SMALLEST_CLOSE_UP)
    close_B = (extra[:, 0] < crop.close_ups) & large_BG.any(1)
    return torch.where(close_B[:, None], _close_ups(faces._replace(face_BG=large_BG), middle_BG2, extra), window)


def _positions(uniforms_BT2: Tensor, sizes_B2: Tensor, side_B: Tensor) -> Tensor:
    """(B, T, 2) left and top: inside the picture where it is larger, else so that the window covers it.

    The reference's bounds: [0, size - side - 1] and [size - side, -1], so an axis of equal size alone has offset 0.
    """
    room_B12 = (sizes_B2 - side_B[:, None])[:, None]
    return torch.where(room_B12 >= 0, (uniforms_BT2 * room_B12).floor(), room_B12 + (uniforms_BT2 * -room_B12).floor())


def _first_hit(spots_BT2: Tensor, side_B: Tensor, middle_BG2: Tensor, face_BG: Tensor) -> Tensor:
    """(B,) number of the first window that holds a face, -1 for none. Most samples are done after a few tries."""
    first_B = torch.full((len(side_B),), -1, device=side_B.device)
    open_rows = torch.arange(len(side_B), device=side_B.device)
    start = 0
    for stop in (*(n for n in _LOOKS_AT if n < spots_BT2.shape[1]), spots_BT2.shape[1]):
        hit = _holds_a_face(
            spots_BT2[open_rows, start:stop], side_B[open_rows], middle_BG2[open_rows], face_BG[open_rows]
        )
        done = hit.any(1)
        first_B[open_rows[done]] = start + hit[done].to(torch.uint8).argmax(1)
        open_rows, start = open_rows[~done], stop
        if not len(open_rows):
            break
    return first_B


def _holds_a_face(spots_BT2: Tensor, side_B: Tensor, middle_BG2: Tensor, face_BG: Tensor) -> Tensor:
    """(B, T) whether the middle of a face lies strictly inside the window; any window will do without faces."""
    low, high = spots_BT2, spots_BT2 + side_B[:, None, None]
    inside = face_BG[:, None].expand(-1, spots_BT2.shape[1], -1)
    for axis in (0, 1):
        middle = middle_BG2[:, None, :, axis]
        inside = inside & (middle > low[..., axis, None]) & (middle < high[..., axis, None])
    return inside.any(2) | ~face_BG.any(1)[:, None]


def _one_face(faces: Padded, uniform_B: Tensor) -> Tensor:
    """(B,) place of a face drawn evenly among those to be found."""
    count_BG = faces.face_BG.cumsum(1)
    wanted_B = (uniform_B * count_BG[:, -1]).floor() + 1
    return (count_BG < wanted_B[:, None]).sum(1).clamp(max=faces.face_BG.shape[1] - 1)


def _around_a_face(faces: Padded, middle_BG2: Tensor, extra: Tensor, shorter_B: Tensor, ratios: Tensor) -> Tensor:
    """left, top, side (B, 3) of a window with a face's middle in its middle third."""
    pick_B = (extra[:, 1] * len(ratios)).long().clamp(max=len(ratios) - 1)
    side_B = (ratios[pick_B] * shorter_B).floor().clamp(min=4)  # the middle third of less may hold no whole number
    spot_B2 = _of_place(middle_BG2, _one_face(faces, extra[:, 2])) - side_B[:, None] * (1 + extra[:, 3:5]) / 3
    return torch.cat([spot_B2.floor(), side_B[:, None]], 1)


def _close_ups(faces: Padded, middle_BG2: Tensor, extra: Tensor) -> Tensor:
    """left, top, side (B, 3) of a window that one face fills for the most part, wherever in it the face lies."""
    place_B = _one_face(faces, extra[:, 2])
    box_B4 = _of_place(faces.boxes_BG4, place_B)
    longer_B = (box_B4[:, 2:] - box_B4[:, :2]).amax(1)
    low, high = CLOSE_UP
    side_B = (longer_B / (low + (high - low) * extra[:, 5])).floor().clamp(min=4)
    room_B2 = (side_B - longer_B).clamp(min=0)[:, None] * (extra[:, 3:5] - 0.5)
    spot_B2 = _of_place(middle_BG2, place_B) - side_B[:, None] / 2 + room_B2
    return torch.cat([spot_B2.floor(), side_B[:, None]], 1)


def _of_place(values_BGn: Tensor, place_B: Tensor) -> Tensor:
    return values_BGn.gather(1, place_B[:, None, None].expand(-1, 1, values_BGn.shape[2]))[:, 0]


def _looks(uniforms_BU: Tensor, flip: float, colour: Colour) -> Tensor:
    """The columns of VIEW from "flip" on, (B, 8)."""
    u = uniforms_BU.unbind(1)

    def maybe(chance: Tensor, value: Tensor, otherwise: float) -> Tensor:
        return torch.where(chance < colour.chance, value, torch.full_like(value, otherwise))

    def between(uniform: Tensor, bounds: tuple[float, float]) -> Tensor:
        return bounds[0] + (bounds[1] - bounds[0]) * uniform

    columns = (
        (u[0] < flip).float(),
        maybe(u[1], between(u[2], (-colour.brightness, colour.brightness)), 0.0),
        maybe(u[3], between(u[4], colour.contrast), 1.0),
        (u[5] < 0.5).float(),
        maybe(u[6], between(u[7], colour.saturation), 1.0),
        maybe(u[8], between(u[9], (-colour.hue, colour.hue)), 0.0),
        torch.where(u[10] < colour.swap, (u[11] * 6).floor().clamp(max=5), torch.zeros_like(u[11])),
        (u[12] < colour.gray).float(),
    )
    return torch.stack(columns, 1)


def move(faces: Padded, views_B: Tensor, size: int, *, clip: bool, mirror: tuple[int, ...] = ()) -> Samples:
    """Labels into the samples of `size` x `size` pixels.

    A face belongs to a sample whose window strictly holds its middle. clip: boxes and points end at the edges.
    mirror: as in `Recipe`. Points without label keep v = -1; their x and y mean nothing.
    """
    left_B2, side_B11 = views_B[:, :2], views_B[:, 2, None, None]
    middle_BG2 = (faces.boxes_BG4[..., :2] + faces.boxes_BG4[..., 2:]) / 2 - left_B2[:, None]
    face_BG = faces.face_BG & ((middle_BG2 > 0) & (middle_BG2 < side_B11)).all(2)
    scale = size / side_B11
    boxes = (faces.boxes_BG4 - left_B2.repeat(1, 2)[:, None]) * scale
    points = (faces.points_BGK3[..., :2] - left_B2[:, None, None]) * scale[..., None]
    if clip:
        boxes, points = boxes.clamp(0, size), points.clamp(0, size)
    flip_B11 = views_B[:, 3, None, None] > 0.5
    mirrored = torch.stack([size - boxes[..., 2], boxes[..., 1], size - boxes[..., 0], boxes[..., 3]], -1)
    boxes = torch.where(flip_B11, mirrored, boxes)
    points = torch.cat([points, faces.points_BGK3[..., 2:]], -1)
    return Samples(boxes, _mirrored(points, flip_B11[..., None], size, mirror), face_BG)


def _mirrored(points_BGK3: Tensor, flip: Tensor, size: int, mirror: tuple[int, ...]) -> Tensor:
    num_keypoints = points_BGK3.shape[2]
    if not num_keypoints or not flip.any():
        return points_BGK3
    turned = points_BGK3[:, :, list(mirror_order(num_keypoints, mirror))]
    turned = torch.cat([size - turned[..., :1], turned[..., 1:]], -1)
    return torch.where(flip, turned, points_BGK3)


def mirror_order(num_keypoints: int, told: tuple[int, ...] = ()) -> tuple[int, ...]:
    """Where each point of a mirrored face comes from: as told by a recipe, or as usual.

    Raises OptionError for a number of points without a known order.
    """
    if told and len(told) != num_keypoints:
        raise OptionError(f"mirror: {len(told)} numbers are told, and faces have {num_keypoints} key points")
    if told:
        return told
    if num_keypoints not in (0, *MIRROR):
        raise OptionError(
            f"flip: nobody has told which of {num_keypoints} key points change places in a mirrored face;"
            " tell it with --set mirror=1,0,2 (which point each one was before), or do without with --set flip=0"
        )
    return MIRROR.get(num_keypoints, ())
