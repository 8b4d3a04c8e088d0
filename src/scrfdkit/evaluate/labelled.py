"""Own labelled pictures as ground truth for the same engine that scores WIDER FACE."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from scrfdkit.data import formats
from scrfdkit.data.labels import LabelledImage
from scrfdkit.data.pictures import folder_holding
from scrfdkit.data.words import plural
from scrfdkit.evaluate.overlap import as_xywh
from scrfdkit.evaluate.results import bare
from scrfdkit.evaluate.widerface import GroundTruth, GroundTruthError

SETTING = "all"

HEIGHTS = {"easy": 50.0, "medium": 30.0, "hard": 10.0}
"""Least height in pixels of the faces that count in WIDER FACE's settings. Of its val faces of such heights 98.3, 98.1
and 97.4 % are in the lists of the three settings, and of those in the lists hardly one in a thousand is smaller."""


def read(source: Path, format: str | None, images: Path | None) -> tuple[list[LabelledImage], list[str]]:
    """Labels in any known format, and notes about all that was not read or is no face. Raises as `formats.read`."""
    reading = formats.scan(source, format=format, images=images, strict=True)
    labels, notes = findable(reading.images)
    dropped = (f"not read: {number:,} x {what}" for what, number in reading.not_read.items())
    return labels, [*reading.notes, *dropped, *notes]


def findable(labels: Sequence[LabelledImage]) -> tuple[list[LabelledImage], list[str]]:
    """The labels without boxes that nothing can ever find, and notes that count those which would have counted.

    These are boxes without width or height, and boxes wholly outside a picture whose size is known.
    """
    odd: Counter[str] = Counter()
    kept = []
    for image in labels:
        x1, y1, x2, y2 = image.boxes.T
        empty = (x2 <= x1) | (y2 <= y1)
        known = image.width > 0 and image.height > 0
        outside = ~empty & known & ((x2 <= 0) | (y2 <= 0) | (x1 >= image.width) | (y1 >= image.height))
        odd["without width or height"] += int((empty & ~image.ignore).sum())
        odd["wholly outside the picture"] += int((outside & ~image.ignore).sum())
        keep = ~(empty | outside)
        points = None if image.keypoints is None else image.keypoints[keep]
        kept.append(
            image
            if keep.all()
            else replace(image, boxes=image.boxes[keep], ignore=image.ignore[keep], keypoints=points)
        )
    return kept, [f"left out: {plural(n, 'labelled box', 'labelled boxes')} {what}" for what, n in odd.items() if n]


def ground_truth(labels: Sequence[LabelledImage], heights: Mapping[str, float] | None = None) -> GroundTruth:
    """One setting, "all", in which every face counts that is not marked to be ignored.

    heights: instead a setting for each of these names, like `HEIGHTS`, in which only faces of at least that height in
        pixels count; those in which no face does are left out.
    Raises GroundTruthError where no face counts, where a box is not finite, or where two pictures differ in their
    suffixes alone, as result files have none.
    """
    names = [bare(image.path) for image in labels]
    place = {name: i for i, name in enumerate(names)}
    for i, name in enumerate(names):
        if place[name] != i:
            raise GroundTruthError(f"{labels[i].path} and {labels[place[name]].path} have the same name; rename one")
    counts = np.array([len(image.boxes) for image in labels], np.int64)
    xyxy = np.concatenate([np.zeros((0, 4)), *(image.boxes for image in labels)]).astype(np.float64)
    if not np.isfinite(xyxy).all():
        wrong = next(image.path for image in labels if not np.isfinite(image.boxes).all())
        raise GroundTruthError(
            f"{wrong}: has a box that is not finite numbers; `scrfd data check` finds all such faults"
        )
    counted = ~np.concatenate([np.zeros(0, bool), *(image.ignore for image in labels)])
    if not counted.any():
        pictures, faces = plural(len(labels), "picture"), plural(len(xyxy), "face")
        raise GroundTruthError(f"no face counts: {pictures} with {faces}, all of them ignored")
    settings = {SETTING: counted}
    if heights is not None:
        tall = xyxy[:, 3] - xyxy[:, 1]
        settings = {name: counted & (tall >= least) for name, least in heights.items()}
        settings = {name: mask for name, mask in settings.items() if mask.any()}
        if not settings:
            raise GroundTruthError(f"no face counts: none is {min(heights.values()):g} pixels tall")
    return GroundTruth(tuple(names), counts, as_xywh(xyxy), settings)


def picture_folder(labels: Sequence[LabelledImage], source: Path, images: Path | None = None) -> Path:
    """Where the pictures are: in `images`, or else beside the labels.

    source: the label file or folder; beside it means as `data.pictures.folder_holding` says.
    """
    return images if images is not None else folder_holding(source, (image.path for image in labels))


def present(labels: Sequence[LabelledImage], folder: Path) -> tuple[list[LabelledImage], list[Path]]:
    """The labelled pictures that are in the folder, and their files. Raises GroundTruthError where there is none."""
    found = [(image, folder / image.path) for image in labels if (folder / image.path).is_file()]
    if not found:
        first = labels[0].path if labels else "any"
        raise GroundTruthError(f"{folder}: holds none of the labelled pictures, such as {first}; name it with --images")
    return [image for image, _ in found], [file for _, file in found]
