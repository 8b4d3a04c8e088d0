"""Close-ups: which faces, what is cut out, and what is counted."""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path

import cv2
import numpy as np
import pytest

from scrfdkit.data.labels import LabelledImage
from scrfdkit.errors import ImageError
from scrfdkit.evaluate import closeups
from scrfdkit.evaluate.closeup_score import score
from scrfdkit.evaluate.closeups import BASELINE, GREY, SHARES, CloseUpError, Seen, Subject, choose, close_up, look
from scrfdkit.types import Detections, Image

RED, BLUE = (0, 0, 255), (255, 0, 0)


def a_picture(boxes: list[list[float]], *, ignore: tuple[int, ...] = (), name: str = "a.png") -> LabelledImage:
    """Labels of a picture of 800x600."""
    mask = np.array([i in ignore for i in range(len(boxes))], bool)
    return LabelledImage(name, 800, 600, np.array(boxes, np.float32).reshape(-1, 4), mask)


def noise(width: int = 800, height: int = 600) -> Image:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)


# Which faces


def test_the_largest_suitable_face_of_each_picture() -> None:
    labels = [
        a_picture([[10, 10, 150, 150], [200, 10, 350, 210], [400, 10, 700, 400]], ignore=(2,)),
        a_picture([[-1, 10, 300, 300], [500, 400, 650, 601], [300, 300, 300, 500], [10, 400, 140, 500]]),
        a_picture([[10, 10, 100, 137]]),  # 127 pixels
        a_picture([]),
        a_picture([[math.nan, 10, 300, 300], [0, 0, 800, 600]]),
    ]
    assert [(s.picture, s.face) for s in choose(labels)] == [(0, 1), (1, 3), (4, 1)]
    assert [(s.picture, s.face) for s in choose(labels, min_face=127)] == [(0, 1), (1, 3), (2, 0), (4, 1)]


def test_the_seed_decides_and_fewer_are_some_of_more() -> None:
    labels = [a_picture([[10, 10, 210, 210]]) for _ in range(50)]
    assert choose(labels, num=20, seed=3) == choose(labels, num=20, seed=3)
    assert choose(labels, num=20, seed=3) != choose(labels, num=20, seed=4)
    some, more = choose(labels, num=7), choose(labels, num=20)
    assert (len(some), len(more), len(choose(labels))) == (7, 20, 50)
    assert set(some) < set(more) < set(choose(labels))
    assert [s.picture for s in more] == sorted(s.picture for s in more)


def test_no_suitable_face_is_told() -> None:
    with pytest.raises(CloseUpError, match="no face of 1 picture has 300 pixels"):
        choose([a_picture([[10, 10, 210, 210]])], min_face=300)
    sizeless = LabelledImage("a", 0, 0, np.array([[10, 10, 210, 210]], np.float32), np.zeros(1, bool))
    with pytest.raises(CloseUpError, match="size of 1 of them is not known"):
        choose([sizeless])


# What is cut out


@pytest.mark.parametrize("box", [[300.4, 200.7, 431.2, 390.9], [0, 0, 190, 131], [640, 420, 800, 600]])
def test_the_face_fills_its_share_of_the_frame(box: list[float]) -> None:
    labels, pixels = a_picture([box]), noise()
    long = max(box[2] - box[0], box[3] - box[1])
    for share, x, y in product((BASELINE, *SHARES, 1.0), (-1.0, 0.3, 1.0), (-1.0, 1.0)):
        frame = close_up(labels, pixels, Subject(0, 0, (x, y)), share)
        side = frame.pixels.shape[0]
        assert frame.pixels.shape == (side, side, 3)
        assert (frame.labels.width, frame.labels.height) == (side, side)
        assert abs(side - long / share) <= 2
        (x1, y1, x2, y2) = frame.labels.boxes[0].tolist()
        assert min(x1, y1) >= 0 and max(x2, y2) <= side
        off = np.array([x1 + x2, y1 + y2]) / 2 - side / 2
        most = np.minimum(0.05 * side, (side - np.array([x2 - x1, y2 - y1])) / 2)
        assert np.allclose(off, most * (x, y), atol=1)
        left, top = round(box[0] - x1), round(box[1] - y1)
        assert np.allclose([box[0] - x1, box[1] - y1], [left, top], atol=1e-3), "no whole pixels"
        padded = cv2.copyMakeBorder(pixels, 1200, 1200, 1200, 1200, cv2.BORDER_CONSTANT, value=(GREY,) * 3)
        assert (frame.pixels == padded[top + 1200 :, left + 1200 :][:side, :side]).all()


