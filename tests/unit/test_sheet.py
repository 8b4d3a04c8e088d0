"""Labelled pictures drawn: every kind of label is told from the others, and goes along when a picture is scaled."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from scrfdkit import draw
from scrfdkit.errors import ScrfdError
from scrfdkit.sheet import Labelled, cell_side, contact_sheet, encoded, fit, mark

GREEN, BLUE = draw.PALETTE[0], draw.PALETTE[2]


def gray(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), 100, np.uint8)


def face(*flags: float, size: int = 200) -> Labelled:
    """One face with a key point for every flag, in a row along its middle."""
    boxes = np.array([[20, 20, 20 + size, 20 + size]], np.float32)
    points = np.array([[[40 + 40 * i, 100, flag] for i, flag in enumerate(flags)]], np.float32)
    return Labelled(gray(240, 240), boxes, points.reshape(1, -1, 3))


def test_faces_with_and_without_key_points() -> None:
    assert (mark(face(1))[100, 20] == GREEN).all()
    assert (mark(face(-1))[100, 20] == BLUE).all()
    assert (mark(face())[100, 20] == GREEN).all()  # nobody has any
    assert (mark(Labelled(gray(240, 240), face().boxes))[100, 20] == GREEN).all()


def test_visible_hidden_and_unlabelled_points() -> None:
    out = mark(face(1, 0, -1))
    assert (out[100, 40] == draw.PALETTE[1]).all()
    assert (out[100, 80] == 100).all()  # a ring is open
    ring = out[90:111, 70:91].reshape(-1, 3)
    assert (np.abs(ring.astype(int) - draw.PALETTE[2]).max(axis=1) < 40).any()
    assert (out[90:111, 110:131] == 100).all()


def test_points_have_the_colours_of_detections() -> None:
    points = np.array([[[60 + 30 * i, 100, 1] for i in range(5)]], np.float32)
    labelled = mark(Labelled(gray(240, 240), face().boxes, points))
    found = draw.annotate(gray(240, 240), draw.Detections(face().boxes, np.ones(1, np.float32), points[:, :, :2]))
    for i in range(5):
        assert (labelled[100, 60 + 30 * i] == found[100, 60 + 30 * i]).all()


def test_ignored_faces_are_dashed() -> None:
    out = mark(Labelled(gray(240, 240), face().boxes, ignore=np.ones(1, bool)))
    assert {tuple(pixel) for pixel in out[20:220, 20].tolist()} == {(0, 0, 0), (255, 255, 255)}
    assert (out[100:140, 100:140] == 100).all()
    assert (out != 100).any(axis=2).sum() < 1000


def test_boxes_far_outside_are_drawn_where_they_lie() -> None:
    boxes = np.array([[-1e9, 50, 1e9, 150], [-1e30, -1e30, 1e30, 1e30]], np.float32)
    out = mark(Labelled(gray(200, 200), boxes, ignore=np.ones(2, bool)))
    assert (out[50] != 100).all()
    assert {tuple(pixel) for pixel in out[50].tolist()} == {(0, 0, 0), (255, 255, 255)}
    assert (out[100] == 100).all()


def test_the_picture_stays_as_it_was() -> None:
    picture = face(1)
    mark(picture)
    contact_sheet([picture])
    assert (picture.pixels == 100).all()


@pytest.mark.parametrize(
    ("size", "most", "after"),
    [
        ((1000, 500), 480, (480, 240)),
        ((100, 60), 960, (400, 240)),
        ((480, 200), 480, (480, 200)),
        ((5000, 1), 480, (480, 1)),
    ],
)
def test_fit(size: tuple[int, int], most: int, after: tuple[int, int]) -> None:
    width, height = size
    boxes = np.array([[0, 0, width, height]], np.float32)
    points = np.array([[[width, height, 1], [-1, -1, -1]]], np.float32)
    found = fit(Labelled(gray(height, width), boxes, points, dots=boxes[:, 2:]), most)
    assert found.pixels.shape == (after[1], after[0], 3)
    np.testing.assert_allclose(found.boxes, [[0, 0, *after]], rtol=1e-5)
    np.testing.assert_allclose(found.keypoints[0, 0], [*after, 1], rtol=1e-5)
    assert found.keypoints[0, 1, 2] == -1
    np.testing.assert_allclose(found.dots, [after], rtol=1e-5)
    assert fit(found, most) is found


def test_sheets_of_many_sizes() -> None:
    pictures = [Labelled(gray(h, w), np.zeros((0, 4), np.float32), words=("n",)) for h, w in ((300, 480), (100, 350))]
    sheet = contact_sheet(pictures)
    assert sheet.shape == (8 + 300 + 24 + 8, 8 + 2 * (480 + 8), 3)  # no labels, no key
    assert [cell_side(number) for number in (1, 2, 5, 16, 100)] == [960, 960, 640, 480, 480]
    with pytest.raises(ValueError, match="needs pictures"):
        contact_sheet([])


def test_the_key_has_what_occurs() -> None:
    def key(*pictures: Labelled) -> int:
        """Columns that something is written in."""
        return int((contact_sheet(pictures)[-28:] > 60).any(axis=(0, 2)).sum())

    plain, ignored = face(), Labelled(gray(240, 240), face().boxes, ignore=np.ones(1, bool))
    dotted = Labelled(gray(240, 240), face().boxes, dots=np.ones((1, 2), np.float32))
    assert 0 < key(plain) < key(plain, ignored)
    assert key(plain) < key(dotted)
    assert key(face(1), plain) < key(face(0), plain)
    assert key(face(1)) < key(face(1), face(-1))
    many = Labelled(gray(240, 240), face().boxes, np.full((1, 68, 3), 1, np.float32))
    assert key(many) == key(plain)  # nobody learns 68 colours


def test_long_names_keep_both_ends() -> None:
    def cells(name: str) -> np.ndarray:
        picture = Labelled(gray(240, 240), np.zeros((0, 4), np.float32), words=(name,))
        sheet = contact_sheet([picture])
        return sheet[-32:]

    middle = cells("begin" + "x" * 100 + "end")
    assert (middle == cells("begin" + "x" * 300 + "end")).all()
    assert (middle != cells("begin" + "x" * 100 + "and")).any()
    assert (cells("é") == cells("?")).all()


def test_encoded() -> None:
    picture = mark(face(1, 0, -1))
    assert (cv2.imdecode(np.frombuffer(encoded(picture, ".PNG"), np.uint8), cv2.IMREAD_COLOR) == picture).all()
    with pytest.raises(ScrfdError, match=r"a sheet of 20000x4 pixels cannot be written as \.webp"):
        encoded(gray(4, 20000), ".webp")
