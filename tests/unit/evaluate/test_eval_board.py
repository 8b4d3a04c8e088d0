"""Intervals, comparisons, the board of several runs, their curves, and thresholds in weight files."""

from __future__ import annotations

import io
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image as Pillow

from scrfdkit import machine, weights
from scrfdkit.data.words import plural
from scrfdkit.errors import OptionError, WeightError
from scrfdkit.evaluate import bootstrap, curves, stored
from scrfdkit.evaluate.leaderboard import Board, Entry, score, with_intervals
from scrfdkit.evaluate.names import distinct, run_name
from scrfdkit.evaluate.results import ResultError, Results
from scrfdkit.evaluate.widerface import Found, GroundTruth, Matched, average_precision, prepare
from scrfdkit.model import header


def pictures(seed: int, number: int = 40, skill: float = 0.7) -> tuple[GroundTruth, Results]:
    """Faces side by side, each found with the given chance, and false alarms."""
    random = np.random.default_rng(seed)
    counts = np.random.default_rng(1).integers(1, 6, number)
    x = np.concatenate([np.arange(n) * 100.0 for n in counts])
    boxes = np.stack([x, np.zeros_like(x), np.full_like(x, 30), np.full_like(x, 30)], axis=1)
    hit = random.random(len(x)) < skill
    shifted = boxes + np.where(hit, 0, 50)[:, None] * np.array([1, 0, 0, 0])
    scores = np.round(random.random(len(x)) * 0.5 + 0.5 * hit, 2)
    truth = GroundTruth(tuple(f"e/{i}" for i in range(number)), counts, boxes, {"s": np.ones(len(x), bool)})
    order = np.lexsort((-scores, np.repeat(np.arange(number), counts)))
    return truth, Results(truth.images, counts, shifted[order], scores[order])


def repeated(run: Matched, times: np.ndarray) -> float:
    """AP of a data set in which each picture really stands that often."""
    chosen = np.repeat(np.arange(len(times)), times)
    ends_f, ends_d = np.cumsum(run.truth.counts), np.cumsum(run.found.counts)
    rows_f = np.concatenate([np.arange(ends_f[i] - run.truth.counts[i], ends_f[i]) for i in chosen])
    rows_d = np.concatenate([np.arange(ends_d[i] - run.found.counts[i], ends_d[i]) for i in chosen])
    names = tuple(f"{i}" for i in range(len(chosen)))
    truth = GroundTruth(names, run.truth.counts[chosen], run.truth.boxes[rows_f], {"s": run.truth.counted["s"][rows_f]})
    found = Found(run.found.counts[chosen], run.found.boxes[rows_d], run.found.scores[rows_d])
    return average_precision(truth, found)["s"].ap


def test_a_draw_is_the_ap_of_the_pictures_drawn() -> None:
    truth, results = pictures(2)
    run = prepare(truth, results.found)
    samples = bootstrap.resample([run], "s", 30, seed=7)
    weights_ = bootstrap._draw(len(truth.images), 30, np.random.default_rng(7)).astype(int)
    assert (weights_.sum(axis=1) == len(truth.images)).all()
    low, high = results.scores.min(), results.scores.max()
    # Scores are normalised by the whole set: draws that lack its best or worst detection are left out here.
    extremes = [np.flatnonzero(results.scores == value) for value in (low, high)]
    owner = np.repeat(np.arange(len(truth.images)), results.counts)
    checked = 0
    for times, got in zip(weights_, samples[0], strict=True):
        if all(times[owner[rows]].any() for rows in extremes):
            assert got == pytest.approx(repeated(run, times), abs=1e-9)
            checked += 1
    assert checked >= 5


def test_many_pictures_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, results = pictures(3)
    run = prepare(truth, results.found)
    whole = bootstrap.resample([run], "s", 20)
    monkeypatch.setattr(bootstrap, "_PICTURES_AT_ONCE", 7)
    assert np.array_equal(bootstrap.resample([run], "s", 20), whole)


