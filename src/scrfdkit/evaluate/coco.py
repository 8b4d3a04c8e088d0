"""COCO's average precision of boxes and key points, computed by faster-coco-eval.

COCO's protocol differs from WIDER FACE's: the mean over ten overlaps (IoU 0.50, 0.55, ..., 0.95), at most 100
detections a picture, and each ignored face takes any number of detections that lie mostly inside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrfdkit.data.labels import LabelledImage
from scrfdkit.errors import MissingExtraError, OptionError
from scrfdkit.evaluate.overlap import as_xywh
from scrfdkit.types import Detections

_AREAS = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}
_FACE_SIGMAS = (0.025, 0.025, 0.026, 0.025, 0.025)
"""How far people who label differ, as a part of the face's size: COCO's values for eyes and nose; it has none for
the corners of the mouth, which are taken like eyes."""


def coco_map(
    labels: Sequence[LabelledImage],
    detections: Sequence[Detections],
    *,
    max_detections: int = 100,
    sigmas: Sequence[float] | None = None,
) -> dict[str, float]:
    """Average precision and recall from 0 to 1 by COCO's protocol.

    detections: of the same pictures in the same order. max_detections: the best so many of a picture count; crowds
        need more than COCO's 100. sigmas: (K,) tolerance of each key point, by default COCO's for eyes and nose.
    Returns AP, AP50, AP75, AR, and AP and AR for faces of an area up to 32^2, 96^2 and above (AP_small, AP_medium,
    AP_large, AR_small, ...); where every picture with faces has key points, on both sides, also keypoint_AP,
    keypoint_AP50, keypoint_AP75 and keypoint_AR by object key point similarity, with faces without labelled points
    ignored. NaN where no face counts. Areas are those of the boxes.
    Raises ValueError where the lengths or numbers of key points differ, or detections are not finite numbers.
    """
    if len(labels) != len(detections):
        raise ValueError(f"{len(labels)} labelled pictures, but detections of {len(detections)}")
    if max_detections < 1:
        raise OptionError(f"max_detections: {max_detections} is less than 1")
    for number, (image, faces) in enumerate(zip(labels, detections, strict=True), 1):
        if not (np.isfinite(faces.boxes).all() and np.isfinite(faces.scores).all()):
            raise ValueError(f"detections of picture {number} ({image.path}): boxes or scores are not finite numbers")
    found_points = [d.keypoints for d in detections if len(d)]
    told_points = [m.keypoints for m in labels if len(m.boxes)]
    with_points = bool(told_points) and _have_all(told_points) and _have_all(found_points)
    told, found = _told(labels, with_points), _found(detections, with_points)
    result = _run(told, found, len(labels), max_detections, None)
    if with_points:
        counts = {p.shape[1] for p in (*told_points, *found_points) if p is not None}
        if len(counts) > 1:
            raise ValueError(f"labels and detections differ in their number of key points: {sorted(counts)}")
        tolerance = _sigmas(counts.pop(), sigmas)
        points = _run(told, found, len(labels), max_detections, tolerance)
        result |= {f"keypoint_{name}": points[name] for name in ("AP", "AP50", "AP75", "AR")}
    return result


def _have_all(points: Sequence[NDArray[Any] | None]) -> bool:
    return all(p is not None and p.shape[1] > 0 for p in points)


def _sigmas(num_keypoints: int, sigmas: Sequence[float] | None) -> NDArray[np.float64]:
    if sigmas is None:
        sigmas = _FACE_SIGMAS if num_keypoints == len(_FACE_SIGMAS) else [0.025] * num_keypoints
    values = np.array(sigmas, np.float64)
    if values.shape != (num_keypoints,) or not (values > 0).all():
        raise ValueError(f"sigmas: {num_keypoints} numbers above 0 are needed")
    return values


def _told(labels: Sequence[LabelledImage], with_points: bool) -> list[dict[str, Any]]:
    notes = []
    for number, image in enumerate(labels, 1):
        for i, note in enumerate(_notes(number, image.boxes)):
            note["iscrowd"] = int(image.ignore[i])
            if with_points and image.keypoints is not None:
                x, y, v = image.keypoints[i].astype(np.float64).T
                labelled = v >= 0
                note["keypoints"] = np.stack([x * labelled, y * labelled, labelled * (v + 1)], axis=1).ravel().tolist()
                note["num_keypoints"] = int(labelled.sum())
            notes.append(note)
    return _numbered(notes)


def _found(detections: Sequence[Detections], with_points: bool) -> list[dict[str, Any]]:
    notes = []
    for number, faces in enumerate(detections, 1):
        for i, note in enumerate(_notes(number, faces.boxes)):
            note |= {"iscrowd": 0, "score": float(faces.scores[i])}
            if with_points and faces.keypoints is not None:
                points = np.concatenate([faces.keypoints[i], np.ones((faces.keypoints.shape[1], 1))], axis=1)
                note["keypoints"] = points.astype(np.float64).ravel().tolist()
            notes.append(note)
    return _numbered(notes)


def _notes(picture: int, boxes: NDArray[Any]) -> list[dict[str, Any]]:
    rows = as_xywh(boxes.astype(np.float64)).tolist()
    return [
        {"image_id": picture, "category_id": 1, "bbox": row, "area": max(row[2], 0.0) * max(row[3], 0.0)}
        for row in rows
    ]


def _numbered(notes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [note | {"id": number} for number, note in enumerate(notes, 1)]


def _run(
    told: list[dict[str, Any]],
    found: list[dict[str, Any]],
    num_pictures: int,
    max_detections: int,
    sigmas: NDArray[np.float64] | None,
) -> dict[str, float]:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise MissingExtraError("COCO average precision", "eval", "faster-coco-eval") from None
    sides = []
    for notes in (told, found):
        data = COCO()
        data.dataset = {
            "images": [{"id": number} for number in range(1, num_pictures + 1)],
            "categories": [{"id": 1, "name": "face"}],
            "annotations": [dict(note) for note in notes],  # the library adds to them
        }
        data.createIndex()
        sides.append(data)
    kind = "bbox" if sigmas is None else "keypoints"
    run = COCOeval_faster(*sides, kind, kpt_oks_sigmas=None if sigmas is None else list(sigmas))
    run.params.imgIds, run.params.catIds = list(range(1, num_pictures + 1)), [1]
    run.params.maxDets = [max_detections]
    run.params.areaRng = [(0, 1e10), *_AREAS.values()]
    run.params.areaRngLbl = ["all", *_AREAS]
    run.evaluate()
    run.accumulate()
    return _numbers(run.eval["precision"], run.eval["recall"])


def _numbers(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> dict[str, float]:
    """precision: (overlaps, recalls, 1, areas, 1). recall: (overlaps, 1, areas, 1). -1 stands for nothing to find."""
    result = {
        "AP": _mean(precision[:, :, :, 0]),
        "AP50": _mean(precision[0, :, :, 0]),
        "AP75": _mean(precision[5, :, :, 0]),
        "AR": _mean(recall[:, :, 0]),
    }
    for i, name in enumerate(_AREAS, 1):
        result |= {f"AP_{name}": _mean(precision[:, :, :, i]), f"AR_{name}": _mean(recall[:, :, i])}
    return result


def _mean(values: NDArray[np.float64]) -> float:
    there = np.asarray(values)[np.asarray(values) > -1]
    return float(there.mean()) if there.size else math.nan
