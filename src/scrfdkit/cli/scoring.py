"""What `scrfd eval` and `scrfd calibrate` share: running models over pictures, reading results, and the tables."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from scrfdkit.errors import MissingExtraError, OptionError, WeightError

if TYPE_CHECKING:
    from scrfdkit.data.labels import LabelledImage
    from scrfdkit.detector import Detector
    from scrfdkit.evaluate.landmarks import LandmarkScore
    from scrfdkit.evaluate.leaderboard import Board, Entry, Row
    from scrfdkit.evaluate.results import Missing, Results
    from scrfdkit.evaluate.run import Run
    from scrfdkit.evaluate.widerface import GroundTruth
    from scrfdkit.spec import ModelSpec
    from scrfdkit.types import Detections


def check(
    models: Sequence[str] | None,
    stored: Sequence[Path] | None,
    mode: str,
    save_to: Path | None,
    curves: Sequence[Path] | None,
) -> None:
    """Refuses what cannot work before anything is read or run. Raises OptionError."""
    from scrfdkit.evaluate.curves import FORMATS
    from scrfdkit.evaluate.reference import parse_mode

    parse_mode(mode)
    if not models and not stored:
        raise OptionError("--model or --detections: nothing to score; name a network, or results of any detector")
    if save_to is not None and len(models or ()) != 1:
        raise OptionError("--save-detections keeps the results of one --model; give exactly one")
    if save_to is not None and save_to.suffix.lower() != ".npz" and save_to.is_file():
        raise OptionError(f"--save-detections: {save_to} is a file; name a folder, or an .npz file")
    for path in curves or ():
        if path.suffix.lower() not in FORMATS:
            raise OptionError(f"--curves: {path} is neither an .svg nor a .png file")


def names(stored: Sequence[Path] | None, models: Sequence[str] | None) -> list[str]:
    """What all runs are called, results first; all names differ."""
    from scrfdkit.evaluate.names import distinct, run_name

    return distinct([run_name(source) for source in [*map(str, stored or ()), *(models or ())]])


def read_all(stored: Sequence[Path] | None, names: Sequence[str]) -> list[Entry]:
    """Results of other runs, called by the first of the names."""
    from scrfdkit.evaluate import results
    from scrfdkit.evaluate.leaderboard import Entry

    return [Entry(name, results.read(path)) for name, path in zip(names, stored or (), strict=False)]


def open_model(
    model: str | None, num_pictures: int, *, jobs: int | None, device: str, runtime: str | None, **options: Any
) -> tuple[Detector, int]:
    """A detector, and how many pictures to look at at a time; together they use every core once."""
    import cv2

    from scrfdkit.detector import Detector
    from scrfdkit.machine import share_cores

    workers, threads = share_cores(jobs, num_pictures)
    cv2.setNumThreads(1)  # every worker has a core of its own already
    return Detector.open(model, device=device, runtime=runtime, threads=threads, **options), workers


def look(
    detector: Detector,
    detect: Callable[[Any], Detections],
    names: Sequence[str],
    files: Sequence[Path],
    workers: int,
) -> Run:
    """Looks at every picture, several at a time, with a bar where somebody watches."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from scrfdkit.evaluate.run import run
    from scrfdkit.files.pipeline import ordered_map

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(detector.path.name if detector.path else "model", total=len(files))
        mapper = partial(ordered_map, jobs=workers)
        return run(names, files, detect, mapper=mapper, progress=lambda number: bar.update(task, completed=number))


def run_reference(
    model: str, names: Sequence[str], files: Sequence[Path], mode: str, **how: Any
) -> tuple[Detector, Run]:
    """Runs a model as published figures are measured. how: of `open_model`."""
    from scrfdkit.evaluate import reference

    parsed = reference.parse_mode(mode)
    detector, workers = open_model(model, len(files), **how)
    return detector, look(detector, reference.of_detector(detector, parsed), names, files, workers)


def entry(name: str, detector: Detector, found: Run) -> Entry:
    """What a run of a model is called, found and cost."""
    from scrfdkit.evaluate.leaderboard import Entry
    from scrfdkit.model.cost import cost

    spec = _spec(detector)
    size = cost(spec) if spec else None
    params, flops = (size.params, size.flops) if size else (None, None)
    return Entry(name, found.results, found.milliseconds, params, flops)


