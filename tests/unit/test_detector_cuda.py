"""The detector on a CUDA device: the same faces as on the CPU, one at a time and in batches."""

from __future__ import annotations

import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest

from scrfdkit import Detector

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def pair() -> tuple[Detector, Detector]:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cuda = Detector.open(runtime="pytorch", device="cuda", strict_device=True)
    return cuda, Detector.open(runtime="pytorch", device="cpu")


def test_device_is_told(pair: tuple[Detector, Detector]) -> None:
    assert pair[0].device == "cuda"
    assert Detector.open(runtime="pytorch", device="auto").device == "cuda"


@pytest.mark.parametrize("size", ["auto", (640, 640), 1280, [(640, 640), 320]])
def test_same_faces_as_on_the_cpu(pair: tuple[Detector, Detector], size: object, examples: Path) -> None:
    for path in sorted(examples.glob("*.jpg")):
        on_cuda, on_cpu = (detector.detect(path, input_size=size) for detector in pair)
        assert len(on_cuda) == len(on_cpu) > 0
        assert np.abs(on_cuda.boxes - on_cpu.boxes).max() < 0.05
        assert np.abs(on_cuda.scores - on_cpu.scores).max() < 1e-3
        assert np.abs(on_cuda.keypoints - on_cpu.keypoints).max() < 0.05


def test_batch_equals_single(pair: tuple[Detector, Detector], examples: Path) -> None:
    solvay = cv2.imread(str(examples / "solvay_1927.jpg"))
    pictures = [np.ascontiguousarray(np.roll(solvay, 40 * i, axis=1)) for i in range(32)]
    together = pair[0].detect_batch(pictures, batch_size=32)
    for picture, faces in zip(pictures, together, strict=True):
        alone = pair[0].detect(picture)
        assert len(faces) == len(alone)
        assert np.abs(faces.boxes - alone.boxes).max() < 0.05
