"""With a fixed input size, the detections of the `insightface` package on the same file, on every photo at hand."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from scrfdkit import Detector, weights

OFFICIAL = ("scrfd_500m", "scrfd_500m_kps", "scrfd_1g", "scrfd_2.5g", "scrfd_2.5g_kps", "det_500m")


def peer(path: Path, threshold: float) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        zoo = pytest.importorskip("insightface.model_zoo")
        # By default insightface rewrites the graph for one size; that can change a last bit, and with it which of two
        # faces of equal score comes first: two boxes in one of 2,406 pairs of photo and network. As the file is,
        # nothing differs.
        model = zoo.get_model(str(path), providers=["CPUExecutionProvider"], static_shape_sessions=False)
        model.prepare(ctx_id=-1, input_size=(640, 640), det_thresh=threshold)
    return model


def compare(path: Path, photos: list[Path], threshold: float) -> int:
    theirs, ours = peer(path, threshold), Detector.open(path, device="cpu", input_size=(640, 640))
    total = 0
    for photo in photos:
        picture = cv2.imread(str(photo))
        boxes, points = theirs.detect(picture, input_size=(640, 640))
        faces = ours.detect(photo, score_threshold=threshold)
        assert len(faces) == len(boxes), photo
        # Faces of nearly equal score may come in either order, so pairs are found by place.
        away = np.abs(faces.boxes[:, None] - boxes[None, :, :4]).max(axis=2, initial=0)
        other = away.argmin(axis=1) if len(boxes) else np.zeros(0, int)
        assert len(set(other)) == len(boxes), photo
        assert away.min(axis=1, initial=np.inf if len(boxes) else 0).max(initial=0) <= 0.01, photo
        assert np.abs(faces.scores - boxes[other, 4]).max(initial=0) <= 1e-5, photo
        assert (points is None) == (faces.keypoints is None)
        if points is not None:
            assert np.abs(faces.keypoints - points[other]).max(initial=0) <= 0.01, photo
        total += len(faces)
    return total


def test_embedded_weights(examples: Path) -> None:
    assert compare(weights.embedded(), sorted(examples.glob("*.jpg")), 0.02) > 30


@pytest.mark.parametrize("name", OFFICIAL)
def test_official_weights(name: str, shared: Path) -> None:
    photos = sorted((shared / "data/widerface/val/images").rglob("*.jpg"))[::20]
    assert len(photos) >= 20
    assert compare(shared / "weights" / "official" / f"{name}.onnx", photos, 0.02) > 500


@pytest.mark.slow
@pytest.mark.parametrize("name", OFFICIAL)
def test_official_weights_on_every_photo(name: str, shared: Path) -> None:
    photos = sorted((shared / "data/widerface/val/images").rglob("*.jpg"))
    assert compare(shared / "weights" / "official" / f"{name}.onnx", photos, 0.02) > 10_000


@pytest.mark.parametrize("rank", ["area", "center"])
def test_max_faces(rank: str, examples: Path) -> None:
    photo = examples / "solvay_1927.jpg"
    theirs = peer(weights.embedded(), 0.5)
    metric = {"area": "max", "center": "default"}[rank]
    boxes, points = theirs.detect(cv2.imread(str(photo)), input_size=(640, 640), max_num=7, metric=metric)
    faces = Detector.open(input_size=(640, 640)).detect(photo, max_faces=7, rank=rank)
    assert np.abs(faces.boxes - boxes[:, :4]).max() <= 0.01
    assert np.abs(faces.keypoints - points).max() <= 0.01