def test_many_draws_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, results = pictures(3)
    run = prepare(truth, results.found)
    whole = bootstrap.resample([run, run], "s", 20)
    sizes = []
    draw = bootstrap._draw
    monkeypatch.setattr(bootstrap, "_draw", lambda n, draws, random: sizes.append(draws) or draw(n, draws, random))
    monkeypatch.setattr(bootstrap, "_DRAWS_AT_ONCE", 7)
    assert np.array_equal(bootstrap.resample([run, run], "s", 20), whole)
    assert sizes == [7, 7, 6]
    with pytest.raises(ValueError, match="not from 1 to 100000"):
        bootstrap.resample([run], "s", 300_000)


def test_interval_holds_the_figure_and_narrows_with_pictures() -> None:
    widths = []
    for number in (40, 640):
        truth, results = pictures(4, number)
        board = with_intervals(score(truth, [Entry("a", results)]), 400)
        bounds = board.rows[0].intervals["s"]
        assert bounds.low < bounds.value < bounds.high
        widths.append(bounds.high - bounds.low)
    assert 2.5 < widths[0] / widths[1] < 6.5  # the root of 16 is 4


def test_paired_comparison_sees_what_single_intervals_cannot() -> None:
    truth, better = pictures(5, 200, 0.75)
    # The same run, in which every fortieth box is badly placed.
    worse_boxes = better.boxes.copy()
    worse_boxes[::40, 0] += 50
    worse = Results(better.images, better.counts, worse_boxes, better.scores)
    board = with_intervals(score(truth, [Entry("a", better), Entry("b", worse)]), 400)
    first, second = (row.intervals["s"] for row in board.rows)
    assert second.high > first.low  # they overlap
    difference = board.differences[0, 1]["s"]  # type: ignore[index]
    assert difference.certain
    assert difference.low < difference.value < difference.high
    assert difference.better > 0.99
    same = with_intervals(score(truth, [Entry("a", better), Entry("b", better)]), 50).differences[0, 1]["s"]  # type: ignore[index]
    assert (same.value, same.low, same.high, same.better, same.certain) == (0, 0, 0, 0.5, False)


def test_only_the_same_pictures_are_compared() -> None:
    (truth, results), (other, others) = pictures(6, 10), pictures(6, 11)
    with pytest.raises(ValueError, match="the same pictures"):
        bootstrap.resample([prepare(truth, results.found), prepare(other, others.found)], "s")
    with pytest.raises(ValueError, match="not from 1"):
        bootstrap.resample([prepare(truth, results.found)], "s", 0)


def part(results: Results, pictures_: int) -> Results:
    rows = int(results.counts[:pictures_].sum())
    return Results(results.images[:pictures_], results.counts[:pictures_], results.boxes[:rows], results.scores[:rows])


def test_board_of_runs_on_different_pictures() -> None:
    truth, results = pictures(7)
    board = score(truth, [Entry("whole", results), Entry("part", part(results, 25), 12.5, 630_000, 580_000_000)])
    assert len(board.truth.images) == 25
    assert board.rows[0].curves["s"].ap == board.rows[1].curves["s"].ap
    assert board.notes == (
        "compared on the 25 pictures that all have results for",
        "part: scored on 25 of 40 pictures, as the others have no results:"
        " not comparable with figures of the whole set",
    )
    record = board.to_dict()
    assert (record["pictures"], record["pictures_of_ground_truth"]) == (25, 40)
    assert record["rows"][1]["milliseconds"] == 12.5
    assert record["rows"][0]["ap"]["s"] == round(100 * board.rows[0].curves["s"].ap, 6)
    missed = score(truth, [Entry("whole", results), Entry("part", part(results, 25))], missing="empty")
    assert missed.rows[0].curves["s"].ap > missed.rows[1].curves["s"].ap


