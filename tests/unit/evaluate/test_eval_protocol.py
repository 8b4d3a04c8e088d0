"""The AP engine against the protocol done slowly, and its ground truth against files that are not WIDER FACE's."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat
from wider_files import write_ground_truth

from scrfdkit.evaluate.overlap import best_face
from scrfdkit.evaluate.widerface import (
    Found,
    GroundTruth,
    GroundTruthError,
    average_precision,
    match,
    read_ground_truth,
)

BENCHMARK = Path(__file__).resolve().parents[3] / "benchmarks" / "widerface_ap.py"


@pytest.fixture(scope="module")
def slow() -> ModuleType:
    """The benchmark, whose plain loop is the protocol word for word."""
    spec = importlib.util.spec_from_file_location("widerface_ap_benchmark", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def random_set(seed: int, pictures: int = 12) -> tuple[GroundTruth, Found]:
    """Faces and detections on a coarse grid, so that equal overlaps and equal scores happen all the time."""
    random = np.random.default_rng(seed)
    counts, num = random.integers(0, 6, pictures), random.integers(0, 30, pictures)
    faces = np.concatenate([random.integers(0, 12, (counts.sum(), 2)), random.integers(0, 9, (counts.sum(), 2))], 1)
    boxes = np.concatenate([random.integers(-2, 12, (num.sum(), 2)), random.integers(0, 9, (num.sum(), 2))], 1)
    scores = np.round(random.random(num.sum()), int(random.integers(1, 4))).astype(np.float32)
    counted = {"some": random.random(len(faces)) < 0.6, "all": np.ones(len(faces), bool)}
    names = tuple(f"e/{i}" for i in range(pictures))
    return GroundTruth(names, counts, faces.astype(float), counted), Found(num, boxes.astype(np.float32), scores)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_equals_the_plain_loop(slow: ModuleType, seed: int) -> None:
    truth, found = random_set(seed)
    if not len(found.scores):
        return
    curves = average_precision(truth, found)
    plain = slow.plain_average_precision(truth, found)
    assert {setting: curve.ap for setting, curve in curves.items()} == pytest.approx(plain, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.3, 0.5, 0.8, 1.0]), st.sampled_from([1.0, 0.25, 1024.0]))
def test_best_face_equals_all_pairs(seed: int, overlap: float, scale: float) -> None:
    # Scales are powers of two, so that equal overlaps stay equal in float32 and float64.
    truth, found = random_set(seed)
    faces, boxes = truth.boxes * scale, found.boxes * scale
    got = best_face(found.counts, boxes, truth.counts, faces, overlap)
    assert got.tolist() == [
        all_pairs(box.astype(float), faces, own, overlap) for box, own in owners(truth, boxes, found)
    ]


def owners(truth: GroundTruth, boxes: np.ndarray, found: Found) -> list[tuple[np.ndarray, range]]:
    ends = np.cumsum(truth.counts).tolist()
    spans = [range(end - count, end) for end, count in zip(ends, truth.counts.tolist(), strict=True)]
    return [(box, spans[i]) for i, box in zip(np.repeat(np.arange(len(spans)), found.counts), boxes, strict=True)]


def all_pairs(box: np.ndarray, faces: np.ndarray, own: range, overlap: float) -> int:
    best, index = overlap, -1
    for i in own:
        face = faces[i]
        across = min(box[0] + box[2], face[0] + face[2]) - max(box[0], face[0]) + 1
        down = min(box[1] + box[3], face[1] + face[3]) - max(box[1], face[1]) + 1
        shared = max(0, across) * max(0, down)
        value = shared / ((box[2] + 1) * (box[3] + 1) + (face[2] + 1) * (face[3] + 1) - shared)
        if value > best or (value == best and index < 0):
            best, index = value, i
    return index


def test_far_away_coordinates_are_matched_exactly() -> None:
    faces = np.array([[200_000.0, 150_000.0, 10, 10]])
    boxes = np.array([[200_000.0, 150_005.0, 10, 4], [1e9, 1e9, 10, 10], [200_000.0, 150_000.0, 10, 10]])
    got = best_face(np.array([3]), boxes, np.array([1]), faces, 0.5)
    assert got.tolist() == [-1, -1, 0]


def test_middle_inside() -> None:
    faces = np.array([[0.0, 0, 10, 10], [5.0, 0, 10, 10], [5.0, 0, 10, 10]])
    boxes = np.array(
        [
            [-80.0, -80, 170, 170],  # huge, its middle at (5, 5): in all three, the IoU of all is the same
            [9.0, 4, 4, 2],  # its middle at (11, 5): in the second and its copy
            [10.0, 10, 4, 4],  # its middle at (12, 12): in none
            [
                8.0,
                8,
                4,
                4,
            ],  # its middle at (10, 10): a corner of the first, on an edge of the second, which it overlaps more
            [-2.0, -2, 4, 4],  # its middle at (0, 0): a corner of the first
        ]
    )
    got = best_face(np.array([5]), boxes, np.array([3]), faces, None)
    assert got.tolist() == [0, 1, -1, 1, 0]


def test_second_detection_of_a_face_is_wrong_and_ignored_faces_do_not_count() -> None:
    truth = GroundTruth(
        ("e/a", "e/b"), np.array([2, 0]), np.array([[0.0, 0, 9, 9], [50.0, 0, 9, 9]]), {"s": np.array([True, False])}
    )
    boxes = np.array([[50, 0, 9, 9], [0, 0, 9, 9], [0, 0, 9, 9], [0, 0, 9, 9]], float)
    scores = np.array([1.0, 0.8, 0.6, 0.0])
    found = Found(np.array([3, 1]), boxes, scores)
    assert match(truth, found).tolist() == [1, 0, 0, -1]
    curve = average_precision(truth, found)["s"]
    # The ignored face's detection is no proposal, the duplicate is wrong, a picture without faces does not count.
    assert curve.precision[[198, 199, 399, 999]].tolist() == [0, 1, 0.5, 0.5]
    assert curve.recall[[198, 199, 999]].tolist() == [0, 1, 1]
    assert curve.ap == 1


def test_detections_in_any_order_give_the_same() -> None:
    truth, found = random_set(5)
    random = np.random.default_rng(1)
    scores = np.arange(len(found.scores), dtype=np.float32)
    order = np.concatenate(
        [random.permutation(n) + end - n for n, end in zip(found.counts, np.cumsum(found.counts), strict=True)]
    )
    mixed = Found(found.counts, found.boxes[order], scores[order])
    one, other = (average_precision(truth, f) for f in (Found(found.counts, found.boxes, scores), mixed))
    assert [c.ap for c in one.values()] == [c.ap for c in other.values()]


def test_nothing_found_is_zero() -> None:
    truth, _ = random_set(3)
    none = Found(np.zeros(len(truth.images), int), np.zeros((0, 4)), np.zeros(0))
    assert {curve.ap for curve in average_precision(truth, none).values()} == {0.0}


@pytest.mark.parametrize(("boxes", "scores"), [(np.nan, 0.5), (1.0, np.nan), (np.inf, 0.5), (1.0, np.inf)])
def test_what_is_no_number_is_refused(boxes: float, scores: float) -> None:
    truth = GroundTruth(("e/a",), np.array([1]), np.ones((1, 4)), {"s": np.ones(1, bool)})
    with pytest.raises(ValueError, match="not finite"):
        average_precision(truth, Found(np.array([1]), np.full((1, 4), boxes), np.array([scores])))


def test_shapes_and_pictures_that_disagree_are_refused() -> None:
    with pytest.raises(ValueError, match="2 detections by counts"):
        Found(np.array([2]), np.ones((1, 4)), np.ones(1))
    truth, found = random_set(3)
    with pytest.raises(ValueError, match="detections of 12 pictures, ground truth of 1"):
        average_precision(truth.select(truth.images[:1]), found)
    with pytest.raises(GroundTruthError, match="1 pictures are not in the ground truth, e/x"):
        truth.select(["e/x"])


# Ground-truth files


@pytest.fixture
def gt(tmp_path: Path) -> Path:
    return write_ground_truth(tmp_path / "gt")


def rewrite(path: Path, **changes: object) -> None:
    content = {k: v for k, v in loadmat(path).items() if not k.startswith("__")}
    savemat(path, {k: v for k, v in {**content, **changes}.items() if v is not None})


def test_reads_ground_truth(gt: Path) -> None:
    truth = read_ground_truth(gt)
    assert truth.images == ("0--Party/a", "0--Party/b", "12--Group_Photo/c")
    assert truth.counts.tolist() == [4, 0, 1]
    assert truth.boxes[1].tolist() == [100, 10, 40, 40]
    assert truth.counted["hard"].tolist() == [True, True, False, True, True]


def test_missing_file(gt: Path) -> None:
    (gt / "wider_medium_val.mat").unlink()
    with pytest.raises(GroundTruthError, match=r"wider_medium_val\.mat: there is no such file"):
        read_ground_truth(gt)


def test_file_that_is_no_mat(gt: Path) -> None:
    (gt / "wider_face_val.mat").write_bytes(b"not a matrix" * 100)
    with pytest.raises(GroundTruthError, match=r"wider_face_val\.mat: cannot be read as a MATLAB file"):
        read_ground_truth(gt)


def test_cut_off_mat(gt: Path) -> None:
    path = gt / "wider_face_val.mat"
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(GroundTruthError, match=r"wider_face_val\.mat"):
        read_ground_truth(gt)


def test_mat_of_something_else(gt: Path) -> None:
    savemat(gt / "wider_face_val.mat", {"weights": np.ones(3)})
    with pytest.raises(GroundTruthError, match="holds no event_list; it is not a file of WIDER FACE's eval_tools"):
        read_ground_truth(gt)


def test_mat_with_the_right_names_and_other_content(gt: Path) -> None:
    rewrite(gt / "wider_face_val.mat", face_bbx_list=np.ones((2, 1)))
    with pytest.raises(GroundTruthError, match="face_bbx_list is not as in WIDER FACE's eval_tools"):
        read_ground_truth(gt)


def test_setting_of_other_pictures(gt: Path) -> None:
    names = loadmat(gt / "wider_hard_val.mat")["file_list"]
    names[0, 0][0, 0] = np.array(["other"])
    rewrite(gt / "wider_hard_val.mat", file_list=names)
    with pytest.raises(GroundTruthError, match=r"wider_hard_val\.mat: its pictures are not those of wider_face_val"):
        read_ground_truth(gt)


@pytest.mark.parametrize("index", [0, 5])
def test_setting_that_names_faces_nobody_has(gt: Path, index: int) -> None:
    lists = loadmat(gt / "wider_easy_val.mat")["gt_list"]
    lists[0, 0][0, 0] = np.array([[index]], np.uint8)
    rewrite(gt / "wider_easy_val.mat", gt_list=lists)
    with pytest.raises(GroundTruthError, match="names faces that"):
        read_ground_truth(gt)


def test_mixed_up_settings(gt: Path) -> None:
    lists = loadmat(gt / "wider_hard_val.mat")["gt_list"]
    lists[0, 0][0, 0] = np.array([[1]], np.uint8)
    rewrite(gt / "wider_hard_val.mat", gt_list=lists)
    with pytest.raises(GroundTruthError, match="are the files mixed up"):
        read_ground_truth(gt)


def test_boxes_that_are_no_numbers(gt: Path) -> None:
    boxes = loadmat(gt / "wider_face_val.mat")["face_bbx_list"]
    boxes[0, 0][0, 0] = np.full((4, 4), np.nan)
    rewrite(gt / "wider_face_val.mat", face_bbx_list=boxes)
    with pytest.raises(GroundTruthError, match="holds boxes that are not numbers"):
        read_ground_truth(gt)
