"""`scrfd eval` and `scrfd calibrate` as their users run them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from wider_files import FIRST, SECOND, write_ground_truth, write_pictures, write_results

from scrfdkit import Detector, weights
from scrfdkit.data import formats
from scrfdkit.data.labels import LabelledImage
from scrfdkit.evaluate import results
from scrfdkit.evaluate.stored import read_thresholds
from scrfdkit.evaluate.widerface import average_precision, read_ground_truth

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}


def scrfd(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scrfdkit", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=120, check=False)


@pytest.fixture
def wider(tmp_path: Path) -> Path:
    """A tiny WIDER FACE with two runs' results."""
    write_ground_truth(tmp_path / "gt")
    write_pictures(tmp_path / "images")
    write_results(tmp_path / "first.npz", FIRST)
    write_results(tmp_path / "second.npz", SECOND)
    return tmp_path


def test_board_of_two_runs(wider: Path) -> None:
    done = scrfd(
        *("eval", "widerface", "--gt", wider / "gt", "--detections", wider / "first.npz"),
        *("--detections", wider / "second.npz", "--bootstrap", "50", "--rough"),
        *("--curves", wider / "out/c.svg", "--curves", wider / "out/c.png", "--json"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads(done.stdout)
    assert (record["pictures"], record["faces"]["hard"]) == (3, 4)
    truth = read_ground_truth(wider / "gt")
    for row in record["rows"]:
        some, found, _ = results.align(truth, results.read(wider / f"{row['name']}.npz"))
        curves = average_precision(some, found)
        assert row["ap"] == {setting: round(100 * curve.ap, 6) for setting, curve in curves.items()}
        low, high = row["interval"]["hard"]
        assert low <= high
    assert [(d["first"], d["second"]) for d in record["differences"]] == [("first", "second")]
    assert set(record["rough"]["first"]) == {
        *(
            "IoU 0.3",
            "middle inside",
            "faces from 16 px",
            "faces from 32 px",
            "faces from 64 px",
            "yes or no a picture",
        ),
    }
    assert record["rough"]["first"]["IoU 0.3"]["hard"] > record["rows"][0]["ap"]["hard"]
    assert (wider / "out/c.svg").read_text().startswith("<svg")
    with Pillow.open(wider / "out/c.png") as picture:
        assert picture.format == "PNG"


def test_tables(wider: Path) -> None:
    done = scrfd(
        *("eval", "widerface", "--gt", wider / "gt", "--detections", wider / "first.npz"),
        *("--detections", wider / "second.npz", "--bootstrap", "50", "--rough"),
    )
    assert done.returncode == 0
    assert "AP in percent on 3 of 3 pictures; faces: 4 easy, 4 medium, 4 hard" in done.stdout
    for words in ("first less second", "yes or no a picture", "1/3 right at 0.5", "3/3 right at 0.5", "["):
        assert words in done.stdout


def test_oddities_are_told(wider: Path) -> None:
    odd = dict(FIRST)
    odd.pop("12--Group_Photo/c")
    odd["x/y"] = [(float("nan"), 0, 1, 1, 0.5)]
    odd["0--Party/b"] = [(0, 0, 5, 5, float("nan")), (0, 0, -5, 5, 0.4)]
    done = scrfd("eval", "widerface", "--gt", wider / "gt", "--detections", write_results(wider / "odd.npz", odd))
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "warning: scored on 2 of 3 pictures, as the others have no results:"
        " not comparable with figures of the whole set",
        "warning: left out: results of 1 picture that the ground truth does not have",
        "warning: left out: 1 detection whose score is not a finite number",
        "warning: counted as false alarms: 1 box of negative width or height",
    ]
    assert "on 2 of 3 pictures" in done.stdout


def test_model_on_the_pictures_that_are_there(wider: Path) -> None:
    (wider / "images/12--Group_Photo/c.jpg").unlink()
    model = weights.embedded()
    done = scrfd(
        *("eval", "widerface", "--data", wider, "--model", model, "--mode", "320"),
        *("--save-detections", wider / "kept", "--missing", "empty", "--json"),
    )
    assert done.returncode == 0
    row = json.loads(done.stdout)["rows"][0]
    assert row["name"] == model.stem
    assert row["milliseconds"] > 0
    assert 0.6e6 < row["parameters"] < 0.7e6
    assert row["notes"][0] == "1 of 3 pictures without results: their faces count as missed"
    assert sorted(p.name for p in (wider / "kept/0--Party").iterdir()) == ["a.txt", "b.txt"]
    again = scrfd(
        "eval", "widerface", "--gt", wider / "gt", "--detections", wider / "kept", "--missing", "empty", "--json"
    )
    assert json.loads(again.stdout)["rows"][0]["ap"] == row["ap"]


WRONG: list[tuple[Sequence[str], str]] = [
    (["--gt", "gt"], "--model or --detections: nothing to score"),
    (["--detections", "first.npz"], "--gt: name the folder"),
    (["--gt", "gt", "--model", "scrfd_500m_kps"], "--data: a model needs pictures"),
    (["--gt", "images", "--detections", "first.npz"], "wider_face_val.mat: there is no such file"),
    (["--gt", "gt", "--detections", "nothing"], "nothing: there is no such file or folder"),
    (["--gt", "gt", "--detections", "broken"], "a.txt:2: says 3 faces, but 1 line after it"),
    (["--gt", "gt", "--detections", "first.npz", "--curves", "c.pdf"], "c.pdf is neither"),
    (["--gt", "gt", "--detections", "first.npz", "--save-detections", "x"], "--save-detections keeps"),
    (["--data", ".", "--model", "scrfd_500m_kps", "--mode", "wide"], "--mode: 'wide' is not"),
    (["--data", "gt", "--model", "scrfd_500m_kps"], "holds none of the ground truth's pictures"),
    (["--gt", "gt", "--detections", "first.npz", "--mode", "abc"], "--mode: 'abc' is not"),
    (["--gt", "gt", "--detections", "part.npz", "--missing", "error"], "part.npz: 1 of 3 pictures without results"),
]


@pytest.mark.parametrize(("arguments", "told"), WRONG, ids=[told for _, told in WRONG])
def test_mistakes_are_one_line(
    wider: Path, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str], told: str
) -> None:
    monkeypatch.chdir(wider)
    (wider / "broken/e").mkdir(parents=True)
    (wider / "broken/e/a.txt").write_text("a\n3\n1 2 3 4 0.5\n")
    write_results(wider / "part.npz", {name: FIRST[name] for name in list(FIRST)[:2]})
    done = scrfd("eval", "widerface", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory, examples: Path) -> Path:
    """Two photographs, labelled by the detector itself; one more label has no picture."""
    folder = tmp_path_factory.mktemp("album")
    labels = []
    detector = Detector.open(device="cpu", threads=1)
    for name in ("astronaut.jpg", "solvay_1927.jpg"):
        shutil.copy(examples / name, folder / name)
        faces = detector.detect(folder / name, input_size=640)
        assert faces.keypoints is not None
        points = np.concatenate([faces.keypoints, np.ones((len(faces), 5, 1), np.float32)], axis=2)
        with Pillow.open(folder / name) as picture:
            width, height = picture.size
        labels.append(LabelledImage(name, width, height, faces.boxes, np.zeros(len(faces), bool), points))
    labels.append(LabelledImage("gone.jpg", 9, 9, np.array([[1, 1, 5, 5]], np.float32), np.zeros(1, bool), points[:1]))
    formats.write(labels, folder / "labelv2.txt", "labelv2")
    return folder