def test_board_names_the_run_that_cannot_be_scored() -> None:
    truth, results = pictures(8)
    with pytest.raises(ResultError, match=r"^bad: none of 1 picture"):
        score(
            truth, [Entry("good", results), Entry("bad", Results(("x",), np.array([0]), np.zeros((0, 4)), np.zeros(0)))]
        )
    with pytest.raises(ResultError, match="no picture has results of every detector"):
        last = Results(results.images[-1:], np.array([0]), np.zeros((0, 4)), np.zeros(0))
        score(truth, [Entry("first", part(results, 1)), Entry("last", last)])
    with pytest.raises(ValueError, match="no results to score"):
        score(truth, [])


# Names


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("scrfd_2.5g_kps", "scrfd_2.5g_kps"),
        ("a/scrfd_2.5g_kps.onnx", "scrfd_2.5g_kps"),
        ("w.safetensors", "w"),
        ("w.PTH", "w"),
        ("r.v2.npz", "r.v2"),
        ("runs.v1/", "runs.v1"),
        ("list.txt", "list"),
        (".", "."),
        (".npz", ".npz"),
    ],
)
def test_runs_are_called_after_their_files(source: str, name: str) -> None:
    assert run_name(source) == run_name(Path(source)) == name


def test_names_that_differ() -> None:
    assert distinct(["a", "a", "b", "a", "a (2)"]) == ["a", "a (3)", "b", "a (4)", "a (2)"]


def test_numbers_of_things() -> None:
    assert [plural(n, "box", "boxes") for n in (0, 1, 2000)] == ["0 boxes", "1 box", "2,000 boxes"]


def test_cores_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 8)
    # Items at a time, and threads of the network for each.
    assert [machine.share_cores(None, items) for items in (0, 1, 3, 8, 99)] == [(1, 8), (1, 8), (3, 2), (8, 1), (8, 1)]
    assert [machine.share_cores(jobs, 1000) for jobs in (1, 16, 10**6)] == [(1, 1), (16, 1), (64, 1)]
    assert machine.share_cores(16, 1) == (1, 8)


# Curves


@pytest.fixture(scope="module")
def board() -> Board:
    truth, results = pictures(9)
    _, other = pictures(10, skill=0.3)
    return score(truth, [Entry("good & <fast>", results), Entry("poor", other)])


def test_curves_as_svg(board: Board) -> None:
    data = curves.encode({row.entry.name: row.curves for row in board.rows}, Path("a.SVG"))
    root = ET.fromstring(data)
    words = [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]
    ap = 100 * board.rows[0].curves["s"].ap
    assert f"{ap:.2f}  good & <fast>" in words
    assert {"s", "recall", "precision"} <= set(words)
    lines = list(root.iter("{http://www.w3.org/2000/svg}polyline"))
    longest = max(lines, key=lambda line: len(line.attrib["points"]))
    points = np.array([p.split(",") for p in longest.attrib["points"].split()], float)
    assert (np.diff(points[:, 0]) >= 0).all()  # recall never falls
    assert points[:, 0].min() >= 46
    assert points[:, 0].max() <= 346
    assert b"http" not in data.replace(b"http://www.w3.org/2000/svg", b"")  # nothing is fetched


def test_curves_as_png(board: Board) -> None:
    runs = {f"{i} {'long ' * 12}": row.curves for i in range(9) for row in board.rows}
    picture = Pillow.open(io.BytesIO(curves.encode(runs, Path("a.png"))))
    assert picture.format == "PNG"
    drawing = curves.draw(runs)
    assert picture.size == (2 * drawing.width, 2 * drawing.height)
    colours = {colour for _, colour in picture.getcolors(1 << 24) or []}
    assert (11, 111, 184) in colours  # the first run's
    assert (255, 255, 255) in colours


