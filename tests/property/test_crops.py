"""Windows, flips and clipping against the reference's rules, for any faces and any uniform numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scrfdkit.errors import OptionError
from scrfdkit.train.crops import CLOSE_UP, SMALLEST_CLOSE_UP, VIEW, draw, mirror_order, move, num_uniforms
from scrfdkit.train.faces import Padded
from scrfdkit.train.recipe import Colour, Crop, Recipe


@st.composite
def pictures(draw_from: st.DrawFn, least: int = 1) -> Padded:
    """Up to four pictures of any shape with up to six faces each, some ignored."""
    b, g = draw_from(st.integers(1, 4)), draw_from(st.integers(least, 6))
    seed = draw_from(st.integers(0, 2**31))
    rng = np.random.default_rng(seed)
    sizes = rng.integers(32, 1500, (b, 2)).astype(np.float32)
    middle = rng.random((b, g, 2)) * (sizes[:, None] - 2) + 1
    half = rng.random((b, g, 2)) * draw_from(st.sampled_from([3, 40, 400])) + 0.5
    boxes = np.concatenate([middle - half, middle + half], 2)
    points = np.concatenate([middle[:, :, None] + rng.normal(size=(b, g, 5, 2)) * 5, np.ones((b, g, 5, 1))], 3)
    face = rng.random((b, g)) < 0.7
    face[:, 0] |= ~face.any(1)
    tensors = [torch.from_numpy(np.asarray(a, np.float32)) for a in (boxes, points)]
    return Padded(tensors[0], tensors[1], torch.from_numpy(face), torch.from_numpy(sizes))


def views(faces: Padded, recipe: Recipe, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return draw(faces, torch.rand(len(faces.sizes_B2), num_uniforms(recipe.crop), generator=generator), recipe)


def middles(faces: Padded) -> torch.Tensor:
    return (faces.boxes_BG4[..., :2] + faces.boxes_BG4[..., 2:]) / 2


@settings(max_examples=80, deadline=None)
@given(faces=pictures(), seed=st.integers(0, 999))
def test_every_window_holds_a_face_and_obeys_the_bounds(faces: Padded, seed: int) -> None:
    recipe = Recipe()
    for row, (width, height), middle, face in zip(
        views(faces, recipe, seed), faces.sizes_B2.tolist(), middles(faces), faces.face_BG, strict=True
    ):
        left, top, side = row[:3].tolist()
        assert left == int(left)
        assert top == int(top)
        sides = [math.floor(np.float32(ratio) * np.float32(min(width, height))) for ratio in recipe.crop.ratios]
        assert side in sides
        inside = ((middle > row[:2]) & (middle < row[:2] + side)).all(1)
        assert (inside & face).any()
        if side >= 100:  # else the window may be the one around a face, which obeys no bounds
            for offset, length in ((left, width), (top, height)):
                low, high = (0, max(0, length - side - 1)) if length >= side else (length - side, -1)
                assert low <= offset <= high


def test_all_ratios_and_the_whole_range_of_positions_are_drawn_evenly() -> None:
    one = Padded(
        torch.tensor([[[0.0, 0, 1000, 800]]]),
        torch.zeros(1, 1, 0, 3),
        torch.ones(1, 1) > 0,
        torch.tensor([[1000.0, 800]]),
    )
    number = 20_000
    faces = Padded(*(t.expand(number, *t.shape[1:]) for t in one))
    # One face in the middle of the picture: a window of the full side always holds it, so that nothing is rejected.
    recipe = Recipe().change({"crop.ratios": [1.0, 2.0], "crop.tries": 4})
    found = views(faces, recipe)
    full = found[found[:, 2] == 800]
    assert abs(len(full) / number - 0.5) < 0.02
    assert full[:, 1].unique().tolist() == [0]
    assert full[:, 0].min() == 0
    assert full[:, 0].max() == 199
    counts = torch.bincount(full[:, 0].long(), minlength=200)
    assert counts.min() > 20
    padded = found[found[:, 2] == 1600]
    assert padded[:, 0].min() == -600
    assert padded[:, 0].max() == -1
    assert padded[:, 1].min() == -800


def test_rejection_leaves_positions_even_among_those_that_hold_the_face() -> None:
    """A face near the left edge: of the offsets 0 to 199 those below 51 hold it, each as often as the others."""
    box = torch.tensor([[[50.0, 300, 52, 302]]])
    number = 4000
    faces = Padded(
        box.expand(number, -1, -1),
        torch.zeros(number, 1, 0, 3),
        torch.ones(number, 1) > 0,
        torch.tensor([[1000.0, 800]]).expand(number, -1),
    )
    found = views(faces, Recipe().change({"crop.ratios": [1.0]}))
    counts = torch.bincount(found[:, 0].long())
    assert len(counts) == 51
    assert counts.min() > 0.5 * number / 51
    assert counts.max() < 1.6 * number / 51


def test_a_search_that_would_not_end_is_ended() -> None:
    """A tiny face in the corner of a wide picture, one try: the window is laid around it."""
    number = 500
    faces = Padded(
        torch.tensor([[[2996.0, 396, 2999, 399]]]).expand(number, -1, -1),
        torch.zeros(number, 1, 0, 3),
        torch.ones(number, 1) > 0,
        torch.tensor([[3000.0, 400]]).expand(number, -1),
    )
    found = views(faces, Recipe().change({"crop.tries": 1, "crop.rounds": 1}))
    for row in found:
        middle = torch.tensor([2997.5, 397.5])
        assert ((middle > row[:2]) & (middle < row[:2] + row[2])).all()


def test_pictures_without_faces_take_any_window() -> None:
    faces = Padded(
        torch.zeros(50, 1, 4),
        torch.zeros(50, 1, 5, 3),
        torch.zeros(50, 1) > 0,
        torch.tensor([[640.0, 480]]).expand(50, -1),
    )
    recipe = Recipe().change({"crop.close_ups": 1})
    assert views(faces, recipe).isfinite().all()
    assert not move(faces, views(faces, recipe), 640, clip=True).face_BG.any()


@settings(max_examples=60, deadline=None)
@given(faces=pictures(), seed=st.integers(0, 99))
def test_close_ups_are_filled_by_a_large_face(faces: Padded, seed: int) -> None:
    recipe = Recipe().change({"crop.close_ups": 1})
    samples = move(faces, views(faces, recipe, seed), 640, clip=False)
    longer = (samples.boxes_BG4[..., 2:] - samples.boxes_BG4[..., :2]).amax(2) / 640
    own = (faces.boxes_BG4[..., 2:] - faces.boxes_BG4[..., :2]).amax(2)
    for b in range(len(longer)):
        if (faces.face_BG[b] & (own[b] >= SMALLEST_CLOSE_UP)).any():
            fills = longer[b][samples.face_BG[b]]
            assert ((fills >= CLOSE_UP[0] - 0.02) & (fills <= CLOSE_UP[1] + 0.05)).any()


@settings(max_examples=80, deadline=None)
@given(faces=pictures(), seed=st.integers(0, 99), clip=st.booleans())
def test_labels_in_samples(faces: Padded, seed: int, clip: bool) -> None:
    """Against a loop over faces in the reference's order: shift, clip, scale, clip, mirror."""
    recipe = Recipe()
    rows = views(faces, recipe, seed)
    samples = move(faces, rows, 640, clip=clip)
    for b, row in enumerate(rows.tolist()):
        view = dict(zip(VIEW, row, strict=True))
        for g, box in enumerate(faces.boxes_BG4[b].double().tolist()):
            middle = ((box[0] + box[2]) / 2 - view["left"], (box[1] + box[3]) / 2 - view["top"])
            strictly = all(1e-3 < m < view["side"] - 1e-3 for m in middle)
            outside = any(m < -1e-3 or m > view["side"] + 1e-3 for m in middle)
            if strictly or outside:
                assert bool(samples.face_BG[b, g]) == (strictly and bool(faces.face_BG[b, g]))
            if not samples.face_BG[b, g]:
                continue
            corners = np.array(box).reshape(2, 2) - (view["left"], view["top"])
            points = faces.points_BGK3[b, g, :, :2].double().numpy() - (view["left"], view["top"])
            if clip:
                corners, points = corners.clip(0, view["side"]), points.clip(0, view["side"])
            corners, points = corners * 640 / view["side"], points * 640 / view["side"]
            if view["flip"]:
                corners = np.array([[640 - corners[1, 0], corners[0, 1]], [640 - corners[0, 0], corners[1, 1]]])
                points = points[[1, 0, 2, 4, 3]]
                points[:, 0] = 640 - points[:, 0]
            limit = 1e-3 * max(1, 640 / view["side"])
            assert samples.boxes_BG4[b, g].numpy() == pytest.approx(corners.reshape(-1), abs=limit, rel=1e-4)
            assert samples.points_BGK3[b, g, :, :2].numpy() == pytest.approx(points, abs=limit, rel=1e-4)


