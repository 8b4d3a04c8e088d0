"""Coarse questions, landmark error, thresholds and own labels, on cases small enough to know the answer."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from scrfdkit.data.labels import LabelledImage
from scrfdkit.evaluate import calibrate, rough
from scrfdkit.evaluate.calibrate import CalibrationError, for_precision, for_recall, sweep
from scrfdkit.evaluate.labelled import findable, ground_truth, picture_folder, present
from scrfdkit.evaluate.landmarks import LandmarkError, landmark_error
from scrfdkit.evaluate.widerface import Found, GroundTruth, GroundTruthError, average_precision, prepare
from scrfdkit.types import Detections


def a_truth(boxes: list[list[float]], counts: list[int], counted: list[bool] | None = None) -> GroundTruth:
    mask = np.array(counted if counted is not None else [True] * len(boxes), bool)
    names = tuple(f"e/{i}" for i in range(len(counts)))
    return GroundTruth(names, np.array(counts), np.array(boxes, float).reshape(-1, 4), {"s": mask})


def a_found(rows: list[list[float]], counts: list[int]) -> Found:
    array = np.array(rows, float).reshape(-1, 5)
    return Found(np.array(counts), array[:, :4], array[:, 4])


# Rough protocols


def test_loose_overlap_accepts_what_the_protocol_does_not() -> None:
    truth = a_truth([[0, 0, 9, 9]], [1])
    half = a_found([[0, 5, 9, 9, 1.0], [500, 500, 9, 9, 0.0]], [2])  # IoU 50 / 150
    assert average_precision(truth, half)["s"].ap == 0
    assert rough.loose(truth, half)["s"].ap == 1
    less = a_found([[0, 6, 9, 9, 1.0], [500, 500, 9, 9, 0.0]], [2])  # IoU 40 / 160
    assert rough.loose(truth, less)["s"].ap == 0
    assert rough.loose(truth, less, 0.25)["s"].ap == 1


def test_middle_inside_accepts_any_size() -> None:
    truth = a_truth([[100, 100, 20, 20]], [1])
    small = a_found([[108, 108, 4, 4, 1.0], [500, 500, 9, 9, 0.0]], [2])
    assert average_precision(truth, small)["s"].ap == 0
    assert rough.centre_inside(truth, small)["s"].ap == 1
    beside = a_found([[119, 119, 40, 40, 1.0], [500, 500, 9, 9, 0.0]], [2])
    assert rough.centre_inside(truth, beside)["s"].ap == 0


def test_large_faces_only() -> None:
    truth = a_truth([[0, 0, 40, 40], [100, 0, 10, 10], [200, 0, 16, 64]], [3])
    rows = [
        [100, 0, 10, 10, 1.0],
        [300, 0, 5, 5, 0.9],
        [0, 0, 40, 40, 0.8],
        [400, 0, 50, 50, 0.4],
        [200, 0, 16, 64, 0.0],
    ]
    matched = prepare(truth, a_found(rows, [5]))
    curve = rough.at_least(matched, 32)["s"]
    # The small face is ignored with its detection, the small false alarm is left out, the large one is not; the
    # third face is as large as 32 x 32.
    assert curve.precision[[0, 199, 599, 999]].tolist() == [0, 1, 0.5, 2 / 3]
    assert curve.recall[[0, 199, 599, 999]].tolist() == [0, 0.5, 0.5, 1]
    assert rough.at_least(matched, 33)["s"].recall[199] == 1
    assert rough.at_least(matched, 1)["s"].ap == average_precision(truth, matched.found)["s"].ap


def test_one_answer_a_picture() -> None:
    truth = a_truth([[0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 9, 9]], [1, 1, 0, 0, 1], [True, True, False])
    rows = [[50, 50, 9, 9, 0.9], [0, 0, 9, 9, 0.3], [0, 0, 9, 9, 0.6], [1, 1, 9, 9, 0.99]]
    found = a_found(rows, [1, 1, 1, 0, 1])
    answer = rough.yes_no(truth, found, "s")
    # The place of a detection does not matter; the picture with an ignored face only is left out.
    assert (answer.right_yes, answer.missed, answer.false_alarm, answer.right_no) == (1, 1, 1, 1)
    assert answer.accuracy == 0.5
    assert answer.ap == pytest.approx((1 + 2 / 3) / 2)
    assert rough.yes_no(truth, found, "s", 0.2).right_yes == 2
    nobody = a_truth([], [0, 0])
    assert rough.yes_no(nobody, a_found([], [0, 0]), "s").ap is None


def test_one_answer_a_picture_with_equal_scores_and_silence() -> None:
    truth = a_truth([[0, 0, 9, 9], [0, 0, 9, 9]], [1, 0, 1])
    answer = rough.yes_no(truth, a_found([[0, 0, 1, 1, 0.5], [0, 0, 1, 1, 0.5]], [1, 1, 0]), "s")
    assert answer.ap == 0.25  # half the faces at a precision of a half, the third picture never


# Thresholds


def test_thresholds() -> None:
    truth = a_truth([[i * 100, 0, 9, 9] for i in range(4)], [4])
    rows = [
        [0, 0, 9, 9, 0.9],
        [100, 0, 9, 9, 0.8],
        [50, 50, 9, 9, 0.7],
        [200, 0, 9, 9, 0.7],
        [60, 50, 9, 9, 0.6],
        [300, 0, 9, 9, 0.5],
    ]
    points = sweep(prepare(truth, a_found(rows, [6])), "s")
    assert points.score_threshold.tolist() == [0.9, 0.8, 0.7, 0.6, 0.5]
    assert points.precision.tolist() == [1, 1, 3 / 4, 3 / 5, 4 / 6]
    assert points.recall.tolist() == [1 / 4, 2 / 4, 3 / 4, 3 / 4, 1]
    assert for_precision(points, 0.99).score_threshold == 0.8
    assert for_precision(points, 0.65) == calibrate.Point(0.5, 4 / 6, 1.0)
    assert for_recall(points, 0.75) == calibrate.Point(0.7, 0.75, 0.75)
    assert for_recall(points, 0.1).score_threshold == 0.9


def test_thresholds_that_do_not_exist() -> None:
    truth = a_truth([[0, 0, 9, 9], [50, 0, 9, 9]], [2])
    points = sweep(prepare(truth, a_found([[500, 0, 9, 9, 0.9], [0, 0, 9, 9, 0.8]], [2])), "s")
    with pytest.raises(CalibrationError, match=r"precision of 0.99; the best is 0.5000 at 0.8000"):
        for_precision(points, 0.99)
    with pytest.raises(CalibrationError, match=r"recall of 0.9; all detections together find 0.5000"):
        for_recall(points, 0.9)
    none = sweep(prepare(truth, a_found([], [0])), "s")
    with pytest.raises(CalibrationError, match="there is no detection"):
        for_precision(none, 0.5)
    with pytest.raises(CalibrationError, match=r"find 0\.0000"):
        for_recall(none, 0.5)


# Own labels


def labelled(
    path: str, boxes: list[list[float]], ignore: list[bool] | None = None, points: list[list[list[float]]] | None = None
) -> LabelledImage:
    return LabelledImage(
        path,
        100,
        100,
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(ignore if ignore is not None else [False] * len(boxes), bool),
        None if points is None else np.array(points, np.float32),
    )


def test_own_labels() -> None:
    truth = ground_truth([labelled("d/a.jpg", [[1, 2, 11, 22], [5, 5, 9, 9]], [False, True]), labelled("b.png", [])])
    assert truth.images == ("d/a", "b")
    assert truth.boxes.tolist() == [[1, 2, 10, 20], [5, 5, 4, 4]]
    assert truth.counted["all"].tolist() == [True, False]


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ([labelled("a.jpg", [[0, 0, 1, 1]]), labelled("a.png", [])], "a.jpg and a.png have the same name"),
        ([labelled("a.jpg", [[0, 0, 1, np.nan]])], "a.jpg: has a box that is not finite"),
        ([labelled("a.jpg", [[0, 0, 1, 1]], [True])], "no face counts: 1 picture with 1 face,"),
        ([], "no face counts"),
    ],
)
def test_own_labels_that_cannot_be_scored(labels: list[LabelledImage], told: str) -> None:
    with pytest.raises(GroundTruthError, match=told):
        ground_truth(labels)


def test_boxes_that_nothing_can_find_are_left_out() -> None:
    points = [[[float(i), 1, 1], [2, 2, 1]] for i in range(6)]
    boxes = [[1.0, 1, 9, 9], [9, 1, 1, 9], [5, 5, 5, 9], [200, 1, 220, 9], [-9, -9, -1, -1], [-5, -5, 3, 3]]
    (kept,), notes = findable([labelled("a.jpg", boxes, points=points)])
    assert kept.boxes.tolist() == [boxes[0], boxes[5]]
    assert kept.keypoints is not None
    assert kept.keypoints[:, 0, 0].tolist() == [0, 5]
    assert notes == [
        "left out: 2 labelled boxes without width or height",
        "left out: 2 labelled boxes wholly outside the picture",
    ]
    unknown = dataclasses.replace(labelled("a.jpg", boxes[3:4]), width=0, height=0)
    assert findable([unknown]) == ([unknown], [])
    ignored = findable([labelled("a.jpg", boxes[:2], [False, True])])
    assert (len(ignored[0][0].boxes), ignored[1]) == (1, [])


@pytest.mark.parametrize(
    ("labels", "images"),
    [
        ("set/labels/train", "set/images/train"),
        ("set/labels", "set/images"),
        ("set", "set/images"),
        ("set", "set"),
        ("set/all.csv", "set/images"),
        ("set/labels/all.csv", "set/images"),
    ],
)
def test_pictures_beside_the_labels(tmp_path: Path, labels: str, images: str) -> None:
    (tmp_path / images).mkdir(parents=True)
    (tmp_path / images / "a.jpg").write_bytes(b"x")
    source = tmp_path / labels
    (source.parent if source.suffix else source).mkdir(parents=True, exist_ok=True)
    if source.suffix:
        source.write_text("")
    folder = picture_folder([labelled("a.jpg", [])], source)
    assert folder == tmp_path / images
    assert picture_folder([labelled("a.jpg", [])], source, tmp_path) == tmp_path


def test_own_pictures_that_are_there(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("own")
    (folder / "b.jpg").write_bytes(b"x")
    labels = [labelled("a.jpg", []), labelled("b.jpg", [])]
    assert present(labels, folder) == ([labels[1]], [folder / "b.jpg"])
    with pytest.raises(GroundTruthError, match=r"holds none of the labelled pictures, such as a\.jpg"):
        present(labels[:1], folder)


# Landmarks

EYES = [[20, 20, 1], [40, 20, 1], [30, 30, 1], [22, 40, 1], [38, 40, 0]]


def faces(*rows: tuple[list[float], float, list[list[float]]]) -> Detections:
    boxes, scores, points = zip(*rows, strict=True)
    return Detections(np.array(boxes, np.float32), np.array(scores, np.float32), np.array(points, np.float32))


def moved(dx: float, dy: float) -> list[list[float]]:
    return [[x + dx, y + dy] for x, y, _ in EYES]


def test_landmark_error_is_in_eye_distances() -> None:
    label = [labelled("a.jpg", [[10, 10, 50, 50]], points=[EYES])]
    score = landmark_error(label, [faces(([10, 10, 50, 50], 0.9, moved(3, 4)))])
    assert (score.mean, score.median, score.failures, score.faces, score.missed) == (0.25, 0.25, 1.0, 1, 0)
    assert score.points == (0.25,) * 5
    one = moved(0, 0)
    one[2] = [30, 35]
    score = landmark_error(label, [faces(([10, 10, 50, 50], 0.9, one))])
    assert score.mean == pytest.approx(0.05)
    assert score.points == (0, 0, 0.25, 0, 0)
    assert score.failures == 0


def test_landmarks_of_the_best_detection_on_the_face_count() -> None:
    label = [labelled("a.jpg", [[10, 10, 50, 50]], points=[EYES])]
    several = faces(
        ([12, 10, 50, 50], 0.6, moved(20, 0)),
        ([10, 10, 50, 50], 0.9, moved(2, 0)),
        ([60, 60, 90, 90], 0.99, moved(0, 0)),
    )
    assert landmark_error(label, [several]).mean == pytest.approx(0.1)
    none = landmark_error(label, [several], score_threshold=0.95)
    assert (none.faces, none.missed) == (0, 1)
    assert np.isnan(none.mean)
    assert json.loads(json.dumps(none.to_dict(), allow_nan=False))["mean"] is None
    assert landmark_error(label, [Detections.empty()]).missed == 1


def test_landmarks_without_label_are_left_out() -> None:
    unknown = [[-1, -1, -1]] * 5
    part = [*EYES[:3], [-1, -1, -1], [-1, -1, -1]]
    one_eye = [EYES[0], [-1, -1, -1], *EYES[2:]]
    same = [EYES[0], EYES[0], *EYES[2:]]
    boxes = [[i * 100.0, 0.0, i * 100.0 + 50, 50.0] for i in range(5)]
    label = [labelled("a.jpg", boxes, [False] * 4 + [True], [unknown, part, one_eye, same, EYES])]
    found = faces(*((box, 0.9, moved(0, 1)) for box in boxes))
    score = landmark_error(label, [found])
    assert (score.faces, score.missed, score.unusable) == (1, 0, 2)
    assert score.mean == pytest.approx(0.05)
    assert score.points[:3] == pytest.approx((0.05,) * 3)
    assert np.isnan(score.points[3])


def test_landmarks_that_cannot_be_compared() -> None:
    box = [[10.0, 10, 50, 50]]
    with pytest.raises(LandmarkError, match="no face of these labels has landmarks"):
        landmark_error([labelled("a.jpg", box)], [Detections.empty(5)])
    label = [labelled("a.jpg", box, points=[EYES])]
    with pytest.raises(LandmarkError, match="the detections have no key points"):
        landmark_error(label, [Detections(np.array(box, np.float32), np.ones(1, np.float32))])
    with pytest.raises(LandmarkError, match=r"a\.jpg: has 5 points a face, the detections have 3"):
        landmark_error(label, [faces((box[0], 0.9, moved(0, 0)[:3]))])
    with pytest.raises(LandmarkError, match=r"a\.jpg: has 1 points a face; the first two must be the eyes"):
        landmark_error([labelled("a.jpg", box, points=[EYES[:1]])], [Detections.empty(1)])
    with pytest.raises(ValueError, match="labels of 1 pictures, detections of 0"):
        landmark_error(label, [])