def test_curves_of_a_run_that_found_nothing() -> None:
    truth, results = pictures(9)
    none = Found(np.zeros(len(truth.images), int), np.zeros((0, 4)), np.zeros(0))
    runs = {"none": average_precision(truth, none), "all": average_precision(truth, results.found)}
    for name in ("a.svg", "a.png"):
        assert len(curves.encode(runs, Path(name))) > 1000


def test_curves_in_other_formats_are_refused(board: Board) -> None:
    with pytest.raises(OptionError, match=r"a\.pdf is neither an \.svg nor a \.png"):
        curves.encode({"a": board.rows[0].curves}, Path("a.pdf"))


# Thresholds in weight files

GOAL = {"precision 0.99": {"score_threshold": 0.61, "precision": 0.99, "recall": 0.4}}


@pytest.fixture(params=[".onnx", ".safetensors"])
def weight_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"w{request.param}"
    shutil.copy(weights.embedded(request.param), path)
    return path


def tensors(path: Path) -> str:
    if path.suffix == ".onnx":
        return onnx.load(path).graph.SerializeToString().hex()
    data, layout = header.read(path, whole=True)
    view = memoryview(data)[layout.offset :]
    return header.digest({k: (e.dtype, e.shape, view[e.start : e.stop]) for k, e in layout.entries.items()})


def test_thresholds_are_kept_beside_untouched_tensors(weight_file: Path) -> None:
    before = tensors(weight_file)
    assert stored.read_thresholds(weight_file) == {}
    weight_file.write_bytes(stored.with_thresholds(weight_file, GOAL))
    assert stored.read_thresholds(weight_file) == GOAL
    once = weight_file.read_bytes()
    assert stored.with_thresholds(weight_file, GOAL) == once
    more = {"recall 0.9": {"score_threshold": 0.2}, "precision 0.99": {"score_threshold": 0.7}}
    weight_file.write_bytes(stored.with_thresholds(weight_file, more))
    assert stored.read_thresholds(weight_file) == more
    assert tensors(weight_file) == before


def test_an_onnx_file_with_thresholds_is_sound(tmp_path: Path) -> None:
    path = tmp_path / "w.onnx"
    path.write_bytes(stored.with_thresholds(weights.embedded(".onnx"), GOAL))
    model, before = onnx.load(path), onnx.load(weights.embedded(".onnx"))
    onnx.checker.check_model(model)
    keys = [entry.key for entry in model.metadata_props]
    assert keys == [*(entry.key for entry in before.metadata_props), "thresholds"]
    assert (model.ir_version, model.opset_import) == (before.ir_version, before.opset_import)


def test_a_weight_file_with_thresholds_still_loads(tmp_path: Path) -> None:
    from scrfdkit.model.checkpoint import load, read_header

    path = tmp_path / "w.safetensors"
    path.write_bytes(stored.with_thresholds(weights.embedded(".safetensors"), GOAL))
    _, info = load(path)  # which checks the sha256 of the tensors
    before = read_header(weights.embedded(".safetensors"))
    assert dict(info.metrics) == {**before.metrics, "thresholds": GOAL}
    assert (info.sha256, info.spec, info.licence) == (before.sha256, before.spec, before.licence)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("w.pth", b"x", "thresholds are stored in .safetensors and .onnx files"),
        ("w.onnx", b"\xff" * 40, "not an ONNX file, or cut short"),
        ("w.onnx", b"\x3a\xff\x01abc", "not an ONNX file, or cut short"),
        ("w.onnx", b"\x07", "not an ONNX file, or cut short"),
        ("w.safetensors", b"\x02" + b"\0" * 7 + b"{}", "no weight file of this package"),
        ("w.safetensors", b"junk", "not a safetensors file"),
    ],
)
def test_files_that_hold_no_thresholds(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightError, match=told):
        stored.with_thresholds(tmp_path / name, GOAL)


def test_thresholds_of_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WeightError, match="cannot be read"):
        stored.read_thresholds(tmp_path / "w.onnx")
