"""Pictures made from detections."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from scrfdkit import draw
from scrfdkit.types import Detections, Image

EYES_AND_MOUTH = [(203.6, 102.8), (246.5, 103.2), (224.6, 128.9), (203.0, 140.8), (245.3, 141.1)]
BOX = [179.0, 58.0, 270.0, 178.0]


def astronaut() -> Image:
    return np.ascontiguousarray(data.astronaut()[:, :, ::-1])


def one_face(box: list[float], score: float = 0.8) -> Detections:
    return Detections(np.array([box], np.float32), np.array([score], np.float32))


def face_of_astronaut() -> Detections:
    points = np.array([EYES_AND_MOUTH], np.float32)
    return Detections(np.array([BOX], np.float32), np.array([0.82], np.float32), points, np.array([7]))


def detail(image: Image) -> float:
    """Mean difference of neighbouring pixels: how much there is to see."""
    grey = image.astype(float).mean(axis=2)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean())


@pytest.mark.parametrize("shade", [0, 255])
@pytest.mark.parametrize("side", [100, 640, 4000])
def test_marks_show_on_black_and_on_white(side: int, shade: int) -> None:
    blank = np.full((side, side, 3), shade, np.uint8)
    drawn = draw.annotate(blank, one_face([side * 0.3, side * 0.4, side * 0.7, side * 0.9]))
    assert (blank == shade).all(), "the input is not drawn on"
    contrast = np.abs(drawn.astype(int) - shade).max(axis=2)
    middle = contrast[:, side // 2]
    for row in (0.4, 0.9):  # both horizontal lines of the box are crossed on the way down the middle
        around = middle[round(side * row) - side // 50 - 2 : round(side * row) + side // 50 + 3]
        assert around.max() > 150
    assert contrast[round(side * 0.5) : round(side * 0.8), side // 2].max() == 0, "the face itself stays free"


@pytest.mark.parametrize(("side", "low", "high"), [(100, 1, 2), (640, 1, 3), (4000, 8, 14)])
def test_lines_grow_with_the_picture(side: int, low: int, high: int) -> None:
    blank = np.zeros((side, side, 3), np.uint8)
    drawn = draw.annotate(blank, one_face([side * 0.3, side * 0.4, side * 0.7, side * 0.9]), scores=False)
    assert low <= int((drawn[side * 6 // 10, : side // 2].max(axis=1) > 0).sum()) <= high


def test_scores_ids_and_keypoints_can_be_left_out() -> None:
    picture, face = astronaut(), face_of_astronaut()
    bare = draw.annotate(picture, face, scores=False, keypoints=False, ids=False)
    for option in ("scores", "keypoints", "ids"):
        one = draw.annotate(picture, face, **{"scores": False, "keypoints": False, "ids": False, option: True})
        assert (one != bare).any()
    assert (draw.annotate(picture, Detections.empty(5)) == picture).all()


def test_labels_of_a_crowd_do_not_cover_each_other() -> None:
    """A better face's label is as it would be alone, whatever lies next to it."""
    blank = np.full((200, 300, 3), 90, np.uint8)
    boxes = np.array([[100, 100, 112, 112], [104, 101, 116, 113], [98, 103, 110, 115]], np.float32)
    crowd = Detections(boxes, np.array([0.7, 0.91, 0.6], np.float32))
    alone = draw.annotate(blank, crowd[[1]])
    label = alone[84:100, 104:134]
    assert (label != 90).any()
    assert (draw.annotate(blank, crowd)[84:100, 104:134] == label).all()


@pytest.mark.parametrize(
    "box", [[-50, -50, 20, 20], [500, 480, 900, 700], [-1e9, -1e9, 1e9, 1e9], [600, 600, 700, 700], [9, 9, 9, 9]]
)
def test_boxes_over_the_edge_and_outside(box: list[float]) -> None:
    picture = astronaut()
    assert draw.annotate(picture, one_face(box)).shape == picture.shape
    for method in ("blur", "pixelate", "black"):
        assert draw.anonymize(picture, one_face(box), method).shape == picture.shape