@settings(max_examples=40, deadline=None)
@given(faces=pictures(), seed=st.integers(0, 99))
def test_flipped_twice_is_not_flipped(faces: Padded, seed: int) -> None:
    rows = views(faces, Recipe(), seed)
    rows[:, VIEW.index("flip")] = 0
    plain = move(faces, rows, 320, clip=True)
    rows[:, VIEW.index("flip")] = 1
    once = move(faces, rows, 320, clip=True)
    back = Padded(once.boxes_BG4, once.points_BGK3, once.face_BG, torch.full_like(faces.sizes_B2, 320))
    again = torch.zeros_like(rows)
    again[:, VIEW.index("flip")], again[:, VIEW.index("side")] = 1, 320
    twice = move(back, again, 320, clip=True)
    assert torch.allclose(twice.boxes_BG4[plain.face_BG], plain.boxes_BG4[plain.face_BG], atol=1e-3)
    assert torch.allclose(twice.points_BGK3[plain.face_BG], plain.points_BGK3[plain.face_BG], atol=1e-3)


def test_colours_keep_to_their_ranges_and_chances() -> None:
    one = Padded(
        torch.tensor([[[10.0, 10, 50, 50]]]), torch.zeros(1, 1, 0, 3), torch.ones(1, 1) > 0, torch.tensor([[99.0, 99]])
    )
    number = 20_000
    faces = Padded(*(t.expand(number, *t.shape[1:]) for t in one))
    recipe = Recipe().change({"crop.tries": 2, "colour.gray": 0.1})
    found = dict(zip(VIEW, views(faces, recipe).T, strict=True))
    colour = Colour()

    def share(mask: torch.Tensor) -> float:
        return float(mask.float().mean())

    assert share(found["flip"] == 1) == pytest.approx(0.5, abs=0.02)
    assert share(found["contrast_first"] == 1) == pytest.approx(0.5, abs=0.02)
    assert share(found["gray"] == 1) == pytest.approx(0.1, abs=0.02)
    for name, idle, low, high in (
        ("brightness", 0, -colour.brightness, colour.brightness),
        ("contrast", 1, *colour.contrast),
        ("saturation", 1, *colour.saturation),
        ("hue", 0, -colour.hue, colour.hue),
    ):
        values = found[name]
        assert share(values == idle) == pytest.approx(0.5, abs=0.02)
        changed = values[values != idle]
        assert low <= changed.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < changed.max() <= high
    orders = torch.bincount(found["order"].long(), minlength=6) / number
    assert orders[0] == pytest.approx(
        0.5 + 0.5 / 6, abs=0.02
    )  # half are left alone, a sixth of the others comes out so
    assert orders[1:].tolist() == pytest.approx([0.5 / 6] * 5, abs=0.01)


