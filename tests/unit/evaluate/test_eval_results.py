"""Results in every broken form: each is an error that names the place, or a counted note."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from wider_files import FIRST, write_ground_truth, write_results

from scrfdkit.evaluate import rough
from scrfdkit.evaluate.cleaning import clean
from scrfdkit.evaluate.results import ResultError, Results, align, bare, collect, read, take, to_npz, to_text
from scrfdkit.evaluate.widerface import Found, GroundTruth, average_precision, prepare, read_ground_truth
from scrfdkit.types import Detections


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> GroundTruth:
    return read_ground_truth(write_ground_truth(tmp_path_factory.mktemp("wider") / "gt"))


@pytest.fixture
def good(tmp_path: Path) -> Results:
    return read(write_results(tmp_path / "good.npz", FIRST))


def as_folder(results: Results, folder: Path) -> Path:
    for name, text in to_text(results):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def ap(truth: GroundTruth, results: Results) -> list[float]:
    some, found, _ = align(truth, results)
    return [curve.ap for curve in average_precision(some, found).values()]


def test_both_forms_give_the_same(truth: GroundTruth, good: Results, tmp_path: Path) -> None:
    (tmp_path / "again.npz").write_bytes(to_npz(good))
    again, text = read(tmp_path / "again.npz"), read(as_folder(good, tmp_path / "text"))
    assert again.images == good.images
    assert text.images == tuple(sorted(good.images))
    assert text.counts.tolist() == [6, 1, 1]
    assert np.array_equal(text.scores.astype(np.float32), good.scores)
    assert text.boxes.tolist() == good.boxes.tolist()
    assert ap(truth, again) == ap(truth, text) == ap(truth, good)
    assert min(ap(truth, good)) > 0.2
    assert align(truth, text)[2] == []


def test_corners_and_eighths(good: Results, tmp_path: Path) -> None:
    corners = np.concatenate([good.boxes[:, :2], good.boxes[:, :2] + good.boxes[:, 2:]], axis=1)
    base = {"images": np.array(good.images), "counts": good.counts, "scores": good.scores}
    np.savez(tmp_path / "a.npz", boxes=corners, **base)
    np.savez(tmp_path / "b.npz", xywh_eighths=(good.boxes * 8).astype(np.int16), **base)
    for name in ("a.npz", "b.npz"):
        assert read(tmp_path / name).boxes.tolist() == good.boxes.tolist()


def test_of_detections() -> None:
    faces = Detections(
        np.array([[1, 2, 4, 8]], np.float32), np.array([0.5], np.float32), np.zeros((1, 5, 2), np.float32)
    )
    results = collect(["a", "b"], [faces, Detections.empty()])
    assert (results.counts.tolist(), results.boxes.tolist()) == ([1, 0], [[1, 2, 3, 6]])
    with pytest.raises(ValueError, match="1 pictures, detections of 2"):
        collect(["a"], [faces, faces])
    assert collect([], []).found.boxes.shape == (0, 4)


def test_names_lose_suffixes_of_pictures_only() -> None:
    assert [bare(n) for n in ("e/a.jpg", "e/a.PNG", "e/a.b", "e.jpg/a")] == ["e/a", "e/a", "e/a.b", "e.jpg/a"]


# Which pictures


def test_missing_pictures(truth: GroundTruth, good: Results) -> None:
    part = Results(good.images[:1], good.counts[:1], good.boxes[:6], good.scores[:6])
    some, found, notes = align(truth, part)
    assert (some.images, len(found.scores)) == (("0--Party/a",), 6)
    assert notes == [
        "scored on 1 of 3 pictures, as the others have no results: not comparable with figures of the whole set"
    ]
    every, found, notes = align(truth, part, "empty")
    assert (every.images, found.counts.tolist()) == (truth.images, [6, 0, 0])
    assert notes == ["2 of 3 pictures without results: their faces count as missed"]
    with pytest.raises(ResultError, match="2 of 3 pictures without results, 0--Party/b for one"):
        align(truth, part, "error")


def test_extra_pictures_do_not_even_move_the_scale_of_scores(truth: GroundTruth, good: Results) -> None:
    extra = Results(
        ("x/y", *good.images),
        np.append(1, good.counts),
        np.concatenate([[[0, 0, 5, 5]], good.boxes]),
        np.append(900.0, good.scores),
    )
    assert align(truth, extra)[2] == ["left out: results of 1 picture that the ground truth does not have"]
    assert ap(truth, extra) == pytest.approx(ap(truth, good), abs=1e-6)


def test_no_picture_in_common(truth: GroundTruth) -> None:
    with pytest.raises(ResultError, match=r"none of 1 picture with results .* as '0--Party/a' there"):
        align(truth, Results(("a.jpg",), np.array([0]), np.zeros((0, 4)), np.zeros(0)))


def test_picture_twice(truth: GroundTruth) -> None:
    twice = Results(("0--Party/a.jpg", "0--Party/a.png"), np.array([0, 0]), np.zeros((0, 4)), np.zeros(0))
    with pytest.raises(ResultError, match="0--Party/a twice"):
        align(truth, twice)


def test_other_order_of_pictures(truth: GroundTruth, good: Results) -> None:
    turned = take(good.found, [2, 1, 0])
    mixed = Results(good.images[::-1], turned.counts, turned.boxes, turned.scores)
    assert ap(truth, mixed) == ap(truth, good)
    assert take(good.found, [-1, 2, -1]).counts.tolist() == [0, 1, 0]


# Which numbers


def found(boxes: list[list[float]], scores: list[float]) -> Found:
    return Found(np.array([len(scores)]), np.array(boxes), np.array(scores))


GOOD = [0.0, 0.0, 9.0, 9.0]


@pytest.mark.parametrize("score", [np.nan, np.inf, -np.inf])
def test_scores_that_are_no_numbers(score: float) -> None:
    kept, notes = clean(found([GOOD, GOOD, GOOD], [0.9, score, 0.5]))
    assert kept.scores.tolist() == [0.9, 0.5]
    assert notes == ["left out: 1 detection whose score is not a finite number"]


@pytest.mark.parametrize(
    ("box", "told"),
    [
        ([0, 0, np.nan, 5], "whose numbers are not finite"),
        ([np.inf, 0, 5, 5], "whose numbers are not finite"),
        ([0, 0, -9, 9], "of negative width or height"),
        ([0, 0, 1e300, 9], "beyond 100,000,000 pixels"),
        ([-1e300, 0, 9, 9], "beyond 100,000,000 pixels"),
        ([9, 9, 9, -9], "of negative width or height"),
    ],
)
def test_boxes_that_are_none_become_false_alarms(box: list[float], told: str) -> None:
    kept, notes = clean(found([box, GOOD], [0.9, 0.5]))
    assert notes == [f"counted as false alarms: 1 box {told}"]
    truth = GroundTruth(("e/a",), np.array([1]), np.array([GOOD]), {"s": np.ones(1, bool)})
    curve = average_precision(truth, kept)["s"]
    assert curve.precision[[0, 999]].tolist() == [0, 0.5]
    assert curve.ap == 0.5


@pytest.mark.parametrize("box", [[0, 0, np.nan, 5], [0, 0, -9, 9], [1e300, 0, 5, 5]])
def test_boxes_that_are_none_are_false_alarms_in_every_protocol(box: list[float]) -> None:
    """Also with a face over the picture's edge, and where small detections are left out."""
    kept, _ = clean(found([box, [-20, -20, 60, 60], [0, 500, 9, 9]], [0.9, 0.5, 0.1]))
    truth = GroundTruth(("e/a",), np.array([1]), np.array([[-20.0, -20, 60, 60]]), {"s": np.ones(1, bool)})
    protocols = [average_precision(truth, kept), rough.loose(truth, kept), rough.centre_inside(truth, kept)]
    for curves in (*protocols, rough.at_least(prepare(truth, kept), 32)):
        assert curves["s"].precision[[0, 600]].tolist() == [0, 0.5]


