"""Average precision as a function of a detector, made of the evaluate room for rooms that must not know it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scrfdkit.errors import OptionError

if TYPE_CHECKING:
    from scrfdkit.detector import Detector
    from scrfdkit.model.net import SCRFD
    from scrfdkit.train.settings import Settings


def scorer(
    labels: Path,
    gt: Path | None = None,
    images: Path | None = None,
    mode: str = "640",
    jobs: int | None = None,
    heights: Mapping[str, float] | None = None,
) -> Callable[[Detector], Mapping[str, float]]:
    """Scores as `scrfd eval` gives them, in percent: easy, medium and hard with WIDER FACE's ground truth, else "ap".

    labels: any labels with their pictures, or with gt the folder of WIDER FACE's pictures. mode: as of `scrfd eval`.
    heights: as of `labelled.ground_truth`, whose settings are then the scores.
    Labels and pictures are read at once, so that what is wrong with them is told before any long work.
    """
    from scrfdkit.evaluate import leaderboard, reference
    from scrfdkit.evaluate.labelled import ground_truth, picture_folder, present, read
    from scrfdkit.evaluate.run import run, wider_pictures
    from scrfdkit.evaluate.widerface import read_ground_truth
    from scrfdkit.files.pipeline import ordered_map
    from scrfdkit.machine import share_cores

    if gt is not None:
        truth = read_ground_truth(gt)
        names, files = wider_pictures(labels, truth)
    else:
        every, _ = read(labels, None, images)
        there, paths = present(every, picture_folder(every, labels, images))
        truth = ground_truth(there, heights)
        names, files = truth.images, tuple(paths)
    parsed = reference.parse_mode(mode)
    look = partial(ordered_map, jobs=share_cores(jobs, len(files))[0])

    def score(detector: Detector) -> Mapping[str, float]:
        found = run(names, files, reference.of_detector(detector, parsed), mapper=look)
        row = leaderboard.score(truth, [leaderboard.Entry("weights", found.results)]).rows[0]
        return {"ap" if name == "all" else name: 100 * curve.ap for name, curve in row.curves.items()}

    return score


def validation(
    settings: Settings, heights: Mapping[str, float] | None = None
) -> Callable[[SCRFD], Mapping[str, float]] | None:
    """What `scrfd train` scores its weights with: as `scorer`, and "score", the last of the numbers, that the best
    weights are chosen by. None where the settings name nothing to look at.
    """
    if settings.val is None:
        if settings.val_gt is not None:
            raise OptionError("--val-gt: name the labels or the folder of the pictures with --val")
        return None
    from scrfdkit.detector import Detector
    from scrfdkit.model.net import fuse
    from scrfdkit.runtime.pytorch import PyTorchRuntime

    gt, images = (Path(p) if p is not None else None for p in (settings.val_gt, settings.val_images))
    # As many pictures at a time as are prepared at a time in training, where that is said.
    of = scorer(Path(settings.val), gt, images, f"{settings.recipe.size}", settings.workers or None, heights)

    def score(net: SCRFD) -> Mapping[str, float]:
        device = str(next(net.parameters()).device)
        # A thread each, as the scorer looks at as many pictures at a time as there are cores.
        runtime = PyTorchRuntime(fuse(net).float(), {"spec": net.spec.to_json()}, device, 1)
        scores = of(Detector(runtime))
        return {**scores, "score": list(scores.values())[-1]}

    return score
