"""What must hold for every picture size, every box and every set of scores."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scrfdkit import decode, letterbox
from scrfdkit.decode import Level
from scrfdkit.image import Picture
from scrfdkit.options import Options
from scrfdkit.spec import Input
from scrfdkit.types import Detections, Floats
from scrfdkit.views import restore, views

sides = st.integers(1, 3000)
strides32 = st.integers(1, 30).map(lambda n: 32 * n)


@st.composite
def boxes_and_scores(draw: st.DrawFn, most: int = 40) -> tuple[Floats, Floats]:
    n = draw(st.integers(0, most))
    corner = draw(hnp.arrays(np.float32, (n, 2), elements=st.floats(-50, 500, width=32)))
    size = draw(hnp.arrays(np.float32, (n, 2), elements=st.floats(0, 200, width=32)))
    scores = draw(hnp.arrays(np.float32, n, elements=st.floats(0, 1, width=32), unique=True))
    return np.concatenate([corner, corner + size], axis=1), scores


@given(sides, sides, st.one_of(st.tuples(strides32, strides32), st.integers(1, 2000)))
def test_letterbox_fits_and_inverts(width: int, height: int, size: tuple[int, int] | int) -> None:
    if isinstance(size, tuple):
        placement = letterbox.place_fixed(width, height, size)
        assert placement.canvas == size
    else:
        placement = letterbox.place_long_side(width, height, size)
        assert max(placement.size) == size
    assert all(1 <= part <= whole for part, whole in zip(placement.size, placement.canvas, strict=True))
    assert all(side % 32 == 0 for side in placement.canvas)
    box = np.array([[0, 0, width, height]], np.float32)
    there = Detections(box, np.ones(1, np.float32), box.reshape(1, 2, 2)).scale(*placement.scale)
    # The far corner of the picture lands on the far corner of the resized one, but for the one pixel that the
    # reference truncates, and, as it takes the scale of the height for both axes, that pixel times the aspect.
    slack = max(1, width / height, height / width) + 0.01
    assert np.all(np.abs(there.boxes[0, 2:] - placement.size) <= slack)
    back = letterbox.unplace(there, placement)
    assert np.allclose(back.boxes, box, rtol=1e-5)
    assert back.keypoints is not None
    assert np.allclose(back.keypoints, box.reshape(1, 2, 2), rtol=1e-5)


@given(st.integers(1, 90), st.integers(1, 90), strides32, strides32, st.integers(0, 2**31))
def test_letterbox_fills_every_pixel(width: int, height: int, across: int, down: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    placement = letterbox.place_fixed(width, height, (across, down))
    blob = letterbox.blank(1, placement.canvas)
    blob.fill(np.nan)
    letterbox.draw(image, placement, blob[0], Input())
    assert np.isfinite(blob).all()
    assert blob.min() >= -127.5 / 128
    assert blob.max() <= 127.5 / 128
    outside = blob[0, :, placement.size[1] :]
    assert (outside == np.float32(-127.5 / 128)).all()


@given(boxes_and_scores(), st.sampled_from([8, 16, 32]), st.integers(1, 20), st.integers(1, 20), st.integers(1, 2))
def test_decode_inverts_encode(
    faces: tuple[Floats, Floats], stride: int, height: int, width: int, num_anchors: int
) -> None:
    rows = height * width * num_anchors
    middle = decode.centres(height, width, stride, num_anchors)
    boxes = np.resize(faces[0], (rows, 4)) if len(faces[0]) else np.zeros((rows, 4), np.float32)
    distances = decode.encode(boxes, middle, stride)
    offsets = ((boxes.reshape(rows, 2, 2) - middle[:, None]) / stride).reshape(rows, 4)
    level = Level(stride, (height, width), np.ones(rows, np.float32), distances, offsets)
    found = decode.decode([level], 0.5)
    assert np.allclose(found.boxes, boxes, atol=1e-3)
    assert found.keypoints is not None
    assert np.allclose(found.keypoints.reshape(rows, 4), boxes, atol=1e-3)


@given(boxes_and_scores(), st.floats(0, 1), st.sampled_from([0.0, 1.0]))
def test_nms_is_idempotent_and_separates(faces: tuple[Floats, Floats], threshold: float, offset: float) -> None:
    boxes, scores = faces
    kept = decode.nms(boxes, scores, threshold, offset=offset)
    assert (np.diff(scores[kept]) <= 0).all()
    again = decode.nms(boxes[kept], scores[kept], threshold, offset=offset)
    assert np.array_equal(again, np.arange(len(kept)))
    if len(scores):
        assert kept[0] == scores.argmax()


@given(boxes_and_scores(), st.floats(0, 1), st.randoms(use_true_random=False))
def test_nms_does_not_depend_on_order(faces: tuple[Floats, Floats], threshold: float, random: object) -> None:
    boxes, scores = faces
    order = list(range(len(scores)))
    random.shuffle(order)  # type: ignore[attr-defined]
    kept = decode.nms(boxes, scores, threshold)
    shuffled = decode.nms(boxes[order], scores[order], threshold)
    assert np.array_equal(np.array(order, int)[shuffled], kept)


@given(boxes_and_scores(most=20), st.floats(0.05, 0.95))
def test_nms_equals_its_definition(faces: tuple[Floats, Floats], threshold: float) -> None:
    boxes, scores = (a.astype(np.float64) for a in faces)
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        x1, y1, x2, y2 = boxes[i]
        for j in kept:
            u1, v1, u2, v2 = boxes[j]
            inner = max(0, min(x2, u2) - max(x1, u1) + 1) * max(0, min(y2, v2) - max(y1, v1) + 1)
            union = (x2 - x1 + 1) * (y2 - y1 + 1) + (u2 - u1 + 1) * (v2 - v1 + 1) - inner
            if inner > threshold * union:
                break
        else:
            kept.append(i)
    assert np.array_equal(decode.nms(boxes, scores, threshold), kept)  # type: ignore[arg-type]


@given(
    st.integers(1, 200),
    st.integers(1, 200),
    st.sampled_from([0, 90, 180, 270]),
    st.sampled_from([0, 64]),
    st.sampled_from(["auto", "original", 96, (64, 96)]),
)
def test_views_bring_points_home(width: int, height: int, rotate: int, tile: int, size: object) -> None:
    """A marked pixel is found again at its place through every view that shows it."""
    options = Options(rotate=rotate, tile=tile, input_size=size)  # type: ignore[arg-type]
    x, y = width // 3, height // 2
    image = np.zeros((height, width, 3), np.uint8)
    image[y, x] = 255
    seen = 0
    for view in views(Picture(image, width, height, ""), options, None):
        rows, columns = np.nonzero(view.pixels[:, :, 0])
        if not len(rows):
            continue
        seen += 1
        centre = (np.array([columns[0], rows[0]], np.float32) + 0.5) * view.placement.scale
        found = Detections(np.tile(centre, 2)[None], np.ones(1, np.float32), centre[None, None])
        back = restore(found, view)
        if len(back):  # a point on a tile's inner edge counts as a cut face
            assert np.allclose(back.boxes[0], [x + 0.5, y + 0.5] * 2, atol=0.02)
            assert np.allclose(back.keypoints[0, 0], [x + 0.5, y + 0.5], atol=0.02)
    assert seen >= 1


def test_no_faces_stay_no_faces() -> None:
    none = Detections.empty(5)
    assert decode.nms(none.boxes, none.scores, 0.4).shape == (0,)
    assert decode.suppress(none, 0.4).keypoints.shape == (0, 5, 2)
    assert len(decode.keep_best(none, 3, "center", 10, 10)) == 0
    level = Level(8, (1, 1), np.zeros(2, np.float32), np.zeros((2, 4), np.float32), np.zeros((2, 10), np.float32))
    empty = decode.decode([level], 0.5)
    assert empty.boxes.shape == (0, 4)
    assert empty.keypoints.shape == (0, 5, 2)