@pytest.mark.parametrize("kind", [np.uint16, np.uint64, np.float16, np.int8])
def test_corners_of_any_type_of_number(tmp_path: Path, kind: type) -> None:
    """Unsigned differences would wrap around, small floats overflow."""
    content = broken_npz(xywh=None, boxes=np.array([[9, 2, 4, 90]], kind))
    np.savez(tmp_path / "r.npz", **content)
    assert read(tmp_path / "r.npz").boxes.tolist() == [[9, 2, -5, 88]]


def test_errors_name_the_file(truth: GroundTruth, tmp_path: Path) -> None:
    np.savez(tmp_path / "r.npz", **broken_npz())
    with pytest.raises(ResultError, match=r"r\.npz: none of 1 picture"):
        align(truth, read(tmp_path / "r.npz"))
    (tmp_path / "folder/e").mkdir(parents=True)
    (tmp_path / "folder/e/a.txt").write_text("")
    with pytest.raises(ResultError, match="folder: none of 1 picture"):
        align(truth, read(tmp_path / "folder"))


def test_results_without_some_pictures(good: Results) -> None:
    rest = good.without({bare(good.images[0])})
    assert rest.images == good.images[1:]
    assert rest.scores.tolist() == good.scores[good.counts[0] :].tolist()


def test_rounding_below_zero_is_no_fault() -> None:
    assert clean(found([[5, 5, -0.0005, 3], GOOD], [0.9, 0.5]))[1] == []


def test_unsorted_scores() -> None:
    both = Found(np.array([2, 2]), np.tile(np.array(GOOD), (4, 1)), np.array([0.1, 0.2, 0.9, 0.8]))
    assert clean(both)[1] == ["sorted by score, which they were not: the detections of 1 picture"]


