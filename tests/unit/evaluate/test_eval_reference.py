"""The road of published figures, against what the reference is known to do at every turn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow

from scrfdkit import image
from scrfdkit.detector import Detector
from scrfdkit.errors import ImageError, OptionError
from scrfdkit.evaluate import reference
from scrfdkit.evaluate.run import gt_folder, run, wider_pictures
from scrfdkit.evaluate.widerface import GroundTruth, GroundTruthError
from scrfdkit.types import Detections


@pytest.mark.parametrize(
    ("text", "mode"),
    [("vga", (640, 640)), ("VGA", (640, 640)), ("original", None), ("320", (320, 320)), ("640x480", (640, 480))],
)
def test_modes(text: str, mode: tuple[int, int] | None) -> None:
    assert reference.parse_mode(text) == mode


@pytest.mark.parametrize("text", ["", "big", "0", "16", "99999", "640x", "640x480x3", "-640", "６４０"])
def test_modes_that_are_none(text: str) -> None:
    with pytest.raises(OptionError, match="--mode"):
        reference.parse_mode(text)


def test_sizes_are_rounded_half_up_and_each_axis_has_its_scale() -> None:
    placement = reference.place(1024, 676, (640, 640))  # 422.5, whose even neighbour is 422
    assert placement.size == (640, 423)
    assert placement.canvas == (640, 640)
    assert placement.scale == (640 / 1024, 423 / 676)
    assert reference.place(100, 50, (640, 640)).size == (640, 320)  # small pictures are enlarged
    assert reference.place(1, 4000, (640, 640)).size == (1, 640)
    assert reference.place(1000, 1000, (640, 480)).size == (480, 480)
    original = reference.place(1001, 31, None)
    assert (original.size, original.canvas, original.scale) == ((1001, 31), (1024, 32), (1, 1))
    assert reference.place(100, 100, (100, 100)).canvas == (128, 128)


class OneLevel:
    """A network of one anchor a cell whose outputs are given for every cell, and that keeps what it is shown."""

    device = "cpu"
    batch_size: int | None = 1

    def __init__(self, rows: dict[tuple[int, int], tuple[float, list[float]]], size: tuple[int, int] | None = None):
        self.rows, self.input_size, self.metadata, self.seen = rows, size, {}, []  # type: ignore[var-annotated]

    def run(self, blob: np.ndarray) -> list[np.ndarray]:
        self.seen.append(blob.copy())
        outputs: list[list[np.ndarray]] = [[], []]
        for stride in (8, 16, 32):
            down, across = blob.shape[2] // stride, blob.shape[3] // stride
            scores, boxes = np.zeros((down, across, 2, 1), np.float32), np.zeros((down, across, 2, 4), np.float32)
            if stride == 8 and len(self.seen) > 1:  # the first picture is the blank one of Detector itself
                for (y, x), (score, box) in self.rows.items():
                    scores[y, x, 0], boxes[y, x, 0] = score, box
            outputs[0].append(scores.reshape(1, -1, 1))
            outputs[1].append(boxes.reshape(1, -1, 4))
        return [*outputs[0], *outputs[1]]


def test_threshold_clamp_and_suppression() -> None:
    two = np.float32(0.02)
    network = OneLevel(
        {
            (1, 1): (0.9, [9, 9, 2, 2]),  # reaches out of the picture: cut to 0..24
            (4, 4): (float(two), [1, 1, 1, 1]),  # not above the threshold
            (4, 6): (float(np.nextafter(two, np.float32(1))), [1, 1, 1, 1]),
            (12, 4): (0.5, [2, 2, 2, 2]),  # reaches below the picture, into the padding
            (13, 4): (0.4, [2, 2, 2, 2]),
        }
    )
    detector = Detector(network)
    picture = np.full((50, 64, 3), 200, np.uint8)
    found = reference.detect(detector, picture, (128, 128))
    # Resized to 128 x 100: scale 2. The fifth box is cut to 16 rows less 4, the fourth to 20; IoU 12 / 20 > 0.45.
    assert found.boxes.tolist() == [[0, 0, 12, 12], [8, 40, 24, 50], [20, 12, 28, 20]]
    assert found.scores.tolist() == pytest.approx([0.9, 0.5, 0.02])
    blob = network.seen[-1]
    assert blob.shape == (1, 3, 128, 128)
    assert np.unique(blob[0, :, 100:]).tolist() == [0]  # grey
    assert np.unique(blob[0, :, :100]).tolist() == [(200 - 127.5) / 128]


def test_overlap_is_taken_without_an_extra_pixel() -> None:
    # 8 x 8 boxes shifted by 3: IoU 40 / 88 = 0.4545 > 0.45; with an extra pixel 54 / 108 = 0.5; by 3.1: 0.4414.
    for shift, left in ((3 / 8, 1), (3.1 / 8, 2)):
        rows = {(2, 2): (0.9, [0.0, 0, 1, 1]), (2, 3): (0.8, [1 - shift, 0, shift, 1])}
        network = OneLevel(rows)
        found = reference.detect(Detector(network), np.zeros((64, 64, 3), np.uint8), None)
        assert len(found) == left


def test_network_of_fixed_size() -> None:
    network = OneLevel({}, (128, 128))
    detector = Detector(network)
    assert len(reference.detect(detector, np.zeros((50, 64, 3), np.uint8), (128, 128))) == 0
    with pytest.raises(OptionError, match=r"--mode: 640x640 is needed for array, but .* takes 128x128 only"):
        reference.detect(detector, np.zeros((50, 64, 3), np.uint8))


def test_bad_picture() -> None:
    with pytest.raises(ImageError, match="no such file"):
        reference.of_detector(Detector(OneLevel({})))(Path("missing.jpg"))


def test_run_goes_through_pictures_in_order(tmp_path: Path) -> None:
    files = [tmp_path / f"{i}.jpg" for i in range(3)]
    seen: list[int] = []

    def detect(path: Path) -> Detections:
        n = int(path.stem)
        return Detections(np.full((n, 4), n, np.float32), np.full(n, 0.5, np.float32))

    result = run(["a", "b", "c"], files, detect, progress=seen.append)
    assert (result.results.images, result.results.counts.tolist()) == (("a", "b", "c"), [0, 1, 2])
    assert seen == [1, 2, 3]
    assert [len(found) for found in result.detections] == [0, 1, 2]
    assert 0 < result.milliseconds < 100


def test_pictures_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    for name in ("a.png", "c.png"):
        Pillow.new("RGB", (9, 9)).save(tmp_path / name)
    (tmp_path / "b.png").write_bytes(b"none")
    files = [tmp_path / name for name in ("a.png", "b.png", "c.png")]

    def detect(file: Path) -> Detections:
        image.load(file)
        return Detections(np.ones((1, 4), np.float32), np.full(1, 0.5, np.float32))

    result = run(["a", "b", "c"], files, detect)
    assert (result.results.images, result.places, len(result.detections)) == (("a", "c"), (0, 2), 2)
    (note,) = result.results.notes
    assert note.startswith(f"left out: 1 picture that cannot be read, {files[1]}")
    with pytest.raises(ImageError, match=r"b\.png"):
        run(["b"], files[1:2], detect)


@pytest.mark.parametrize("place", ["val/images", "WIDER_val/images", "images", "."])
def test_pictures_are_found_where_people_put_them(tmp_path: Path, place: str) -> None:
    truth = GroundTruth(("e/a", "e/b.c", "f/d"), np.array([0, 0, 0]), np.zeros((0, 4)), {})
    folder = tmp_path / place
    (folder / "e").mkdir(parents=True)
    for name in ("e/b.c.jpg", "e/a.png", "e/x.jpg", "e/notes.txt"):
        (folder / name).write_bytes(b"x")
    names, files = wider_pictures(tmp_path, truth)
    assert (names, files) == (("e/a", "e/b.c"), (folder / "e/a.png", folder / "e/b.c.jpg"))


def test_no_pictures_and_no_ground_truth(tmp_path: Path) -> None:
    truth = GroundTruth(("e/a",), np.array([0]), np.zeros((0, 4)), {})
    with pytest.raises(GroundTruthError, match=r"e/a\.jpg, for one, must lie in it"):
        wider_pictures(tmp_path, truth)
    with pytest.raises(GroundTruthError, match="name its folder with --gt DIR"):
        gt_folder(tmp_path)