@pytest.mark.parametrize("method", ["blur", "pixelate", "black"])
def test_a_hidden_face_has_no_detail_left(method: draw.Method) -> None:
    picture, original = astronaut(), astronaut()
    hidden = draw.anonymize(picture, face_of_astronaut(), method)
    assert (picture == original).all()
    x1, y1, x2, y2 = map(int, BOX)
    assert detail(hidden[y1:y2, x1:x2]) < 0.45 * detail(picture[y1:y2, x1:x2])
    # Each corner of the box is covered as well, and the rest of the picture is not touched.
    changed = (hidden != picture).any(axis=2)
    assert changed[y1 : y1 + 4, x1 : x1 + 4].mean() > 0.9
    outside = np.ones_like(changed)
    outside[28:208, 156:294] = False
    assert not changed[outside].any()


@pytest.mark.parametrize("method", ["blur", "pixelate"])
@pytest.mark.parametrize("side", [12, 60, 400])
def test_strength_follows_the_size_of_the_face(method: draw.Method, side: int) -> None:
    """A pattern that puts ten stripes on any face is gone, at every size, and so no eye can be left either."""
    stripes = (np.indices((side * 2, side * 2))[1] // max(1, side // 10) % 2 * 255).astype(np.uint8)
    picture = np.repeat(stripes[:, :, None], 3, axis=2)
    hidden = draw.anonymize(picture, one_face([side / 2, side / 2, side * 1.5, side * 1.5]), method)
    middle = hidden[side * 3 // 4 : side * 5 // 4, side * 3 // 4 : side * 5 // 4]
    assert float(middle.std()) < 0.6 * float(picture.std())


def test_a_face_cut_by_the_edge_is_hidden_as_strongly() -> None:
    picture = astronaut()
    whole = draw.anonymize(picture, face_of_astronaut(), "pixelate", shape="box")
    cut = draw.anonymize(picture[:, 224:], face_of_astronaut().shift(-224, 0), "pixelate", shape="box")
    colours = len(np.unique(cut[58:178, :46].reshape(-1, 3), axis=0))
    assert colours <= 6 * 4 < len(np.unique(picture[58:178, 224:270].reshape(-1, 3), axis=0))
    assert colours <= len(np.unique(whole[58:178, 179:270].reshape(-1, 3), axis=0))


def test_anonymize_names_what_is_wrong() -> None:
    picture, face = astronaut(), face_of_astronaut()
    with pytest.raises(ValueError, match="method: 'smear'"):
        draw.anonymize(picture, face, "smear")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="shape: 'star'"):
        draw.anonymize(picture, face, shape="star")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="margin"):
        draw.anonymize(picture, face, margin=-0.1)


@given(
    angle=st.floats(-3.1, 3.1),
    scale=st.floats(0.05, 20),
    x=st.floats(-500, 500),
    y=st.floats(-500, 500),
)
def test_similarity_inverts_any_turn_scale_and_move(angle: float, scale: float, x: float, y: float) -> None:
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = draw.FACE_TEMPLATE @ turn.T + [x, y]
    matrix = draw.similarity(moved, draw.FACE_TEMPLATE)
    assert np.allclose(moved @ matrix[:, :2].T + matrix[:, 2], draw.FACE_TEMPLATE, atol=1e-2)


@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=5, max_size=5))
@settings(max_examples=50)
def test_similarity_is_the_best_there_is(points: list[tuple[float, float]]) -> None:
    """No similarity near it comes closer, and it never mirrors."""
    source = np.array(points)
    if ((source - source.mean(axis=0)) ** 2).sum() < 1:
        return
    matrix = draw.similarity(source, draw.FACE_TEMPLATE)
    assert np.linalg.det(matrix[:, :2]) >= 0

    def error(a: float, b: float, x: float, y: float) -> float:
        moved = source @ np.array([[a, -b], [b, a]]).T + [x, y]
        return float(((moved - draw.FACE_TEMPLATE) ** 2).sum())

    best = np.array([matrix[0, 0], matrix[1, 0], matrix[0, 2], matrix[1, 2]])
    least = error(*best)
    for i in range(4):
        for step in (-1e-3, 1e-3):
            near = best.copy()
            near[i] += step
            assert error(*near) >= least - 1e-6 * max(1.0, least)