def test_no_chances_change_nothing() -> None:
    one = Padded(
        torch.tensor([[[10.0, 10, 50, 50]]]), torch.zeros(1, 1, 0, 3), torch.ones(1, 1) > 0, torch.tensor([[99.0, 99]])
    )
    recipe = Recipe(flip=0, crop=Crop(ratios=(1.0,)), colour=Colour(chance=0, swap=0))
    row = dict(zip(VIEW, views(one, recipe)[0].tolist(), strict=True))
    row.pop("contrast_first")  # says only when nothing is done
    assert list(row.values()) == [0, 0, 99, 0, 0, 1, 1, 0, 0, 0]


def test_mirroring_unknown_points_is_refused() -> None:
    assert mirror_order(5) == (1, 0, 2, 4, 3)
    assert mirror_order(0) == ()
    with pytest.raises(OptionError, match="68 key points"):
        mirror_order(68)
    assert mirror_order(3, (1, 0, 2)) == (1, 0, 2)
    with pytest.raises(OptionError, match="3 numbers are told, and faces have 5"):
        mirror_order(5, (1, 0, 2))


def test_own_points_are_mirrored_as_told() -> None:
    points = torch.tensor([[[[10.0, 1, 1], [20, 2, 1], [30, 3, 0]]]])
    faces = Padded(torch.tensor([[[0.0, 0, 40, 40]]]), points, torch.ones(1, 1) > 0, torch.tensor([[40.0, 40]]))
    row = torch.zeros(1, len(VIEW))
    row[0, VIEW.index("side")] = 40
    assert torch.equal(move(faces, row, 40, clip=True).points_BGK3, points)
    row[0, VIEW.index("flip")] = 1
    turned = move(faces, row, 40, clip=True, mirror=(2, 1, 0)).points_BGK3
    assert turned.tolist() == [[[[10, 3, 0], [20, 2, 1], [30, 1, 1]]]]
