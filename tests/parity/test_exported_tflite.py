"""TFLite files of real networks find the faces that the weights find, in every precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from export_files import Done, export

from scrfdkit import Detections, Detector, image, weights
from scrfdkit.export.contract import Contract
from scrfdkit.export.source import open_source

pytest.importorskip("litert_torch")

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning", "ignore:.*:FutureWarning"),
    pytest.mark.slow,
]

CONTRACT = Contract(size=(640, 640), batch=1)
FAR = {"fp32": 0.01, "fp16": 1.0, "int8": 2.5}
"""Pixels that a box's edge may be away, in photographs of 640 pixels: an edge of a box has some 40."""


def same(found: Detections, wanted: Detections, far: float) -> None:
    """Every sure face is found, at its place."""
    sure = wanted[wanted.scores >= 0.5]
    away = np.abs(found.boxes[:, None] - sure.boxes).max(axis=2)
    assert (away.min(axis=0) <= far).all()


def calibration(shared: Path) -> tuple[Path, ...]:
    return tuple(sorted((shared / "data/widerface/train/images").rglob("*.jpg"))[::40])


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_embedded_weights(precision: str, tmp_path: Path, examples: Path) -> None:
    source = open_source(weights.embedded(".safetensors"))
    done = export(source, tmp_path / "face.tflite", CONTRACT, to="tflite", precision=precision)
    ours, theirs = Detector.open(done.path, threads=1), Detector.open(device="cpu")
    assert done.certificate.metadata["name"] == ours.runtime.metadata["name"] == "scrfd_500m_kps"
    for photo in sorted(examples.glob("*.jpg")):
        picture = image.load(photo)
        scale = max(picture.width, picture.height) / 640
        wanted = theirs.detect(photo, input_size=(640, 640))
        same(ours.detect(photo, score_threshold=0.4), wanted, FAR[precision] * scale)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("name", ["scrfd_500m_kps", "scrfd_2.5g", "scrfd_2.5g_kps", "scrfd_1g"])
def test_official_weights(name: str, precision: str, shared: Path, tmp_path: Path) -> None:
    """scrfd_2.5g and scrfd_1g have group norms."""
    original = shared / "weights" / "official" / f"{name}.onnx"
    pictures = calibration(shared) if precision == "int8" else ()
    done: Done = export(
        open_source(original),
        tmp_path / "face.tflite",
        CONTRACT,
        to="tflite",
        precision=precision,
        calibration=pictures,
    )
    ours, theirs = Detector.open(done.path), Detector.open(original, device="cpu")
    photos = sorted((shared / "data/widerface/val/images").rglob("*.jpg"))[::40]
    found = missed = 0
    for photo in photos:
        picture = image.load(photo)
        scale = max(1.0, max(picture.width, picture.height) / 640)
        answer = ours.detect(photo, score_threshold=0.35)
        wanted = theirs.detect(photo, input_size=(640, 640), score_threshold=0.5)
        for index in range(len(wanted)):
            box = wanted.boxes[index]
            far = FAR[precision] * scale + (0.08 * float((box[2:] - box[:2]).max()) if precision == "int8" else 0.0)
            near = np.abs(answer.boxes - box).max(axis=1, initial=0.0) <= far
            found, missed = found + bool(near.any()), missed + (not near.any())
    assert found > 20
    assert missed <= (0 if precision != "int8" else found // 50)
