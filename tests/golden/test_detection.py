"""Detections of the official weights on the reference's own test photograph, as the reference's tool gives them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from scrfdkit import Detector

GOLDEN = {  # name: faces at 0.02, best box, its score
    "scrfd_500m": (133, (463.41, 262.84, 575.27, 417.96), 0.90),
    "scrfd_500m_kps": (169, (745.33, 342.20, 847.28, 480.13), 0.88),
    "det_500m": (169, (745.33, 342.20, 847.28, 480.13), 0.88),
    "scrfd_1g": (80, (744.40, 340.70, 846.38, 479.92), 0.90),
    "scrfd_2.5g": (67, (466.74, 266.61, 572.87, 415.35), 0.90),
    "scrfd_2.5g_kps": (118, (745.81, 339.19, 845.65, 480.63), 0.92),
}
EYES_AND_MOUTH = ((760.17, 395.72), (801.92, 401.13), (770.84, 430.72), (763.38, 437.66), (805.56, 441.84))


@pytest.fixture(scope="module")
def photo() -> Path:
    insightface = pytest.importorskip("insightface", reason="its package carries the photograph")
    path = Path(insightface.__file__).parent / "data" / "images" / "t1.jpg"
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert digest.startswith("47f682e9") and digest.endswith("fd69489"), "not the photograph of the golden numbers"
    return path


@pytest.mark.parametrize("name", GOLDEN)
def test_official_weights(name: str, photo: Path, shared: Path) -> None:
    detector = Detector.open(shared / "weights" / "official" / f"{name}.onnx", input_size=(640, 640), device="cpu")
    number, box, score = GOLDEN[name]
    faces = detector.detect(photo, score_threshold=0.02)
    assert len(faces) == number
    assert np.allclose(faces.boxes[0], box, atol=0.006)
    assert faces.scores[0] == pytest.approx(score, abs=0.006)
    if name == "scrfd_2.5g_kps":
        assert np.allclose(faces.keypoints[0], EYES_AND_MOUTH, atol=0.006)
    for size in ((640, 640), (320, 320)):
        assert len(detector.detect(photo, input_size=size)) == 6
