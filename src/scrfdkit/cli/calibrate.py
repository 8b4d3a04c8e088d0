"""`scrfd calibrate`: which score threshold gives the precision or recall that is wanted, kept in the weight file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer

from scrfdkit.cli.flags import DeviceName, RuntimeName
from scrfdkit.errors import OptionError

if TYPE_CHECKING:
    from scrfdkit.evaluate.calibrate import Point
    from scrfdkit.evaluate.widerface import GroundTruth, Matched

_LOWEST_SCORE = 0.02


def command(
    model: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Network; the embedded one if left out.")
    ] = None,
    precision: Annotated[
        list[float] | None, typer.Option(min=0, max=1, metavar="0..1", help="Wanted precision, 0.99 for one; again.")
    ] = None,
    recall: Annotated[
        list[float] | None, typer.Option(min=0, max=1, metavar="0..1", help="Wanted recall; again for several.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="WIDER FACE: pictures in DIR/val/images, DIR/images or DIR.")
    ] = None,
    gt: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the four .mat files.", show_default="gt in --data")
    ] = None,
    setting: Annotated[
        Literal["easy", "medium", "hard"], typer.Option(help="Which faces of WIDER FACE count.")
    ] = "hard",
    labels: Annotated[
        Path | None, typer.Option(metavar="FILE|DIR", help="Own labels instead of --data, in any known format.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of their pictures.", show_default="beside the labels")
    ] = None,
    label_format: Annotated[
        str | None, typer.Option("--format", metavar="NAME", help="Format of the labels.", show_default="guessed")
    ] = None,
    size: Annotated[str, typer.Option(metavar="WxH|N|auto|original", help="What the network sees.")] = "auto",
    nms: Annotated[float, typer.Option(min=0, max=1, metavar="0..1", help="Overlap at which two faces are one.")] = 0.4,
    store: Annotated[bool, typer.Option("--store", help="Keep the thresholds in the weight file itself.")] = False,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Keep them in a copy of the weight file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an --output that is there.")] = False,
    device: Annotated[DeviceName, typer.Option(help="Where the network runs.")] = "auto",
    runtime: Annotated[RuntimeName | None, typer.Option(help="What runs the network.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Pictures at a time.", show_default="one a core")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Find the score thresholds that give a wanted precision or recall, as `scrfd detect` would find faces.

    Use pictures like those it will see: a threshold says little about others.
    """
    from scrfdkit.cli import scoring
    from scrfdkit.evaluate.leaderboard import score
    from scrfdkit.evaluate.names import run_name
    from scrfdkit.options import parse_size

    if not precision and not recall:
        raise OptionError("--precision or --recall: say what is wanted, such as --precision 0.99")
    if (data is None) == (labels is None):
        raise OptionError("--data or --labels: name one, the pictures to calibrate on")
    _check_output(model, store, output, force)
    options: dict[str, Any] = {"score_threshold": _LOWEST_SCORE, "nms_threshold": nms, "input_size": parse_size(size)}
    if labels is not None:
        truth, names, files, notes = _labelled(labels, label_format, images)
    else:
        truth, names, files, notes = _wider(data or Path(), gt)
    counted = next(iter(truth.counted)) if labels is not None else setting
    detector, workers = scoring.open_model(model, len(files), jobs=jobs, device=device, runtime=runtime, **options)
    assert detector.path is not None
    target = _target(detector.path, store, output)
    run = scoring.look(detector, detector.detect, names, files, workers)
    board = score(truth, [scoring.entry(run_name(model or detector.path), detector, run)])
    points = _points(board.rows[0].matched, counted, precision or (), recall or ())
    facts = {
        "pictures": len(board.truth.images),
        "faces": int(board.truth.counted[counted].sum()),
        "data": f"{(labels or data or Path()).name} ({counted})",
        "size": size,
        "nms_threshold": nms,
        "date": datetime.now(UTC).date().isoformat(),
    }
    if target is not None:
        from scrfdkit import atomic
        from scrfdkit.evaluate.stored import with_thresholds

        stored = {name: {**point.to_dict(), **facts} for name, point in points.items()}
        atomic.save(target, with_thresholds(detector.path, stored))
    _print(points, facts, (*notes, *board.notes), target, as_json=as_json)


