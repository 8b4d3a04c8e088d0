"""A small labelled set for tests of training: cut from the project's own photographs, labelled by its own detector."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from scrfdkit import Detector, image
from scrfdkit.data import formats
from scrfdkit.data.labels import LabelledImage

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"

# Left, top and side of windows: one large face, and groups of two to six smaller ones.
_ASTRONAUT = ((40, 0, 380), (100, 10, 260))
_SOLVAY = ((60, 520, 300), (340, 410, 300), (720, 430, 280), (960, 430, 280), (1190, 390, 300), (560, 440, 240))


def make(folder: Path, side: int = 320) -> Path:
    """Eight pictures of `side` pixels with 38 faces or so, and their landmarks: folder/labelv2.txt, folder/images."""
    detector = Detector.open(device="cpu", score_threshold=0.5)
    labels = []
    for name, windows in (("astronaut", _ASTRONAUT), ("solvay_1927", _SOLVAY)):
        photo = image.load(EXAMPLES / f"{name}.jpg").pixels
        faces = detector.detect(photo, input_size=1280)
        assert faces.keypoints is not None
        for number, (left, top, window) in enumerate(windows):
            scale = side / window
            middle = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2 - (left, top)
            inside = ((middle > 0) & (middle < window)).all(axis=1)
            boxes = (faces.boxes[inside] - np.array([left, top, left, top])) * scale
            points = (faces.keypoints[inside] - (left, top)) * scale
            cut = cv2.resize(photo[top : top + window, left : left + window], (side, side))
            path = f"{name}_{number}.jpg"
            (folder / "images").mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / "images" / path), cut)
            visible = np.concatenate([points, np.ones((len(points), 5, 1))], axis=2).astype(np.float32)
            ignore = np.zeros(len(boxes), bool)
            labels.append(LabelledImage(path, side, side, boxes.astype(np.float32), ignore, visible))
    formats.write(labels, folder / "labelv2.txt", "labelv2")
    return folder
