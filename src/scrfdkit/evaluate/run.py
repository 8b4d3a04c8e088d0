"""From a `detect` function and a folder of pictures to results that can be scored."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from scrfdkit.data.words import plural
from scrfdkit.errors import ImageError
from scrfdkit.evaluate.results import Results, collect
from scrfdkit.evaluate.widerface import GroundTruth, GroundTruthError
from scrfdkit.types import Detections

Detect: TypeAlias = Callable[[Path], Detections]

Timed: TypeAlias = tuple[Detections, float]
Mapper: TypeAlias = Callable[[Callable[[Path], Timed | ImageError], Iterable[Path]], Iterable[Timed | ImageError]]
"""Whatever goes through the pictures in order: `map`, or a pool of threads."""


@dataclass(frozen=True, eq=False)
class Run:
    """What a detector found, and how long a picture took: median milliseconds from reading the file to its faces.

    detections: of every picture that could be read, with key points. places: their numbers among all that were asked
    for; the results' notes tell of the others.
    """

    results: Results
    detections: tuple[Detections, ...]
    milliseconds: float
    places: tuple[int, ...]


def run(
    images: Sequence[str],
    files: Sequence[Path],
    detect: Detect,
    *,
    mapper: Mapper = map,
    progress: Callable[[int], None] = lambda _: None,
) -> Run:
    """Looks at every picture; those that cannot be read are left out of the results, which have a note of it.

    images: their names in the ground truth. Raises what `detect` raises but for ImageError, and that too if no
    picture at all can be read.
    """

    def timed(file: Path) -> Timed | ImageError:
        start = time.perf_counter()
        try:
            found = detect(file)
        except ImageError as error:
            return error
        return found, time.perf_counter() - start

    pairs: list[Timed] = []
    places: list[int] = []
    broken: list[ImageError] = []
    for number, outcome in enumerate(mapper(timed, files)):
        if isinstance(outcome, ImageError):
            broken.append(outcome)
        else:
            pairs.append(outcome)
            places.append(number)
        progress(number + 1)
    if broken and not pairs:
        raise broken[0]
    found = tuple(faces for faces, _ in pairs)
    spent = statistics.median(seconds for _, seconds in pairs) if pairs else 0.0
    results = collect([images[i] for i in places], found, unreadable(broken))
    return Run(results, found, 1000 * spent, tuple(places))


def unreadable(errors: Sequence[ImageError]) -> tuple[str, ...]:
    """A note about pictures that cannot be read, if there are any."""
    return (f"left out: {plural(len(errors), 'picture')} that cannot be read, {errors[0]}",) if errors else ()


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
