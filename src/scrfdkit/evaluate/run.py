"""From a `detect` function and a folder of pictures to results that can be scored."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from scrfdkit.evaluate.results import Results, collect
from scrfdkit.evaluate.widerface import GroundTruth, GroundTruthError
from scrfdkit.types import Detections

Detect: TypeAlias = Callable[[Path], Detections]

Timed: TypeAlias = tuple[Detections, float]
Mapper: TypeAlias = Callable[[Callable[[Path], Timed], Iterable[Path]], Iterable[Timed]]
"""Whatever goes through the pictures in order: `map`, or a pool of threads."""


@dataclass(frozen=True, eq=False)
class Run:
    """What a detector found, and how long a picture took: median milliseconds from reading the file to its faces.

    detections: of every picture, with key points.
    """

    results: Results
    detections: tuple[Detections, ...]
    milliseconds: float


def run(
    images: Sequence[str],
    files: Sequence[Path],
    detect: Detect,
    *,
    mapper: Mapper = map,
    progress: Callable[[int], None] = lambda _: None,
) -> Run:
    """Looks at every picture. images: their names in the ground truth. Raises what `detect` raises."""

    def timed(file: Path) -> Timed:
        start = time.perf_counter()
        found = detect(file)
        return found, time.perf_counter() - start

    pairs = []
    for number, pair in enumerate(mapper(timed, files), 1):
        pairs.append(pair)
        progress(number)
    found = tuple(faces for faces, _ in pairs)
    spent = statistics.median(seconds for _, seconds in pairs) if pairs else 0.0
    return Run(collect(images, found), found, 1000 * spent)


def wider_pictures(data: Path, truth: GroundTruth) -> tuple[tuple[str, ...], tuple[Path, ...]]:
    """Names and files of the ground truth's pictures that are there, in its order.

    data: holds the event folders itself, or in images, val/images or WIDER_val/images.
    Raises GroundTruthError where there is none.
    """
    for folder in (data / "val" / "images", data / "WIDER_val" / "images", data / "images", data):
        present = list(_present(folder, truth))
        if present:
            names, files = zip(*present, strict=True)
            return names, files
    raise GroundTruthError(
        f"{data}: holds none of the ground truth's pictures; {truth.images[0]}.jpg, for one, must lie in it,"
        " in its images or in its val/images"
    )


def _present(folder: Path, truth: GroundTruth) -> Iterator[tuple[str, Path]]:
    if not folder.is_dir():
        return
    have = {
        f"{event.name}/{file.stem}": file for event in folder.iterdir() if event.is_dir() for file in _pictures(event)
    }
    for name in truth.images:
        if name in have:
            yield name, have[name]


def _pictures(event: Path) -> Iterator[Path]:
    return (file for file in event.iterdir() if file.suffix.lower() in (".jpg", ".jpeg", ".png"))


def gt_folder(data: Path) -> Path:
    """The folder with the .mat files: in data, or in its gt, ground_truth or eval_tools/ground_truth."""
    for name in ("gt", "ground_truth", "eval_tools/ground_truth", "."):
        if (data / name / "wider_face_val.mat").is_file():
            return data / name
    raise GroundTruthError(f"{data}: holds no gt/wider_face_val.mat; name its folder with --gt DIR")
