"""The comparison of end-to-end files must see a face too few, a face elsewhere, and a file unlike its twin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from export_files import SPECS, source
from numpy.typing import NDArray

from scrfdkit.export.contract import Contract, Suppression
from scrfdkit.export.faces import Faces, compare_faces
from scrfdkit.export.onnx import FaceSession, build
from scrfdkit.export.parity import Case
from scrfdkit.export.reference import Reference
from scrfdkit.types import Image

ONE = source(SPECS["basic, bn"])
CONTRACT = Contract("end2end", size=(128, 96), batch=2, suppression=Suppression(0.3, 0.4, 300))


def session(*, probe: bool) -> FaceSession:
    return FaceSession(build(ONE.net, ONE.info, CONTRACT, probe=probe).SerializeToString())


def compare(of_probe: Callable[[Faces], Faces], of_file: Callable[[Faces], Faces]) -> Case:
    twin, file = session(probe=True), session(probe=False)

    def changed_twin(canvases: Image, score_threshold: float | None = None) -> tuple[Faces, Sequence[NDArray[Any]]]:
        faces, rest = twin(canvases, score_threshold)
        return of_probe(faces), rest

    def changed_file(canvases: Image, score_threshold: float | None = None) -> tuple[Faces, Sequence[NDArray[Any]]]:
        faces, rest = file(canvases, score_threshold)
        return of_file(faces), rest

    (case,) = compare_faces(Reference(ONE.net), changed_twin, changed_file, CONTRACT, ONE.info.spec.input)
    return case


def same(faces: Faces) -> Faces:
    return faces


def one_less(faces: Faces) -> Faces:
    assert faces.counts.min() > 1
    return replace(faces, counts=faces.counts - np.array([0, 1]))


def twice(faces: Faces) -> Faces:
    boxes = faces.boxes.copy()
    boxes[0, 1] = boxes[0, 0]
    return replace(faces, boxes=boxes)


def moved(faces: Faces) -> Faces:
    assert faces.keypoints is not None
    points = faces.keypoints.copy()
    points[1, 0, 2, 1] += 0.5
    return replace(faces, keypoints=points)


def test_nothing_differs() -> None:
    case = compare(same, same)
    assert (case.width, case.height, case.batch) == (128, 96, 2)
    assert case.largest <= 1e-3
    assert case.boxes > 0


@pytest.mark.parametrize(("change", "gap"), [(one_less, np.inf), (twice, np.inf), (moved, 0.5)])
def test_a_change_is_seen(change: Callable[[Faces], Faces], gap: float) -> None:
    assert compare(change, change).faces == pytest.approx(gap, abs=1e-3)
    assert compare(same, change).faces == pytest.approx(gap, abs=1e-3)


def test_faces_of_one_picture() -> None:
    boxes = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    scores = np.array([[0.9, 0, 0], [0.8, 0.7, 0]], np.float32)
    faces = Faces(boxes, scores, None, np.array([1, 2]))
    assert faces.of(0).boxes.tolist() == [[0, 1, 2, 3]]
    assert faces.of(1).scores.tolist() == pytest.approx([0.8, 0.7])
    assert faces.of(1).keypoints is None