def _check_output(model: str | None, store: bool, output: Path | None, force: bool) -> None:
    """Raises OptionError for places that contradict each other, or hold something already."""
    from scrfdkit import atomic
    from scrfdkit.network import is_description

    if store and model is not None and is_description(model):
        raise OptionError(
            f"--store: would change the weights whose sha256 {model} holds; make a copy with --output FILE"
        )
    if store and output is not None:
        raise OptionError("--store and --output: one keeps the thresholds in the weight file, one in a copy; name one")
    if output is not None and atomic.is_folder(output):
        raise OptionError(f"--output: {output} is a folder; name a file")
    if output is not None and atomic.exists(output) and not force:
        raise OptionError(f"--output: {output} is there already; --force overwrites it")


_Pictures: TypeAlias = "tuple[GroundTruth, tuple[str, ...], Sequence[Path], list[str]]"
"""Ground truth, names and files of the pictures that are there, and what was odd about the labels."""


def _labelled(labels: Path, label_format: str | None, images: Path | None) -> _Pictures:
    from scrfdkit.data import formats
    from scrfdkit.evaluate.labelled import ground_truth, picture_folder, present, read

    if label_format is not None:
        formats.find(label_format, "--format")
    every, notes = read(labels, label_format, images)
    seen, files = present(every, picture_folder(every, labels, images))
    return ground_truth(every), ground_truth(seen).images, files, notes


def _wider(data: Path, gt: Path | None) -> _Pictures:
    from scrfdkit.evaluate.run import gt_folder, wider_pictures
    from scrfdkit.evaluate.widerface import read_ground_truth

    truth = read_ground_truth(gt if gt is not None else gt_folder(data))
    names, paths = wider_pictures(data, truth)
    return truth, names, paths, []


def _target(path: Path, store: bool, output: Path | None) -> Path | None:
    """The weight file to write, if any, looked into before the long work. Raises OptionError or WeightError."""
    from importlib.resources import files

    from scrfdkit.evaluate.stored import read_thresholds

    target = output if output is not None else path if store else None
    if target is None:
        return None
    read_thresholds(path)
    if target.suffix != path.suffix:
        raise OptionError(f"--output: {target} would be a copy of {path}; give it the suffix {path.suffix}")
    if target.resolve().parent == Path(str(files("scrfdkit"))).resolve() / "assets":
        raise OptionError("--store: the embedded weights are part of the package; make a copy with --output FILE")
    return target


def _points(matched: Matched, setting: str, precisions: Sequence[float], recalls: Sequence[float]) -> dict[str, Point]:
    from scrfdkit.evaluate.calibrate import for_precision, for_recall, sweep

    thresholds = sweep(matched, setting)
    points = {f"precision {value:g}": for_precision(thresholds, value) for value in precisions}
    return points | {f"recall {value:g}": for_recall(thresholds, value) for value in recalls}


def _print(
    points: Mapping[str, Point],
    facts: Mapping[str, Any],
    notes: Sequence[str],
    target: Path | None,
    *,
    as_json: bool,
) -> None:
    if as_json:
        thresholds = {name: point.to_dict() for name, point in points.items()}
        record = {"thresholds": thresholds, **facts, "notes": list(notes), "stored": str(target) if target else None}
        typer.echo(json.dumps(record, indent=2))
        return
    from scrfdkit.data.words import plural

    for note in notes:
        typer.echo(f"warning: {note}", err=True)
    typer.echo(f"on {plural(facts['pictures'], 'picture')} with {plural(facts['faces'], 'face')}, {facts['data']}:")
    for name, point in points.items():
        found = f"precision {point.precision:.4f}, recall {point.recall:.4f}"
        typer.echo(f"  {name}: score threshold {point.score_threshold:.4f} ({found})")
    if target is not None:
        typer.echo(f"stored in {target}")
