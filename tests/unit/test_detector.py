"""The detector on real photographs with the weights that ship, and on rewritten forms of the same network."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from scrfdkit import Detections, Detector
from scrfdkit.errors import DeviceError, ImageError, ModelError, OptionError, WeightError

FIXED = {"input_size": (640, 640)}


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.open(device="cpu", threads=1)


@pytest.fixture(scope="module")
def solvay(examples: Path) -> np.ndarray:
    return cv2.imread(str(examples / "solvay_1927.jpg"))


def same(a: Detections, b: Detections, pixels: float = 0.0) -> bool:
    return (
        len(a) == len(b)
        and np.abs(a.boxes - b.boxes).max(initial=0) <= pixels
        and np.abs(a.scores - b.scores).max(initial=0) <= 1e-5
        and np.abs(a.keypoints - b.keypoints).max(initial=0) <= pixels
    )


def agree(a: Detections, b: Detections, iou: float = 0.6) -> bool:
    """The same faces, each box of one overlapping one of the other."""
    if len(a) != len(b):
        return False
    low = np.maximum(a.boxes[:, None, :2], b.boxes[None, :, :2])
    high = np.minimum(a.boxes[:, None, 2:], b.boxes[None, :, 2:])
    inner = np.prod(np.clip(high - low, 0, None), axis=2)
    area = [np.prod(d.boxes[:, 2:] - d.boxes[:, :2], axis=1) for d in (a, b)]
    return bool((inner / (area[0][:, None] + area[1] - inner)).max(axis=1).min() > iou)


def test_finds_every_face(detector: Detector, examples: Path) -> None:
    assert len(detector.detect(examples / "astronaut.jpg")) == 1
    faces = detector.detect(examples / "solvay_1927.jpg")
    assert len(faces) == 29
    assert (np.diff(faces.scores) <= 0).all()
    eyes, mouth = faces.keypoints[:, :2], faces.keypoints[:, 3:]
    assert (eyes[:, 0, 0] < eyes[:, 1, 0]).all()
    assert (eyes[:, :, 1].mean(axis=1) < mouth[:, :, 1].mean(axis=1)).all()


def test_every_kind_of_source_gives_the_same(detector: Detector, examples: Path) -> None:
    path = examples / "astronaut.jpg"
    expected = detector.detect(path, fast_decoding=False)
    assert agree(detector.detect(path), expected, iou=0.95)
    for source in (
        str(path),
        path.read_bytes(),
        memoryview(path.read_bytes()),
        cv2.imread(str(path)),
        Pillow.open(path),
    ):
        found = detector.detect(source, fast_decoding=False)
        assert same(found, expected, 0.01 if isinstance(source, Pillow.Image) else 0)


def test_no_faces(detector: Detector) -> None:
    none = detector.detect(np.zeros((200, 300, 3), np.uint8))
    assert none.boxes.shape == (0, 4)
    assert none.scores.shape == (0,)
    assert none.keypoints.shape == (0, 5, 2)
    assert detector.detect_batch([]) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 10000), (10000, 1), (7, 5), (31, 33)])
@pytest.mark.parametrize("size", ["auto", (640, 640), "original", (32, 32)])
def test_extreme_shapes(detector: Detector, shape: tuple[int, int], size: object) -> None:
    faces = detector.detect(np.full((*shape, 3), 128, np.uint8), input_size=size)
    assert np.isfinite(faces.boxes).all()


def test_batch_equals_single(detector: Detector, solvay: np.ndarray, examples: Path) -> None:
    astronaut = cv2.imread(str(examples / "astronaut.jpg"))
    pictures = [
        solvay,
        astronaut,
        solvay[:, ::-1],
        solvay[:500],
        astronaut[:300, 50:],
        solvay[200:900, 300:1200],
        solvay,
    ]
    for options in ({}, FIXED, {"batch_size": 2, **FIXED}, {"input_size": [(640, 640), 320]}):
        together = detector.detect_batch(pictures, **options)
        for picture, faces in zip(pictures, together, strict=True):
            assert same(faces, detector.detect(picture, **options), 1e-3)
    assert all(len(faces) for faces in together)


def test_one_bad_picture_in_a_batch_is_named(detector: Detector, solvay: np.ndarray) -> None:
    with pytest.raises(ImageError, match="absent"):
        detector.detect_batch([solvay, "absent.jpg"])


def test_detect_each_goes_on(detector: Detector, solvay: np.ndarray) -> None:
    first, second, third = detector.detect_each([solvay, "absent.jpg", solvay], score_threshold=0.6)
    assert isinstance(second, ImageError)
    assert same(first, third)
    assert same(first, detector.detect(solvay, score_threshold=0.6))


@pytest.mark.parametrize("picture", ["a.jpg", Path("a.jpg"), b"data", np.zeros((9, 9, 3), np.uint8)])
def test_one_picture_is_no_batch(detector: Detector, picture: object) -> None:
    with pytest.raises(ImageError, match="a list of pictures"):
        detector.detect_batch(picture)


def test_eight_threads_on_one_detector(detector: Detector, solvay: np.ndarray) -> None:
    crops = [np.ascontiguousarray(solvay[: 500 + 20 * i, : 900 + 30 * i]) for i in range(24)]
    expected = [detector.detect(crop) for crop in crops]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(detector.detect, crops))
    assert all(same(a, b) for a, b in zip(found, expected, strict=True))


def test_thresholds(detector: Detector, solvay: np.ndarray) -> None:
    many = detector.detect(solvay, score_threshold=0.02)
    few = detector.detect(solvay, score_threshold=0.8)
    assert len(many) > 29 > len(few) > 0
    assert few.scores.min() >= 0.8
    assert same(many[many.scores >= 0.8], few)
    assert len(detector.detect(solvay, nms_threshold=1.0)) > 29


@pytest.mark.parametrize("rank", ["area", "center"])
def test_max_faces(detector: Detector, solvay: np.ndarray, rank: str) -> None:
    everyone = detector.detect(solvay)
    three = detector.detect(solvay, max_faces=3, rank=rank)
    area = (everyone.boxes[:, 2] - everyone.boxes[:, 0]) * (everyone.boxes[:, 3] - everyone.boxes[:, 1])
    height, width = solvay.shape[:2]
    away = (everyone.boxes[:, :2] + everyone.boxes[:, 2:]) / 2 - (width // 2, height // 2)
    value = area - 2 * (away**2).sum(axis=1) if rank == "center" else area
    assert same(three, everyone[np.argsort(-value)[:3]])
    assert same(detector.detect(solvay, max_faces=100, rank=rank), everyone)


def test_auto_sees_the_same_faces_as_the_square(detector: Detector, solvay: np.ndarray) -> None:
    assert agree(detector.detect(solvay), detector.detect(solvay, **FIXED))
    assert agree(detector.detect(solvay), detector.detect(solvay, input_size=1280))


def test_several_sizes_find_very_large_faces(detector: Detector, examples: Path) -> None:
    astronaut = cv2.imread(str(examples / "astronaut.jpg"))
    x1, y1, x2, y2 = detector.detect(astronaut).boxes[0].astype(int)
    close_up = cv2.resize(astronaut[y1:y2, x1:x2], None, fx=12, fy=12)
    merged = detector.detect(close_up, input_size=[640, 128])
    assert len(merged) == 1
    small = detector.detect(close_up, input_size=128)
    assert same(merged, small) or merged.scores[0] >= small.scores[0]


def test_tiles_find_tiny_faces(detector: Detector, solvay: np.ndarray) -> None:
    tiny = cv2.resize(solvay, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
    canvas = np.full((3000, 4000, 3), 90, np.uint8)
    places = [(0, 0), (1700, 1200), (4000 - tiny.shape[1], 3000 - tiny.shape[0])]
    for x, y in places:
        canvas[y : y + tiny.shape[0], x : x + tiny.shape[1]] = tiny
    assert len(detector.detect(canvas)) < 10
    found = detector.detect(canvas, tile=640)
    for x, y in places:
        inside = found[
            (found.boxes[:, 0] >= x - 5)
            & (found.boxes[:, 1] >= y - 5)
            & (found.boxes[:, 2] <= x + tiny.shape[1] + 5)
            & (found.boxes[:, 3] <= y + tiny.shape[0] + 5)
        ]
        assert len(inside) == 29
    assert len(found) == 29 * 3


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_rotate(detector: Detector, solvay: np.ndarray, turn: int) -> None:
    """A picture that must be turned clockwise by `turn` to stand upright."""
    upright = detector.detect(solvay)
    lying = np.ascontiguousarray(np.rot90(solvay, turn // 90))
    height, width = solvay.shape[:2]
    found = detector.detect(lying, rotate=turn)
    assert same(detector.detect(lying, rotate="auto"), found)
    assert same(detector.detect(solvay, rotate="auto"), upright)
    assert len(detector.detect(lying)) < 29
    x, y = upright.keypoints[..., 0], upright.keypoints[..., 1]
    there = {90: (y, width - x), 180: (width - x, height - y), 270: (height - y, x)}[turn]
    assert np.allclose(found.keypoints, np.stack(there, axis=-1), atol=0.01)
    assert (found.boxes[:, :2] < found.boxes[:, 2:]).all()


def test_fast_decoding_can_be_switched_off(detector: Detector, solvay: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    cv2.imwrite(str(path), cv2.resize(solvay, (3200, 2316), interpolation=cv2.INTER_CUBIC))
    scaled, full = detector.detect(path), detector.detect(path, fast_decoding=False)
    assert not same(scaled, full)
    assert agree(scaled, full)
    assert same(full, detector.detect(cv2.imread(str(path))))
    assert same(detector.detect(path, **FIXED), detector.detect(path, fast_decoding=False, **FIXED))


def test_open_says_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRFDKIT_WEIGHTS", str(tmp_path))
    with pytest.raises(ModelError, match="scrfd_500m_kps"):
        Detector.open("scrfd_5g")
    with pytest.raises(WeightError, match=r"(?s)buffalo_l.zip.*scrfd convert SCRFD_10G_KPS.pth"):
        Detector.open("scrfd_10g_kps")
    with pytest.raises(WeightError, match="no weights were ever published"):
        Detector.open("base_1g")
    with pytest.raises(ModelError, match="no such file"):
        Detector.open("absent.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a network")
    with pytest.raises(ModelError, match=r"broken.onnx"):
        Detector.open(broken)
    for options in ({"device": "tpu"}, {"runtime": "caffe"}, {"threads": 0}, {"score": 0.5}, {"max_faces": -1}):
        with pytest.raises(OptionError):
            Detector.open(**options)
    for options in ({"threads": "4"}, {"threads": 10**9}, {"model": 5}, {"model": b"x"}, {"model": ["a"]}):
        with pytest.raises(OptionError):
            Detector.open(**options)
    with pytest.raises(ModelError, match="is a folder"):
        Detector.open(tmp_path)
    for name in ("", "x" * 5000, "nul\0byte"):
        with pytest.raises(ModelError):
            Detector.open(name)


def test_device_is_told() -> None:
    pytest.importorskip("onnxruntime")
    assert Detector.open(device="cpu").device == "cpu"
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA, so nothing falls back")
    assert Detector.open(device="auto").device == "cpu"
    with pytest.warns(RuntimeWarning, match="cuda was asked for"):
        assert Detector.open(device="cuda").device == "cpu"
    with warnings.catch_warnings(), pytest.raises(DeviceError, match="scrfd doctor"):
        Detector.open(device="cuda", strict_device=True)


def test_options_of_open_are_defaults(solvay: np.ndarray) -> None:
    strict = Detector.open(score_threshold=0.8, max_faces=2)
    assert len(strict.detect(solvay)) == 2
    assert len(strict.detect(solvay, max_faces=0, score_threshold=0.5)) == 29
    assert "score_threshold=0.8" in repr(strict)