def test_fill_is_where_no_picture_is() -> None:
    frame = close_up(a_picture([[0, 0, 120, 120]]), noise() | 1, Subject(0, 0, (0, 0)), 0.2, fill=0)
    assert (frame.pixels[:200] == 0).all()
    assert (frame.pixels[-200:, -200:] > 0).all()


def test_other_faces_are_cut_and_ignored_and_points_move_along() -> None:
    boxes = [[0, 0, 50, 50], [200, 200, 400, 400], [390, 300, 500, 350], [-30, 250, 195, 280]]
    points = np.ones((4, 2, 3), np.float32) * np.array([250, 260, 1], np.float32)
    points[1, 1] = -1
    labels = LabelledImage("a.png", 800, 600, np.array(boxes, np.float32), np.zeros(4, bool), points)
    frame = close_up(labels, noise(), Subject(0, 1, (0, 0)), 0.8).labels
    assert frame.ignore.tolist() == [False, True, True]  # the first is not in the frame of [175, 425]
    assert frame.boxes.tolist() == [[25, 25, 225, 225], [215, 125, 250, 175], [0, 75, 20, 105]]
    assert frame.keypoints is not None
    assert frame.keypoints[0].tolist() == [[75, 85, 1], [-1, -1, -1]]
    assert (frame.keypoints[1:] == -1).all()


def test_huge_faces_are_shrunk() -> None:
    points = np.array([[[1000, 1200, 1], [-1, -1, -1]]], np.float32)
    box = np.array([[200, 100, 2048, 2148]], np.float32)
    labels = LabelledImage("a.png", 2400, 2200, box, np.zeros(1, bool), points)
    pixels = np.zeros((2200, 2400, 3), np.uint8)
    pixels[100:2148, 200:2048] = RED
    frame = close_up(labels, pixels, Subject(0, 0, (0, 0)), 0.5)
    assert frame.pixels.shape == (2048, 2048, 3)
    (x1, y1, x2, y2) = frame.labels.boxes[0].tolist()
    assert (x2 - x1, y2 - y1) == (924, 1024)
    inside = (frame.pixels == RED).all(axis=2)
    assert inside[round(y1) : round(y2), round(x1) : round(x2)].all()
    assert inside.sum() == 924 * 1024
    assert frame.labels.keypoints is not None
    assert np.allclose(frame.labels.keypoints[0], [[x1 + 400, y1 + 550, 1], [-1, -1, -1]])


# What is counted


def blocks(picture: Image) -> Detections:
    """Finds blocks of red; the more of the frame one fills, the lower its score."""
    found = (picture == RED).all(axis=2).astype(np.uint8)
    number, _, stats, _ = cv2.connectedComponentsWithStats(found)
    rows = stats[1:number, :4].astype(np.float32)
    boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:]], axis=1)
    scores = 1 - rows[:, 2:].max(axis=1, initial=0) / np.float32(len(picture))
    return Detections(boxes, scores.astype(np.float32))


@pytest.fixture
def album(tmp_path: Path) -> tuple[list[LabelledImage], list[Path]]:
    """Three pictures with a red face each; the first has a second, which is larger and ignored, the third is broken."""
    labels = [
        a_picture([[100, 100, 260, 300], [300, 100, 520, 320]], ignore=(1,), name="a.png"),
        a_picture([[400, 200, 550, 350]], name="b.png"),
        a_picture([[400, 200, 550, 350]], name="c.png"),
    ]
    for each in labels[:2]:
        pixels = np.full((600, 800, 3), 90, np.uint8)
        for x1, y1, x2, y2 in each.boxes.astype(int).tolist():
            pixels[y1:y2, x1:x2] = RED
        assert cv2.imwrite(str(tmp_path / each.path), pixels)
    (tmp_path / "c.png").write_bytes(b"\x89PNG no more")
    return labels, [tmp_path / each.path for each in labels]


