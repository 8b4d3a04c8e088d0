"""Faces of two detectors in the same pictures: what is the same, what is missing, and by how much it differs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from scrfdkit import Detections, Detector
from scrfdkit.export.agreement import Agreement, agreement


class Fixed(Detector):
    """A detector whose faces are changed on their way out."""

    def __init__(self, real: Detector, change: Callable[[Detections], Detections]) -> None:
        super().__init__(real.runtime)
        self.change = change

    def detect(self, picture: Any, **options: Any) -> Detections:
        return self.change(super().detect(picture, **options))


def shifted(faces: Detections) -> Detections:
    return faces.shift(0.5, -0.25)


def worst_left_out(faces: Detections) -> Detections:
    return faces[np.arange(len(faces)) != int((faces.scores >= 0.5).sum()) - 1]


def twice_as_wide(faces: Detections) -> Detections:
    return faces.scale(2, 1)


def nothing(faces: Detections) -> Detections:
    return faces[:0]


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.open(device="cpu", threads=1)


@pytest.fixture(scope="module")
def photo(examples: Any) -> Any:
    return examples / "solvay_1927.jpg"


@pytest.mark.parametrize(
    ("change", "missing", "extra", "boxes"),
    [
        (lambda faces: faces, 0, 0, 0.0),
        (shifted, 0, 0, 0.5),
        (worst_left_out, 1, 0, 0.0),
        (twice_as_wide, 29, 29, 0.0),
        (nothing, 29, 0, 0.0),
    ],
)
def test_what_differs(
    change: Callable[[Detections], Detections], missing: int, extra: int, boxes: float, detector: Detector, photo: Any
) -> None:
    found = agreement(detector, Fixed(detector, change), [photo])
    assert (found.pictures, found.faces, found.missing, found.extra) == (1, 29, missing, extra)
    assert found.boxes == pytest.approx(boxes, abs=1e-3)
    assert found.keypoints == pytest.approx(boxes, abs=1e-3)
    back = agreement(Fixed(detector, change), detector, [photo])
    assert (back.missing, back.extra) == (extra, missing)


def test_pictures_add_up(detector: Detector, photo: Any, examples: Any) -> None:
    found = agreement(detector, Fixed(detector, worst_left_out), [photo, examples / "astronaut.jpg"])
    assert (found.pictures, found.faces, found.missing) == (2, 30, 2)
    assert agreement(detector, detector, []) == Agreement()
