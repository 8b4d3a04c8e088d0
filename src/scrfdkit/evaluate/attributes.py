"""Groups of faces to ask about one by one: by size, by WIDER FACE's own labels (blur, occlusion ...), by event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scrfdkit.data import pictures
from scrfdkit.errors import ImageError
from scrfdkit.evaluate.widerface import GroundTruth, GroundTruthError, read_lists

LONG_SIDE = 640
"""Sizes are also given as the network sees them at the usual input: the picture's long side resized to this."""

LABELS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "blur": ("Blur", ("clear", "normal", "heavy")),
    "occlusion": ("Occlusion", ("none", "partial", "heavy")),
    "pose": ("Pose", ("typical", "atypical")),
    "illumination": ("Illumination", ("normal", "extreme")),
    "expression": ("Expression", ("typical", "exaggerated")),
    "invalid": ("Invalid", ("valid", "invalid")),
}
"""WIDER FACE's labels of a face: key, title, and what 0, 1, 2 mean (readme of its annotations)."""

_EDGES = {"size": (8, 16, 32, 64, 128), "pixels": (16, 32, 64, 128, 256)}


@dataclass(frozen=True, eq=False)
class Grouping:
    """Every face put into one of several groups.

    key: short name, used in links. title: for people. labels: names of the groups. index: (F,) the group of every
    face, -1 for none. all_faces: judge every labelled face, not only those that count in a setting. own_pictures: a
    group is whole pictures, so that false alarms in the others are none of its business. note: what to know.
    """

    key: str
    title: str
    labels: tuple[str, ...]
    index: NDArray[np.int64]
    all_faces: bool = False
    own_pictures: bool = False
    note: str = ""

    def select(self, faces: NDArray[np.int64]) -> Grouping:
        """The same for some of the faces, given by their numbers."""
        return replace(self, index=self.index[faces])


def faces_of(truth: GroundTruth, images: Sequence[str]) -> NDArray[np.int64]:
    """Numbers of the faces of some pictures, in the order in which `truth.select(images)` has them."""
    starts = np.concatenate([[0], np.cumsum(truth.counts)])
    place = {name: i for i, name in enumerate(truth.images)}
    return np.concatenate([np.arange(starts[i], starts[i + 1]) for i in map(place.__getitem__, images)] or [_NONE])


_NONE = np.zeros(0, np.int64)


def read_attributes(folder: Path, truth: GroundTruth) -> list[Grouping]:
    """Blur, occlusion, pose, illumination, expression and validity of every face, from wider_face_val.mat.

    truth: what `read_ground_truth` gave for the same folder. Raises GroundTruthError for a file without these labels,
    with other values or of other faces, MissingExtraError without scipy.
    """
    path = folder / "wider_face_val.mat"
    groupings = []
    for key, (title, labels) in LABELS.items():
        name = f"{key}_label_list"
        images, lists = read_lists(path, name)
        if images != list(truth.images) or [len(values) for values in lists] != truth.counts.tolist():
            raise GroundTruthError(f"{path}: {name} is not of the same faces as the boxes")
        index = np.concatenate([*lists, _NONE]).astype(np.int64)
        strange = index[(index < 0) | (index >= len(labels))]
        if len(strange):
            raise GroundTruthError(f"{path}: {name} holds {strange[0]}; 0 to {len(labels) - 1} are known")
        groupings.append(Grouping(key, title, labels, index, all_faces=key == "invalid", note=_NOTES.get(key, "")))
    return groupings


_NOTES = {
    "invalid": "Faces marked invalid never count in easy, medium or hard, so here every labelled face counts.",
    "size": f"Square root of width times height, after the picture's long side is resized to {LONG_SIDE} pixels.",
    "pixels": "Square root of width times height, in pixels of the picture as it is.",
    "event": "Each event is judged on its own pictures alone.",
}


def read_sizes(truth: GroundTruth, paths: Mapping[str, Path]) -> tuple[NDArray[np.int64], dict[str, ImageError]]:
    """(I, 2) width and height of every picture, from the files' headers, and errors by name for files that are none.

    paths: by the pictures' names. Sizes are 0 0 where there is no file, or a broken one.
    """
    sizes = np.zeros((len(truth.images), 2), np.int64)
    broken = {}
    for i, name in enumerate(truth.images):
        try:
            sizes[i] = pictures.size(paths[name]) if name in paths else (0, 0)
        except ImageError as error:
            broken[name] = error
    return sizes, broken


def sides(truth: GroundTruth, picture_sizes: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
    """(F,) square root of the area of every face, in pixels.

    picture_sizes: (I, 2) width and height of the pictures; the result is then that at long side 640, and NaN in
    pictures whose size is 0 0, which means unknown.
    """
    side: NDArray[np.float64] = np.sqrt(np.maximum(truth.boxes[:, 2], 0) * np.maximum(truth.boxes[:, 3], 0))
    if picture_sizes is None:
        return side
    long_side = np.repeat(picture_sizes.max(axis=1), truth.counts).astype(np.float64)
    return np.where(long_side > 0, side * LONG_SIDE / np.maximum(long_side, 1), np.nan)


def by_size(truth: GroundTruth, picture_sizes: NDArray[np.int64] | None = None) -> Grouping:
    """Faces by `sides`: of the original picture, or at long side 640 where the sizes of the pictures are given."""
    key, title = ("pixels", "Size in the picture") if picture_sizes is None else ("size", f"Size at {LONG_SIDE}")
    side, edges = sides(truth, picture_sizes), _EDGES[key]
    inner = [f"{low}–{high} px" for low, high in pairwise(edges)]
    index = np.where(np.isnan(side), -1, np.searchsorted(edges, side, side="right"))
    labels = (f"under {edges[0]} px", *inner, f"{edges[-1]} px and more")
    return Grouping(key, title, labels, index.astype(np.int64), note=_NOTES[key])


def by_event(truth: GroundTruth) -> Grouping:
    """Faces by the folder of their picture, "12--Group" as "Group", in the order of these numbers."""
    folders = [name.rpartition("/")[0] for name in truth.images]
    events = sorted(set(folders), key=_event_order)
    place = {event: i for i, event in enumerate(events)}
    index = np.repeat(np.array([place[f] for f in folders], np.int64), truth.counts)
    labels = tuple(event.rpartition("--")[2].replace("_", " ") or "(no folder)" for event in events)
    return Grouping("event", "Event", labels, index, own_pictures=True, note=_NOTES["event"])


def _event_order(event: str) -> tuple[int, str]:
    number = event.partition("--")[0]
    return (int(number) if number.isascii() and number.isdigit() else 1 << 30, event)