def test_scores_by_share(album: tuple[list[LabelledImage], list[Path]]) -> None:
    labels, files = album
    subjects = choose(labels[:2])
    seen, notes = look(labels, files, subjects, (0.2, 0.4, 0.8), blocks)
    assert notes == []
    figures = score(seen[0], seen[1:], score_threshold=0.5)
    assert (figures.baseline.faces, figures.baseline.found) == (2, 1.0)
    assert [(each.share, each.found) for each in figures.shares] == [(0.4, 1.0), (0.8, 0.0)]
    assert figures.found == 0.5
    assert figures.baseline.median_score == pytest.approx(0.8, abs=0.01)
    assert figures.shares[0].mean_score == pytest.approx(0.6, abs=0.01)
    assert figures.shares[0].mean_iou == pytest.approx(1, abs=1e-6)
    assert math.isnan(figures.shares[1].mean_iou)
    record = json.loads(json.dumps(figures.to_dict(), allow_nan=False))
    assert record["shares"][1]["mean_iou"] is None
    assert record["shares"][0]["landmarks"] is None
    assert score(seen[0], seen[1:], score_threshold=0.1).found == 1


def test_pictures_that_cannot_be_read_are_left_out(album: tuple[list[LabelledImage], list[Path]]) -> None:
    labels, files = album
    seen, notes = look(labels, files, choose(labels), (0.2,), blocks)
    assert [len(each.labels) for each in seen] == [2]
    assert len(notes) == 1
    assert "1 picture that cannot be read" in notes[0]
    with pytest.raises(ImageError, match=r"c\.png"):
        look(labels, files, [Subject(2, 0, (0, 0))], (0.2,), blocks)


def seen_once(boxes: list[list[float]], scores: list[float], points: np.ndarray | None = None) -> Seen:
    """One close-up with the subject at [10, 10, 90, 90] and an ignored face beside it."""
    faces = np.array([[60, 10, 100, 90], [10, 10, 90, 90]], np.float32)
    label_points = np.full((2, 2, 3), -1, np.float32)
    label_points[1] = [[30, 40, 1], [70, 40, 1]]
    labels = LabelledImage("a", 100, 100, faces, np.array([True, False]), label_points)
    found = Detections(np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), points)
    return Seen(0.8, (labels,), (found,))


def test_only_detections_on_the_face_itself_count() -> None:
    seen = seen_once([[60, 10, 100, 90], [10, 10, 90, 88], [10, 10, 90, 60], [20, 20, 40, 40]], [0.95, 0.3, 0.6, 0.99])
    result = score(seen, [seen]).baseline
    assert (result.found, result.landmarks) == (1.0, None)
    assert result.mean_score == pytest.approx(0.6)
    assert result.mean_iou == pytest.approx(51 / 81)
    nothing = score(seen_once([], []), [seen_once([[60, 10, 100, 90]], [0.9])])
    assert nothing.baseline.median_score == nothing.shares[0].median_score == nothing.found == 0


def test_landmarks_of_the_faces_found() -> None:
    points = np.array([[[30, 44], [70, 40]]], np.float32)  # 4 and 0 pixels off, eyes 40 pixels apart
    good = score(seen_once([[10, 10, 90, 90]], [0.7], points), [seen_once([[10, 10, 90, 90]], [0.4], points)])
    assert good.baseline.landmarks is not None
    assert good.baseline.landmarks.median == pytest.approx(0.05)
    missed = good.shares[0].landmarks
    assert missed is not None
    assert (missed.faces, missed.missed) == (0, 1)
    assert good.to_dict()["shares"][0]["landmarks"]["median"] is None


def test_defaults_are_those_that_the_documents_name() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "evaluate.md").read_text()
    for value in (*SHARES, closeups.BASELINE):
        assert f"{100 * value:g} %" in text
    assert f"{closeups.MIN_FACE} pixels" in text
