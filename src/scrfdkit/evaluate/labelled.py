"""Own labelled pictures as ground truth for the same engine that scores WIDER FACE."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scrfdkit.data.labels import LabelledImage
from scrfdkit.evaluate.results import bare
from scrfdkit.evaluate.widerface import GroundTruth, GroundTruthError

SETTING = "all"


def ground_truth(labels: Sequence[LabelledImage]) -> GroundTruth:
    """One setting, "all", in which every face counts that is not marked to be ignored.

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
        raise GroundTruthError(f"no face counts: {len(labels)} pictures with {len(xyxy)} faces, all of them ignored")
    boxes = np.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], axis=1)
    return GroundTruth(tuple(names), counts, boxes, {SETTING: counted})


def present(labels: Sequence[LabelledImage], folder: Path) -> tuple[list[LabelledImage], list[Path]]:
    """The labelled pictures that are in the folder, and their files. Raises GroundTruthError where there is none."""
    found = [(image, folder / image.path) for image in labels if (folder / image.path).is_file()]
    if not found:
        first = labels[0].path if labels else "any"
        raise GroundTruthError(f"{folder}: holds none of the labelled pictures, such as {first}; name it with --images")
    return [image for image, _ in found], [file for _, file in found]
