"""COCO's average precision, against cases worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from scrfdkit.data.labels import LabelledImage
from scrfdkit.errors import ScrfdError
from scrfdkit.evaluate.coco import coco_map
from scrfdkit.types import Detections

pytest.importorskip("faster_coco_eval")

_SMALL, _MEDIUM, _LARGE = (0, 0, 20, 20), (100, 0, 150, 50), (200, 0, 400, 200)


def labelled(*boxes: tuple[float, ...], ignore: tuple[bool, ...] = (), points: object = None) -> LabelledImage:
    n = len(boxes)
    flags = np.array(ignore or [False] * n, bool)
    keypoints = None if points is None else np.array(points, np.float32)
    return LabelledImage("a.jpg", 500, 500, np.array(boxes, np.float32).reshape(n, 4), flags, keypoints)


def detected(*faces: tuple[float, ...], points: object = None) -> Detections:
    """Each x1 y1 x2 y2 score."""
    rows = np.array(faces, np.float32).reshape(len(faces), 5)
    return Detections(rows[:, :4], rows[:, 4], None if points is None else np.array(points, np.float32))


def test_perfect_detections() -> None:
    labels = [labelled(_SMALL, _MEDIUM, _LARGE), labelled(), labelled(_MEDIUM)]
    found = [Detections(m.boxes, np.full(len(m.boxes), 0.5, np.float32)) for m in labels]
    result = coco_map(labels, found)
    assert set(result) == {f"{name}{part}" for name in ("AP", "AR") for part in ("", "_small", "_medium", "_large")} | {
        "AP50",
        "AP75",
    }
    assert all(value == 1.0 for value in result.values())


def test_one_false_alarm_before_the_hit() -> None:
    """Precision is 1/2 at every recall."""
    result = coco_map([labelled(_MEDIUM)], [detected((*_LARGE, 0.9), (*_MEDIUM, 0.8))])
    assert result["AP"] == result["AP50"] == pytest.approx(0.5)
    assert result["AR"] == 1.0
    assert result["AP_medium"] == 1.0  # the false alarm is a large face
    assert math.isnan(result["AP_large"])


def test_a_miss() -> None:
    """One of two faces found: precision is 1 up to recall 0.5, that is at 51 of the 101 recalls, then 0."""
    result = coco_map([labelled(_MEDIUM, _LARGE)], [detected((*_LARGE, 0.8))])
    assert result["AP"] == pytest.approx(51 / 101)
    assert result["AR"] == 0.5
    assert (result["AP_medium"], result["AP_large"]) == (0.0, 1.0)


def test_overlaps() -> None:
    """Boxes 100 x 100 moved by 24: IoU 76/124 = 0.613, right at 0.50, 0.55 and 0.60 of ten overlaps."""
    result = coco_map([labelled((0, 0, 100, 100))], [detected((24, 0, 124, 100, 0.8))])
    assert (result["AP50"], result["AP75"]) == (1.0, 0.0)
    assert result["AP"] == pytest.approx(0.3)
    assert result["AR"] == pytest.approx(0.3)


def test_ignored_faces_take_what_lies_in_them() -> None:
    labels = [labelled(_MEDIUM, _LARGE, ignore=(False, True))]
    inside = (220, 20, 260, 60, 0.9)
    assert coco_map(labels, [detected(inside, (*_LARGE, 0.9), (*_MEDIUM, 0.8))])["AP"] == 1.0
    assert coco_map(labels, [detected((*_MEDIUM, 0.8))])["AR"] == 1.0


def test_the_best_hundred_count() -> None:
    false = [(300 + i, 300, 310 + i, 310, 0.9) for i in range(100)]
    faces = [detected(*false, (*_MEDIUM, 0.8))]
    assert coco_map([labelled(_MEDIUM)], faces)["AP"] == 0.0
    assert coco_map([labelled(_MEDIUM)], faces, max_detections=101)["AP"] == pytest.approx(1 / 101)


def test_order_of_detections_does_not_matter() -> None:
    faces = detected((*_LARGE, 0.3), (*_MEDIUM, 0.8))
    result = coco_map([labelled(_MEDIUM)], [faces])
    assert result["AP"] == 1.0
    assert result == pytest.approx(coco_map([labelled(_MEDIUM)], [faces.sort()]), nan_ok=True)


def test_nothing_to_find_and_nothing_found() -> None:
    assert math.isnan(coco_map([labelled()], [detected((*_LARGE, 0.9))])["AP"])
    assert math.isnan(coco_map([], [])["AP"])
    assert coco_map([labelled(_LARGE)], [Detections.empty()])["AP"] == 0.0


FIVE = [[120, 20, 1], [130, 20, 1], [125, 25, 0], [120, 30, 1], [-1, -1, -1]]


def similarity(pixels: float, sigma: float) -> float:
    return math.exp(-(pixels**2) / (2 * 50 * 50 * (2 * sigma) ** 2))


@pytest.mark.parametrize("moved", [0.0, 1.5, 2.5, 4.0])
def test_key_points_by_hand(moved: float) -> None:
    """All points moved alike: the mean similarity of the four labelled ones decides how often it is right."""
    points = np.array(FIVE, np.float32)[None, :, :2] + np.float32([moved, 0])
    result = coco_map([labelled(_MEDIUM, points=[FIVE])], [detected((*_MEDIUM, 0.8), points=points)])
    oks = (3 * similarity(moved, 0.025) + similarity(moved, 0.026)) / 4
    right = sum(oks >= 0.5 + 0.05 * i for i in range(10))
    assert result["keypoint_AP"] == pytest.approx(right / 10)
    assert result["AP"] == 1.0


def test_key_points_of_faces_without_labelled_ones_are_ignored() -> None:
    none = [[-1, -1, -1]] * 5
    labels = [labelled(_MEDIUM, _LARGE, points=[FIVE, none])]
    points = [np.array(FIVE)[:, :2], np.full((5, 2), 300)]
    faces = [detected((*_MEDIUM, 0.8), (*_LARGE, 0.9), points=points)]
    assert coco_map(labels, faces)["keypoint_AP"] == 1.0
    assert coco_map(labels, [Detections.empty(5)])["keypoint_AP"] == 0.0
    assert "keypoint_AP" not in coco_map(labels, [detected((*_MEDIUM, 0.8))])
    assert coco_map(labels, faces, sigmas=[0.1] * 5)["keypoint_AP"] == 1.0


def test_wrong_use() -> None:
    with pytest.raises(ValueError, match="1 labelled"):
        coco_map([labelled()], [])
    with pytest.raises(ValueError, match=r"picture 1 \(a.jpg\)"):
        coco_map([labelled()], [detected((0, 0, 1, 1, math.nan))])
    with pytest.raises(ValueError, match=r"key points: \[2, 5\]"):
        coco_map([labelled(_LARGE, points=[FIVE])], [detected((*_LARGE, 1), points=[[[1, 1], [2, 2]]])])
    with pytest.raises(ValueError, match="sigmas"):
        coco_map([labelled(_LARGE, points=[FIVE])], [detected((*_LARGE, 1), points=[[[1, 1]] * 5])], sigmas=[1])
    with pytest.raises(ScrfdError, match="max_detections"):
        coco_map([], [], max_detections=0)
