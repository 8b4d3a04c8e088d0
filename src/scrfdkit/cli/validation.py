"""What `scrfd train` scores its weights with: a function from a network to numbers, made of the evaluate room."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from scrfdkit.errors import OptionError

if TYPE_CHECKING:
    from scrfdkit.model.net import SCRFD
    from scrfdkit.train.settings import Settings


def validation(settings: Settings) -> Callable[[SCRFD], Mapping[str, float]] | None:
    """Scores as `scrfd eval` gives them, in percent: easy, medium and hard with WIDER FACE's ground truth, else "ap";
    "score", the last of them, is what the best weights are chosen by. None where the settings name nothing to look at.

    Labels and pictures are read at once, so that what is wrong with them is told before anything is learnt.
    """
    if settings.val is None:
        if settings.val_gt is not None:
            raise OptionError("--val-gt: name the labels or the folder of the pictures with --val")
        return None
    from scrfdkit.detector import Detector
    from scrfdkit.evaluate import leaderboard, reference
    from scrfdkit.evaluate.labelled import ground_truth, picture_folder, present, read
    from scrfdkit.evaluate.run import run, wider_pictures
    from scrfdkit.evaluate.widerface import read_ground_truth
    from scrfdkit.files.pipeline import ordered_map
    from scrfdkit.machine import share_cores
    from scrfdkit.model.net import fuse
    from scrfdkit.runtime.pytorch import PyTorchRuntime

    source = Path(settings.val)
    if settings.val_gt is not None:
        truth = read_ground_truth(Path(settings.val_gt))
        pictures = wider_pictures(source, truth)
    else:
        images = Path(settings.val_images) if settings.val_images is not None else None
        every, _ = read(source, None, images)
        there, paths = present(every, picture_folder(every, source, images))
        truth = ground_truth(there)
        pictures = truth.images, tuple(paths)
    names, files = pictures
    mode = reference.parse_mode(f"{settings.recipe.size}")
    workers, threads = share_cores(None, len(files))
    look = partial(ordered_map, jobs=workers)

    def score(net: SCRFD) -> Mapping[str, float]:
        device = str(next(net.parameters()).device)
        runtime = PyTorchRuntime(fuse(net).float(), {"spec": net.spec.to_json()}, device, threads)
        found = run(names, files, reference.of_detector(Detector(runtime), mode), mapper=look)
        row = leaderboard.score(truth, [leaderboard.Entry("weights", found.results)]).rows[0]
        scores = {"ap" if name == "all" else name: 100 * curve.ap for name, curve in row.curves.items()}
        return {**scores, "score": list(scores.values())[-1]}

    return score
