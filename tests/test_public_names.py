"""What users may rely on: a change here is a change for them."""

from __future__ import annotations

import dataclasses
import inspect

import scrfdkit
from scrfdkit.options import Options


def test_package() -> None:
    assert set(scrfdkit.__all__) == {"ZOO", "Detections", "Detector", "ModelSpec", "ScrfdError", "__version__"}
    for name in scrfdkit.__all__:
        assert getattr(scrfdkit, name) is not None


def test_detector() -> None:
    public = {name for name in vars(scrfdkit.Detector) if not name.startswith("_")}
    assert public == {"open", "detect", "detect_batch", "detect_each", "device", "num_keypoints", "load", "plan"}
    assert list(inspect.signature(scrfdkit.Detector.open).parameters) == [
        *("model", "device", "strict_device", "runtime", "threads", "options")
    ]


def test_options() -> None:
    assert {f.name: f.default for f in dataclasses.fields(Options)} == {
        "score_threshold": 0.5,
        "nms_threshold": 0.4,
        "input_size": "auto",
        "max_faces": 0,
        "rank": "area",
        "tile": 0,
        "tile_overlap": 0.25,
        "rotate": 0,
        "batch_size": 8,
        "fast_decoding": None,
        "max_pixels": 178_956_970,
    }


def test_detections() -> None:
    assert [f.name for f in dataclasses.fields(scrfdkit.Detections)] == ["boxes", "scores", "keypoints", "ids"]