def test_equal_scores_and_none() -> None:
    assert "all scores are the same" in clean(found([GOOD, GOOD], [1, 1]))[1][0]
    assert clean(Found(np.array([0]), np.zeros((0, 4)), np.zeros(0)))[1] == ["there is no detection at all"]


# Result files

TEXT = {
    "": None,
    "a.jpg\n": "a.txt:2: the number of faces is missing",
    "a.jpg\nmany\n": "a.txt:2: the number of faces is missing",
    "a.jpg\n2\n1 2 3 4 0.5\n": "a.txt:2: says 2 faces, but 1 line after",
    "a.jpg\n1\n1 2 3 4 0.5\n1 2 3 4 0.5\n": "a.txt:2: says 1 face, but 2 lines after",
    "a.jpg\n2\n1 2 3 4 0.5\n1 2 3 4\n": r"a.txt:4: five numbers, x y w h score, are needed; it is '1 2 3 4'",
    "a.jpg\n1\n1 2 3 x 0.5\n": "a.txt:3: five numbers",
    "a.jpg\n2\n1 2 3 4 0.5 1\n1 2 3 4\n": "a.txt:3: five numbers",
}


@pytest.mark.parametrize("text", [t for t, told in TEXT.items() if told])
def test_broken_text(tmp_path: Path, text: str) -> None:
    (tmp_path / "e").mkdir()
    (tmp_path / "e/a.txt").write_text(text)
    with pytest.raises(ResultError, match=TEXT[text]):
        read(tmp_path)


def test_empty_and_misnamed_files_are_counted(tmp_path: Path, truth: GroundTruth) -> None:
    (tmp_path / "0--Party").mkdir()
    (tmp_path / "0--Party/a.txt").write_text("")
    (tmp_path / "0--Party/b.txt").write_text("0--Party/z.jpg\r\n1\r\n1 2 3 4 nan\r\n")
    results = read(tmp_path)
    assert results.counts.tolist() == [0, 1]
    assert align(truth, results)[2][:2] == [
        "empty, counted as pictures without detections: 1 result file",
        "with another picture in the first line than in the name, which was taken: 1 result file",
    ]


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ResultError, match=r"a\.txt: cannot be read"):
        read(tmp_path)


def test_folders_and_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match="holds no result files"):
        read(tmp_path)
    with pytest.raises(ResultError, match="there is no such file or folder"):
        read(tmp_path / "x")
    (tmp_path / "x.csv").write_text("1")
    with pytest.raises(ResultError, match=r"event/picture\.txt files, or an \.npz file"):
        read(tmp_path / "x.csv")


def broken_npz(**changes: object) -> dict[str, np.ndarray]:
    content: dict[str, object] = {
        "images": np.array(["e/a"]),
        "counts": np.array([1]),
        "xywh": np.ones((1, 4)),
        "scores": np.ones(1),
    }
    content.update(changes)
    return {k: np.asarray(v) for k, v in content.items() if v is not None}


NPZ = [
    ({"scores": None}, "has no array scores"),
    ({"xywh": None}, r"has no array xywh \(x y w h\) or boxes \(x1 y1 x2 y2\)"),
    ({"counts": [2]}, "counts say 2 detections"),
    ({"counts": np.array([2**63 - 1, 2**63 - 1]), "images": ["e/a", "e/b"]}, "counts say 18,446,744,073,709,551,614"),
    ({"counts": np.array([2**64 - 1], np.uint64)}, "counts say 18,446,744,073,709,551,615 detections"),
    ({"counts": [-1]}, "counts from 0"),
    ({"counts": [0.5]}, "counts whole numbers"),
    ({"counts": [1, 0]}, "lists of the same length"),
    ({"images": [1]}, "images must be text"),
    ({"xywh": np.ones((1, 5))}, r"xywh is \(1, 5\)"),
    ({"scores": ["high"]}, "scores numbers"),
]


@pytest.mark.parametrize(("changes", "told"), NPZ, ids=[told for _, told in NPZ])
def test_broken_npz(tmp_path: Path, changes: dict[str, object], told: str) -> None:
    np.savez(tmp_path / "r.npz", **broken_npz(**changes))
    with pytest.raises(ResultError, match=told):
        read(tmp_path / "r.npz")


def test_npz_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "r.npz"
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ResultError, match=r"cannot be read as an \.npz file: it is a single array"):
        read(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ResultError, match=r"cannot be read as an \.npz file"):
        read(path)
    np.savez(path, **broken_npz(images=np.array([{"a": 1}], object)))
    with pytest.raises(ResultError, match=r"cannot be read as an \.npz file"):
        read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", b"cut")
    with pytest.raises(ResultError, match=r"cannot be read as an \.npz file"):
        read(path)