@pytest.mark.parametrize("factor", [0.25, 1.0, 4.0])
def test_align_puts_the_points_where_recognition_wants_them(factor: float) -> None:
    """Coloured discs at the key points of a turned face of any size come out at the template's places."""
    side = round(400 * factor)
    picture = np.zeros((side, side, 3), np.uint8)
    turn = np.array([[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]])
    points = ((draw.FACE_TEMPLATE - 56) @ turn.T * 2 + 200) * factor
    ys, xs = np.indices((side, side))
    for x, y in points:
        picture[(xs - x) ** 2 + (ys - y) ** 2 <= (8 * factor) ** 2] = 255
    aligned = draw.align(picture, points)
    assert aligned.shape == (112, 112, 3)
    ys, xs = np.indices((112, 112))
    for x, y in draw.FACE_TEMPLATE:
        near = aligned[:, :, 0] * ((xs - x) ** 2 + (ys - y) ** 2 < 64.0)
        assert abs((near * xs).sum() / near.sum() - x) < 0.4
        assert abs((near * ys).sum() / near.sum() - y) < 0.4


def test_align_of_a_large_face_averages_instead_of_skipping_pixels() -> None:
    """A fine chessboard turns grey; a bilinear warp alone would leave it black and white."""
    board = (np.indices((1200, 1200)).sum(axis=0) % 2 * 255).astype(np.uint8)
    aligned = draw.align(np.repeat(board[:, :, None], 3, axis=2), draw.FACE_TEMPLATE * 10)
    assert np.abs(aligned[5:-5, 5:-5].astype(int) - 127).max() < 20


def test_align_refuses_what_it_cannot_align() -> None:
    with pytest.raises(ValueError, match=r"shape \(5, 2\)"):
        draw.align(astronaut(), np.zeros((4, 2)))
    with pytest.raises(ValueError, match="coincide"):
        draw.align(astronaut(), np.full((5, 2), 30.0))
    with pytest.raises(ValueError, match="finite"):
        draw.align(astronaut(), np.full((5, 2), np.nan))
    for size in (0, -3):
        with pytest.raises(ValueError, match=f"size: {size} is not a number of pixels from 1"):
            draw.align(astronaut(), draw.FACE_TEMPLATE, size)


@given(
    box=st.tuples(*[st.floats(-40, 60)] * 4),
    margin=st.floats(0, 1),
)
def test_what_is_visible_can_be_cut_out(box: tuple[float, ...], margin: float) -> None:
    corners = np.array([*np.minimum(box[:2], box[2:]), *np.maximum(box[:2], box[2:])])
    touches = corners[0] < 30 and corners[1] < 20 and corners[2] > 0 and corners[3] > 0
    if draw.is_visible(corners, 30, 20):
        assert touches
        assert draw.crop(np.zeros((20, 30, 3), np.uint8), corners, margin).size
    else:
        assert not touches or (np.floor(corners[:2]) == np.ceil(corners[2:])).any()


def test_crop_takes_the_box_with_a_margin_and_stays_inside() -> None:
    picture = astronaut()
    assert draw.crop(picture, np.array([100, 100, 140, 180]), 0.25).shape == (120, 60, 3)
    assert draw.crop(picture, np.array([-20, -20, 20, 20]), 0).shape == (20, 20, 3)
    taken = draw.crop(picture, np.array([100, 100, 140, 180]), 0)
    assert (taken == picture[100:180, 100:140]).all()
    assert not np.shares_memory(taken, picture)
    with pytest.raises(ValueError, match="outside the picture"):
        draw.crop(picture, np.array([600, 0, 700, 50]))
