"""A tiny WIDER FACE whose every error is known: ground-truth files, pictures and results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

# Event, picture, its size, its faces as x y w h, and each face's blur label; the third face of the first is ignored.
PICTURES: list[tuple[str, str, tuple[int, int], list[tuple[int, int, int, int]], list[int]]] = [
    (
        "0--Party",
        "a",
        (640, 480),
        [(10, 10, 40, 40), (100, 10, 40, 40), (200, 10, 40, 40), (10, 200, 20, 20)],
        [0, 0, 1, 2],
    ),
    ("0--Party", "b", (320, 240), [], []),
    ("12--Group_Photo", "c", (1280, 720), [(50, 50, 100, 100)], [2]),
]
IGNORED = 2  # number of the face that counts in no setting

# By picture: x y w h score. What each is at threshold 0.5 stands behind it.
FIRST = {
    "0--Party/a": [
        (200, 10, 40, 40, 0.95),  # on the ignored face
        (10, 10, 40, 40, 0.9),  # right
        (12, 10, 40, 40, 0.8),  # duplicate
        (120, 10, 40, 40, 0.7),  # half a face beside the second: IoU 21 * 41 / (2 * 41 * 41 - 21 * 41) = 0.34
        (400, 400, 30, 30, 0.6),  # background
        (10, 200, 20, 20, 0.1),  # the fourth face, below the threshold
    ],
    "0--Party/b": [(5, 5, 20, 20, 0.99)],  # in a picture without labels
    "12--Group_Photo/c": [(50, 50, 100, 100, 0.3)],
}
SECOND = {
    "0--Party/a": [(100, 10, 40, 40, 0.9), (10, 200, 20, 20, 0.8)],
    "0--Party/b": [],
    "12--Group_Photo/c": [(50, 50, 100, 100, 0.7)],
}


def _cells(values: list[Any]) -> NDArray[Any]:
    out = np.empty((len(values), 1), object)
    for i, value in enumerate(values):
        out[i, 0] = value
    return out


def write_ground_truth(folder: Path) -> Path:
    """The four .mat files, laid out as WIDER FACE's."""
    folder.mkdir(parents=True, exist_ok=True)
    events = sorted({event for event, *_ in PICTURES})
    groups = [[row for row in PICTURES if row[0] == event] for event in events]
    names = {"event_list": _cells(events), "file_list": _cells([_cells([row[1] for row in group]) for group in groups])}

    def lists(value: Any) -> NDArray[Any]:
        return _cells([_cells([value(row) for row in group]) for group in groups])

    labels = {
        f"{key}_label_list": lists(lambda row: np.zeros((len(row[3]), 1), np.uint8))
        for key in ("occlusion", "pose", "illumination", "expression", "invalid")
    }
    labels["blur_label_list"] = lists(lambda row: np.array(row[4], np.uint8).reshape(-1, 1))
    boxes = lists(lambda row: np.array(row[3], np.int32).reshape(-1, 4))
    savemat(folder / "wider_face_val.mat", {**names, "face_bbx_list": boxes, **labels})

    def counted(row: Any) -> NDArray[np.uint8]:
        faces = [i + 1 for i in range(len(row[3])) if (row[1], i) != ("a", IGNORED)]
        return np.array(faces, np.uint8).reshape(-1, 1)

    for setting in ("easy", "medium", "hard"):
        savemat(folder / f"wider_{setting}_val.mat", {**names, "gt_list": lists(counted)})
    return folder


def write_pictures(folder: Path) -> Path:
    """Grey pictures of the right sizes, in which every face is a red block."""
    for event, name, (width, height), faces, _ in PICTURES:
        picture = np.full((height, width, 3), 128, np.uint8)
        for x, y, w, h in faces:
            picture[y : y + h, x : x + w] = (0, 0, 255)
        path = folder / event / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), picture)
    return folder


def write_results(path: Path, results: dict[str, list[tuple[float, ...]]]) -> Path:
    """An .npz file of detections."""
    rows = np.array([row for rows in results.values() for row in rows], np.float32).reshape(-1, 5)
    counts = np.array([len(rows) for rows in results.values()])
    np.savez(path, images=np.array(list(results)), counts=counts, xywh=rows[:, :4], scores=rows[:, 4])
    return path
