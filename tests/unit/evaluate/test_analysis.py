"""Errors sorted, groups judged and pictures picked, on data small enough to know every answer by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from wider_files import FIRST, SECOND, write_ground_truth, write_pictures, write_results

from scrfdkit.errors import OptionError
from scrfdkit.evaluate import attributes, gallery, results
from scrfdkit.evaluate.analysis import Analysis, analyze, compare
from scrfdkit.evaluate.attributes import Grouping, by_event, by_size, faces_of, read_attributes, sides
from scrfdkit.evaluate.judge import Fate, Kind, best_threshold, judge, pair, sort_out
from scrfdkit.evaluate.overlap import overlaps
from scrfdkit.evaluate.run import wider_pictures
from scrfdkit.evaluate.widerface import (
    Found,
    GroundTruth,
    GroundTruthError,
    average_precision,
    match,
    read_ground_truth,
)

SIZES = np.array([(640, 480), (320, 240), (1280, 720)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ground_truth(tmp_path_factory.mktemp("wider") / "gt")


@pytest.fixture(scope="module")
def truth(folder: Path) -> GroundTruth:
    return read_ground_truth(folder)


@pytest.fixture(scope="module")
def found(truth: GroundTruth, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    place = tmp_path_factory.mktemp("results")
    both = {"first": FIRST, "second": SECOND}
    files = {name: write_results(place / f"{name}.npz", rows) for name, rows in both.items()}
    return {name: results.align(truth, results.read(path))[1] for name, path in files.items()}


@pytest.fixture(scope="module")
def analysis(folder: Path, truth: GroundTruth, found: dict[str, Found]) -> Analysis:
    labels = read_attributes(folder, truth)
    return analyze(truth, found, labels=labels, picture_sizes=SIZES, threshold=0.5)


def test_every_error_has_its_kind(analysis: Analysis) -> None:
    run = analysis.runs[0]
    kinds = dict(zip(run.pairing.found.scores.round(2).tolist(), run.verdict.kind.tolist(), strict=True))
    expected = {
        0.9: Kind.RIGHT,
        0.8: Kind.DUPLICATE,
        0.7: Kind.LOCALISATION,
        0.6: Kind.BACKGROUND,
        0.95: Kind.IGNORED,
        0.99: Kind.IGNORED,
        0.1: Kind.BELOW,
        0.3: Kind.BELOW,
    }
    assert {round(score, 2): Kind(kind) for score, kind in kinds.items()} == expected
    assert [Fate(f) for f in run.verdict.fate] == [Fate.FOUND, Fate.LOOSE, Fate.FOUND, Fate.MISSED, Fate.MISSED]
    assert (run.verdict.precision, run.verdict.recall, run.verdict.f1) == (1 / 4, 1 / 4, 2 / 8)
    assert [run.count(kind) for kind in (Kind.RIGHT, Kind.DUPLICATE, Kind.IGNORED)] == [1, 1, 2]


def test_a_stray_box_on_a_found_face_is_background(truth: GroundTruth) -> None:
    """The same misplaced box is a localisation error only while nothing else finds the face."""
    boxes = np.array([(120.0, 10, 40, 40), (100.0, 10, 40, 40)])
    found = Found(np.array([2, 0, 0]), boxes, np.array([0.9, 0.8]))
    counted = truth.counted["hard"]
    assert judge(pair(truth, found), counted, 0.85).kind.tolist() == [Kind.LOCALISATION, Kind.BELOW]
    assert judge(pair(truth, found), counted, 0.5).kind.tolist() == [Kind.BACKGROUND, Kind.RIGHT]


def test_best_threshold_by_hand(truth: GroundTruth, found: dict[str, Found]) -> None:
    """F1 after each score: .9 2/5, .8 2/6, .7 2/7, .6 2/8, .3 4/9, .1 6/10."""
    pairing = pair(truth, found["first"])
    kind = sort_out(pairing, truth.counted["hard"])
    assert best_threshold(pairing, kind, 4) == pytest.approx(0.1)
    verdict = judge(pairing, truth.counted["hard"])
    assert (verdict.threshold, verdict.f1) == (pytest.approx(0.1), 0.6)
    assert verdict.recall == 3 / 4


def test_equal_scores_stand_or_fall_together(truth: GroundTruth) -> None:
    strays = [(400.0 + 30 * i, 400, 9, 9) for i in range(8)]
    boxes = np.array([(10.0, 10, 40, 40), (100, 10, 40, 40), *strays])
    found = Found(np.array([10, 0, 0]), boxes, np.array([0.9] + 9 * [0.5]))
    pairing = pair(truth, found)
    kind = sort_out(pairing, truth.counted["hard"])
    # 2/5 after the first; 4/6 after the second, but no threshold lies between it and the strays; 4/14 after all.
    assert best_threshold(pairing, kind, 4) == pytest.approx(0.9)
    assert judge(pairing, truth.counted["hard"], 0.5).f1 == 4 / 14


def test_nothing_found(truth: GroundTruth) -> None:
    nothing = Found(np.zeros(3, np.int64), np.zeros((0, 4)), np.zeros(0))
    run = analyze(truth, {"none": nothing}).runs[0]
    assert run.verdict.threshold == 0.5
    assert (run.verdict.precision, run.verdict.recall, run.verdict.f1) == (0, 0, 0)
    assert (run.verdict.fate == Fate.MISSED).all()
    assert run.histograms["hard"].right.sum() == 0


def test_overlaps_have_the_extra_pixel() -> None:
    a, b = np.array([(0.0, 0, 9, 9)]), np.array([(5.0, 0, 9, 9), (9, 9, 9, 9), (10, 0, 9, 9), (-1, -1, -1, -1)])
    assert overlaps(a, b)[0].tolist() == pytest.approx([50 / 150, 1 / 199, 0, 0])


def test_other_faces_are_ignored_in_the_ap_of_a_group(analysis: Analysis) -> None:
    table = analysis.table("blur")
    assert table is not None
    clear, normal, heavy = table.rows
    assert [(row.label, row.faces, row.counted) for row in table.rows] == [
        ("clear", 2, 2),
        ("normal", 1, 0),
        ("heavy", 2, 2),
    ]
    # Heavy: right at .3 (third) and .1 (fourth) after the wrong ones at .7 and .6; the duplicate is clear.
    assert heavy.ap[0] == pytest.approx(2 / 4)
    assert heavy.ap[1] == pytest.approx(1)
    assert (heavy.recall, clear.recall) == ((0, 1), (0.5, 0.5))
    # Clear: right at .9 gives recall 1/2 at precision 1, and there is no more.
    assert clear.ap[0] == pytest.approx(0.5)
    assert normal.ap == normal.recall == (None, None)


def test_invalid_faces_are_judged_although_they_never_count(analysis: Analysis) -> None:
    table = analysis.table("invalid")
    assert table is not None
    assert [(row.label, row.faces, row.counted) for row in table.rows] == [("valid", 5, 5)]
    assert table.rows[0].recall == (2 / 5, 3 / 5)


def test_events_are_judged_on_their_own_pictures(analysis: Analysis) -> None:
    table = analysis.table("event")
    assert table is not None
    assert [(row.label, row.faces, row.counted) for row in table.rows] == [("Party", 4, 3), ("Group Photo", 1, 1)]
    assert table.rows[1].ap == (1, 1)  # the false alarms of the party do not reach it


def test_group_of_everything_is_the_setting(truth: GroundTruth, found: dict[str, Found]) -> None:
    everything = Grouping("all", "All", ("all",), np.zeros(5, np.int64))
    analysis = analyze(truth, found, labels=[everything])
    table = analysis.table("all")
    assert table is not None
    for i, run in enumerate(analysis.runs):
        assert table.rows[0].ap[i] == run.curves["hard"].ap == average_precision(truth, found[run.name])["hard"].ap
        assert table.rows[0].recall[i] == run.verdict.recall


def test_sizes(truth: GroundTruth) -> None:
    assert sides(truth).tolist() == [40, 40, 40, 20, 100]
    assert sides(truth, SIZES).tolist() == [40, 40, 40, 20, 50]
    pixels, seen = by_size(truth), by_size(truth, SIZES)
    assert [pixels.labels[i] for i in pixels.index] == ["32–64 px"] * 3 + ["16–32 px", "64–128 px"]
    assert [seen.labels[i] for i in seen.index] == ["32–64 px"] * 3 + ["16–32 px", "32–64 px"]
    unknown = by_size(truth, np.array([(0, 0), (0, 0), (1280, 720)]))
    assert unknown.index.tolist() == [-1, -1, -1, -1, 3]


@pytest.mark.parametrize(("side", "label"), [(0, "under 16 px"), (16, "16–32 px"), (256, "256 px and more")])
def test_size_edges(side: int, label: str) -> None:
    truth = GroundTruth(("e/p",), np.array([1]), np.array([(0.0, 0, side, side)]), {"hard": np.ones(1, bool)})
    grouping = by_size(truth)
    assert grouping.labels[grouping.index[0]] == label


def test_attributes_follow_a_selection(folder: Path, truth: GroundTruth) -> None:
    blur = read_attributes(folder, truth)[0]
    assert blur.index.tolist() == [0, 0, 1, 2, 2]
    chosen = ["12--Group_Photo/c", "0--Party/a"]
    faces = faces_of(truth, chosen)
    assert truth.boxes[faces].tolist() == truth.select(chosen).boxes.tolist()
    assert blur.select(faces).index.tolist() == [2, 0, 0, 1, 2]
    assert by_event(truth.select(chosen)).labels == ("Party", "Group Photo")


def test_labels_of_another_file_are_refused(folder: Path, truth: GroundTruth, tmp_path: Path) -> None:
    with pytest.raises(GroundTruthError, match="not of the same faces"):
        read_attributes(folder, truth.select(truth.images[:2]))
    with pytest.raises(GroundTruthError, match=r"wider_face_val\.mat"):
        read_attributes(tmp_path, truth)


def test_unknown_label_values_are_refused(folder: Path, truth: GroundTruth, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attributes, "LABELS", {"blur": ("Blur", ("clear", "normal"))})
    with pytest.raises(GroundTruthError, match="blur_label_list holds 2; 0 to 1 are known"):
        read_attributes(folder, truth)


def test_options_are_checked(truth: GroundTruth, found: dict[str, Found]) -> None:
    with pytest.raises(OptionError, match="--setting: 'strict'"):
        analyze(truth, found, setting="strict")
    with pytest.raises(OptionError, match="--detections: 0 sets"):
        analyze(truth, {})
    with pytest.raises(ValueError, match="1 pictures, ground truth of 3"):
        analyze(truth, {"x": Found(np.array([0]), np.zeros((0, 4)), np.zeros(0))})


def test_selecting_detections(found: dict[str, Found]) -> None:
    part = results.take(found["first"], np.array([2, 0]))
    assert part.counts.tolist() == [1, 6]
    assert part.scores.round(2).tolist() == pytest.approx([0.3, 0.95, 0.9, 0.8, 0.7, 0.6, 0.1])


def test_difference_of_two_runs(analysis: Analysis) -> None:
    seen = compare(analysis, *analysis.runs)
    assert np.flatnonzero(seen.both).tolist() == []
    assert np.flatnonzero(seen.only_first).tolist() == [0]
    assert np.flatnonzero(seen.only_second).tolist() == [1, 3, 4]
    assert np.flatnonzero(seen.neither).tolist() == []


def test_histograms_count_every_detection(analysis: Analysis) -> None:
    bins = analysis.runs[0].histograms["hard"]
    assert (bins.low, bins.high) == (0, 1)
    assert np.flatnonzero(bins.right).tolist() == [4, 12, 36]  # .1, .3 and .9 in bins of .025
    assert bins.wrong.sum() == 3


def test_worst_misses_are_large_and_clear(analysis: Analysis) -> None:
    """Sizes seen 40 (clear), 50 and 20 (heavy blur, times 0.3): the clear one first."""
    picks = gallery.misses(analysis, analysis.runs[0], 9)
    assert [pick.box[0] for pick in picks] == [100, 50, 10]
    assert [pick.caption for pick in picks] == [
        "no detection · 40 px",
        "only at score 0.30 · 50 px · heavy blur",
        "only at score 0.10 · 20 px · heavy blur",
    ]
    assert [pick.box[0] for pick in gallery.misses(analysis, analysis.runs[0], 1)] == [100]


def test_worst_false_alarms_are_sure(analysis: Analysis) -> None:
    picks = gallery.false_alarms(analysis, analysis.runs[0], 9)
    # The third is in the same picture, of which two are enough.
    assert [pick.caption for pick in picks] == ["duplicate · score 0.80", "badly placed · score 0.70"]


def test_cut_outs_show_the_face(analysis: Analysis, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path)
    paths = dict(zip(*wider_pictures(folder, analysis.truth), strict=True))
    picks = gallery.misses(analysis, analysis.runs[0], 9)
    (shots,), problems = gallery.cut(analysis, [picks], paths)
    assert problems == []
    assert [shot.name for shot in shots] == ["0--Party/a", "12--Group_Photo/c", "0--Party/a"]
    for shot in shots:
        pixels = cv2.imdecode(np.frombuffer(shot.jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert pixels.shape == (shot.height, shot.width, 3)
        target = shot.marks[-1]
        assert target.role == "target"
        x, y, w, h = (round(v) for v in target.box)
        inside = pixels[y + 5 : y + h - 5, x + 5 : x + w - 5].reshape(-1, 3).mean(axis=0)
        assert inside[2] > 230, "the face is red"
        assert inside[0] < 30
        assert abs(float(pixels[max(y - 8, 0), x + w // 2].mean()) - 128) < 20, "what is above it is grey"
    assert [mark.role for mark in shots[0].marks].count("wrong") == 1  # the badly placed one is in sight


def test_pictures_that_are_missing_or_broken(analysis: Analysis, tmp_path: Path) -> None:
    broken = tmp_path / "a.jpg"
    broken.write_bytes(b"\xff\xd8 no picture")
    picks = gallery.misses(analysis, analysis.runs[0], 9)
    (shots,), problems = gallery.cut(analysis, [picks], {"0--Party/a": broken})
    assert shots == []
    assert len(problems) == 1
    assert str(broken) in problems[0]


def test_boxes_outside_the_picture_are_not_shown(analysis: Analysis, tmp_path: Path) -> None:
    folder = write_pictures(tmp_path)
    paths = dict(zip(*wider_pictures(folder, analysis.truth), strict=True))
    pick = gallery.false_alarms(analysis, analysis.runs[0], 1)[0]
    outside = [replace(pick, box=box) for box in ((9e3, 0, 5, 5), (-50, 0, 5, 5), (float("nan"), 0, 5, 5))]
    edge = replace(pick, box=(-30.0, -30, 40, 40))
    (shots,), _ = gallery.cut(analysis, [[*outside, edge]], paths)
    assert len(shots) == 1


def test_against_the_engine_on_random_data() -> None:
    """Precision and recall at a threshold must be those that the engine's curve has there."""
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 7, 60)
    faces = int(counts.sum())
    boxes = np.concatenate([rng.integers(0, 300, (faces, 2)), rng.integers(12, 80, (faces, 2))], axis=1).astype(float)
    truth = GroundTruth(tuple(f"e/{i}" for i in range(60)), counts, boxes, {"hard": rng.random(faces) < 0.7})
    per = rng.integers(0, 12, 60)
    rows = []
    for i, start in enumerate(np.cumsum(counts) - counts):
        near = boxes[start : start + counts[i]] if counts[i] else rng.integers(1, 90, (1, 4)).astype(float)
        rows += [near[j % len(near)] + rng.normal(0, 6, 4) for j in range(per[i])]
    found = Found(per, np.abs(np.array(rows)), np.linspace(0, 1, int(per.sum()))[rng.permutation(int(per.sum()))])
    pairing = pair(truth, found)
    curve = average_precision(truth, found)["hard"]
    for k in (99, 499, 899):
        verdict = judge(pairing, truth.counted["hard"], 1 - (k + 1) / 1000 - 1e-9)
        assert verdict.recall == pytest.approx(curve.recall[k])
        assert verdict.precision == pytest.approx(curve.precision[k])
        # The one who wins a face is the best of all on it.
        right = verdict.kind == Kind.RIGHT
        assert right.sum() == (truth.counted["hard"] & (verdict.fate == Fate.FOUND)).sum()
    assert (pairing.matched.face >= 0).sum() == (match(truth, found) >= 0).sum() > 20