def _spec(detector: Detector) -> ModelSpec | None:
    """The network's own description, None where neither the file tells it nor its tensors are known."""
    from scrfdkit.spec import ModelSpec

    with suppress(KeyError, ValueError):  # files of others may use the word for something else
        return ModelSpec.from_json(detector.runtime.metadata["spec"])
    if detector.path is not None and detector.path.suffix == ".onnx":
        from scrfdkit.model.onnx_import import recognise_onnx

        with suppress(WeightError, MissingExtraError):
            return recognise_onnx(detector.path)[1]
    return None


def save(target: Path | None, results: Results) -> None:
    """Keeps detections, in the form that the name asks for."""
    from scrfdkit import atomic
    from scrfdkit.evaluate.results import to_npz, to_text

    if target is None:
        return
    if target.suffix.lower() == ".npz":
        atomic.save(target, to_npz(results))
        return
    for name, text in to_text(results):
        atomic.save(target / name, text.encode())


def landmarks(labels: Sequence[LabelledImage], found: Run) -> LandmarkScore | None:
    """Landmark error, None where the labels or the network have no landmarks. labels: of the pictures looked at."""
    from scrfdkit.evaluate.landmarks import landmark_error

    labelled = any(image.keypoints is not None and (image.keypoints[:, :, 2] >= 0).any() for image in labels)
    if not labelled or all(faces.keypoints is None for faces in found.detections):
        return None
    return landmark_error(labels, found.detections)


def board(truth: GroundTruth, entries: Sequence[Entry], missing: Missing, resamples: int) -> Board:
    """All entries scored."""
    from scrfdkit.evaluate.leaderboard import score, with_intervals

    scored = score(truth, entries, missing=missing)
    return with_intervals(scored, resamples) if resamples else scored


def report(
    board: Board,
    curves: Sequence[Path] | None,
    *,
    rough: bool,
    as_json: bool,
    landmarks: Mapping[str, LandmarkScore | None] | None = None,
    coco: Mapping[str, Mapping[str, float]] | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Writes the curves and prints everything else. notes: about the labels."""
    from scrfdkit import atomic
    from scrfdkit.evaluate.curves import encode

    for path in curves or ():
        atomic.save(path, encode({row.entry.name: row.curves for row in board.rows}, path))
    known = {name: value for name, value in (landmarks or {}).items() if value is not None}
    coarse = {row.entry.name: _rough(row) for row in board.rows} if rough else {}
    if as_json:
        data = board.to_dict()
        data["notes"] = [*notes, *data["notes"]]
        data |= {"rough": coarse} if rough else {}
        data |= {"landmarks": {name: value.to_dict() for name, value in known.items()}} if known else {}
        data |= {"coco": _without_nan(coco)} if coco else {}
        typer.echo(json.dumps(data, indent=2))
        return
    for note in (*notes, *board.notes):
        typer.echo(f"warning: {note}", err=True)
    from scrfdkit.cli import tables

    tables.show(board, coarse, known, coco or {})


def _without_nan(tables: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float | None]]:
    """JSON knows no NaN, which stands where no face counts."""
    return {
        name: {key: None if math.isnan(value) else value for key, value in row.items()} for name, row in tables.items()
    }


def _rough(row: Row) -> dict[str, dict[str, Any]]:
    """AP in percent of every coarse question, and the answers of one yes or no a picture."""
    from scrfdkit.evaluate import rough

    truth, found = row.matched.truth, row.matched.found
    tasks = {f"IoU {rough.LOOSE:g}": rough.loose(truth, found), "middle inside": rough.centre_inside(truth, found)}
    tasks |= {f"faces from {size} px": rough.at_least(row.matched, size) for size in rough.SIZES}
    result: dict[str, dict[str, Any]] = {
        name: {setting: round(100 * curve.ap, 4) for setting, curve in curves.items()} for name, curves in tasks.items()
    }
    result["yes or no a picture"] = {s: asdict(rough.yes_no(truth, found, s)) for s in truth.counted}
    return result