def test_own_labels(album: Path) -> None:
    done = scrfd(
        "eval", "labels", "--labels", album / "labelv2.txt", "--images", album, "--model", weights.embedded(), "--json"
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["pictures"], record["pictures_of_ground_truth"]) == (2, 3)
    (row,) = record["rows"]
    # Labels are the same network's faces from 0.5 on, found with other padding.
    assert row["ap"]["all"] > 95
    landmarks = record["landmarks"][row["name"]]
    assert landmarks["mean"] < 0.03
    assert landmarks["faces"] + landmarks["missed"] == record["faces"]["all"]
    assert landmarks["missed"] <= 2
    words = ("eval", "labels", "--labels", album / "labelv2.txt", "--images", album)
    table = scrfd(*words, "--model", weights.embedded(), "--coco")
    assert "landmark error in distances between the eyes" in table.stdout
    assert "keypoint_AP50" in table.stdout
    coco = json.loads(scrfd(*words, "--model", weights.embedded(), "--coco", "--json").stdout)["coco"][row["name"]]
    assert coco["AP50"] > 0.95
    assert coco["AP_large"] is None or coco["AP_large"] <= 1


def test_same_name_twice(album: Path, tmp_path: Path) -> None:
    """Every run keeps its own landmark error and COCO table under its own name."""
    shutil.copy(weights.embedded(), tmp_path / "same.onnx")
    (tmp_path / "b").mkdir()
    shutil.copy(weights.embedded(), tmp_path / "b/same.onnx")
    results_ = results.to_npz(
        results.collect(["astronaut"], [Detector.open(device="cpu").detect(album / "astronaut.jpg")])
    )
    (tmp_path / "same.npz").write_bytes(results_)
    done = scrfd(
        *("eval", "labels", "--labels", album / "labelv2.txt", "--images", album, "--coco", "--json"),
        *("--model", tmp_path / "same.onnx", "--model", tmp_path / "b/same.onnx", "--mode", "320"),
        *("--detections", tmp_path / "same.npz"),
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert [row["name"] for row in record["rows"]] == ["same", "same (2)", "same (3)"]
    assert set(record["landmarks"]) == set(record["coco"]) == {"same (2)", "same (3)"}


def test_labels_that_are_not_read_or_never_found_are_counted(album: Path, tmp_path: Path) -> None:
    """And pictures that cannot be read are left out, in YOLO's layout of folders."""
    (tmp_path / "labels").mkdir()
    (tmp_path / "images").mkdir()
    shutil.copy(album / "astronaut.jpg", tmp_path / "images/a.jpg")
    whole = (album / "solvay_1927.jpg").read_bytes()
    (tmp_path / "images/cut.jpg").write_bytes(whole[:600])
    labels = tmp_path / "labels/set.csv"
    (x1, y1, x2, y2) = Detector.open(device="cpu").detect(album / "astronaut.jpg").boxes[0].tolist()
    labels.write_text(
        "file,width,height,x1,y1,x2,y2\n"
        f"a.jpg,512,512,{x1},{y1},{x2},{y2}\n"
        "a.jpg,512,512,50,50,20,20\na.jpg,512,512,900,900,950,950\ncut.jpg,100,100,1,1,9,9\n"
    )
    told = [
        "left out: 1 labelled box without width or height",
        "left out: 1 labelled box wholly outside the picture",
        "left out: 1 picture that cannot be read, ",
    ]
    done = scrfd("eval", "labels", "--labels", labels, "--model", weights.embedded(), "--mode", "320", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    assert (record["faces"]["all"], record["rows"][0]["ap"]["all"]) == (1, 100)
    assert all(any(note.startswith(words) for note in record["notes"]) for words in told), record["notes"]
    assert any("cut.jpg" in note for note in record["notes"])
    done = scrfd("calibrate", "--labels", labels, "--format", "csv", "--recall", "1")
    assert done.returncode == 0, done.stderr
    assert all(f"warning: {words}" in done.stderr for words in told)
    assert "on 1 picture with 1 face," in done.stdout


def test_what_a_format_holds_and_labels_do_not_is_told(album: Path, tmp_path: Path) -> None:
    box = {"bbox": [10, 10, 20, 20], "image_id": 1, "iscrowd": 0}
    content = {
        "images": [{"id": 1, "file_name": "astronaut.jpg", "width": 512, "height": 512}],
        "annotations": [{"id": 1, "category_id": 1, **box}, {"id": 2, "category_id": 2, **box}],
        "categories": [{"id": 1, "name": "face"}, {"id": 2, "name": "car"}],
    }
    (tmp_path / "c.json").write_text(json.dumps(content))
    reading = formats.scan(tmp_path / "c.json", strict=True)
    assert reading.not_read
    results_ = results.Results(("astronaut",), np.array([1]), np.array([[10.0, 10, 20, 20]]), np.ones(1))
    (tmp_path / "r.npz").write_bytes(results.to_npz(results_))
    done = scrfd("eval", "labels", "--labels", tmp_path / "c.json", "--detections", tmp_path / "r.npz")
    assert done.returncode == 0, done.stderr
    for what, number in reading.not_read.items():
        assert f"warning: not read: {number} x {what}" in done.stderr.splitlines()


def test_too_many_draws_are_refused(wider: Path) -> None:
    done = scrfd(
        *("eval", "widerface", "--gt", wider / "gt", "--detections", wider / "first.npz", "--bootstrap", "300000")
    )
    assert done.returncode == 2
    assert "--bootstrap" in done.stderr


def test_coco_needs_a_model(album: Path, tmp_path: Path) -> None:
    words = ("eval", "labels", "--labels", album / "labelv2.txt", "--images", album)
    done = scrfd(*words, "--detections", tmp_path, "--coco")
    assert done.returncode == 2
    assert "--coco" in done.stderr


def test_threshold_is_found_and_kept(album: Path, tmp_path: Path) -> None:
    target = tmp_path / "mine.onnx"
    done = scrfd(
        *(
            "calibrate",
            "--labels",
            album / "labelv2.txt",
            "--images",
            album,
            "--model",
            weights.embedded(),
            "--size",
            "640",
        ),
        *("--precision", "0.99", "--recall", "0.9", "--output", target, "--json"),
    )
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    found = record["thresholds"]["precision 0.99"]
    assert found["precision"] >= 0.99
    # The labels are all faces from 0.5 on, so the worst of them is where everything above is right.
    detector = Detector.open(device="cpu", threads=1)
    worst = [
        detector.detect(album / name, input_size=640).scores.min() for name in ("astronaut.jpg", "solvay_1927.jpg")
    ]
    assert found["score_threshold"] == pytest.approx(min(worst), abs=1e-4)
    assert found["recall"] == 1
    kept = read_thresholds(target)
    assert kept["precision 0.99"]["score_threshold"] == found["score_threshold"]
    assert kept["recall 0.9"]["pictures"] == record["pictures"] == 2
    again = Detector.open(target, device="cpu", threads=1).detect(album / "astronaut.jpg")
    assert len(again) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "--precision or --recall: say what is wanted"),
        (["--precision", "0.9"], "--data or --labels: name one"),
        (["--precision", "0.9", "--labels", "x", "--store", "--output", "y.onnx"], "--store and --output: one keeps"),
        (["--precision", "0.9", "--labels", "x", "--output", "extra.txt"], "extra.txt is there already; --force"),
        (["--precision", "0.9", "--labels", "x", "--output", "."], "--output: . is a folder"),
        (["--precision", "0.9", "--labels", "extra.txt", "--format", "word"], "--format: 'word' is not one of"),
        (["--precision", "0.9", "--labels", "labelv2.txt", "--store"], "--store: the embedded weights are part"),
        (["--precision", "0.9", "--labels", "labelv2.txt", "--output", "x.safetensors"], "give it the suffix .onnx"),
        (["--recall", "1.0", "--labels", "extra.txt"], "no threshold gives a recall of 1; all detections together"),
    ],
)
def test_mistakes_of_calibrate(
    album: Path, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str], told: str
) -> None:
    monkeypatch.chdir(album)
    Path("extra.txt").write_text("# astronaut.jpg 512 512\n1 1 4 4\n")
    done = scrfd("calibrate", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
