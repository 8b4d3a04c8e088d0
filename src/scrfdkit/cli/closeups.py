"""`scrfd eval close-ups`: does a detector find faces that fill the picture, which some official networks do not."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from scrfdkit.cli.flags import DeviceName, RuntimeName
from scrfdkit.errors import OptionError

if TYPE_CHECKING:
    from scrfdkit.data.labels import LabelledImage
    from scrfdkit.evaluate.closeup_score import CloseUpScore, ShareScore
    from scrfdkit.evaluate.closeups import Subject

    Chosen: TypeAlias = tuple[Sequence[LabelledImage], Sequence[Path], Sequence[Subject]]
    """Labelled pictures that are there, their files, and the faces to look at."""

_LOWEST_SCORE = 0.02
_SMALLEST_SHARE = 0.1  # below, frames of large faces would need gigabytes


def command(
    labels: Annotated[Path, typer.Option(metavar="FILE|DIR", help="Labels in any format that `scrfd data` knows.")],
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the pictures.", show_default="beside the labels")
    ] = None,
    label_format: Annotated[
        str | None, typer.Option("--format", metavar="NAME", help="Format of the labels.", show_default="guessed")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME|FILE", help="Network to run and score; again for several in one table."),
    ] = None,
    share: Annotated[
        list[float] | None,
        typer.Option(
            metavar="0.1..1",
            help="Face's longer side over the frame's side; again.",
            show_default="0.4, 0.55, 0.7, 0.85, 0.95",
        ),
    ] = None,
    baseline: Annotated[
        float, typer.Option(metavar="0.1..1", help="Share at which the same faces are looked at to compare.")
    ] = 0.2,
    min_face: Annotated[
        int, typer.Option(min=1, metavar="PIXELS", help="Longer side of the faces used; small ones come out blurred.")
    ] = 128,
    num: Annotated[int, typer.Option(min=0, metavar="N", help="At most so many faces; 0 for all.")] = 200,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Another seed, other faces and places.")] = 0,
    fill: Annotated[int, typer.Option(min=0, max=255, metavar="0..255", help="Grey of what no picture covers.")] = 128,
    score: Annotated[
        float, typer.Option(min=_LOWEST_SCORE, max=1, metavar="0.02..1", help="Score from which a face is found.")
    ] = 0.5,
    size: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WxH|N|auto|original",
            help="What the network sees; several times: all of them, merged.",
            show_default="auto",
        ),
    ] = None,
    nms: Annotated[float, typer.Option(min=0, max=1, metavar="0..1", help="Overlap at which two faces are one.")] = 0.4,
    save_pictures: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the close-ups, with their labels in labelv2.txt.")
    ] = None,
    device: Annotated[DeviceName, typer.Option(help="Where the network runs.")] = "auto",
    runtime: Annotated[RuntimeName | None, typer.Option(help="What runs the network.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Pictures at a time.", show_default="one a core")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """How well faces are found that fill the picture, as `scrfd detect` would find them.

    Labelled pictures are cut so that one face fills each share of a square frame.
    """
    from scrfdkit.cli import scoring
    from scrfdkit.evaluate.closeups import SHARES
    from scrfdkit.options import parse_size

    sizes = [parse_size(text) for text in size or ["auto"]]
    shares = [baseline, *(share or SHARES)]
    _check(model, shares, save_pictures)
    chosen, notes = _choose(labels, images, label_format, min_face=min_face, num=num, seed=seed)
    if save_pictures is not None:
        notes += _save(save_pictures, chosen, shares, fill)
    options = {"score_threshold": _LOWEST_SCORE, "nms_threshold": nms, "input_size": sizes if sizes[1:] else sizes[0]}
    how = {"jobs": jobs, "device": device, "runtime": runtime, **options}
    rows: dict[str, CloseUpScore] = {}
    for name, each in zip(scoring.names(None, model), model or (), strict=True):
        rows[name], odd = _run(each, name, chosen, shares, fill, score, how)
        notes += [note for note in odd if note not in notes]
    facts = {"faces": len(chosen[2]), "min_face": min_face, "seed": seed, "fill": fill, "score_threshold": score}
    _report(rows, {**facts, "size": size or ["auto"], "nms_threshold": nms}, notes, as_json=as_json)


def _check(models: Sequence[str] | None, shares: Sequence[float], save_to: Path | None) -> None:
    """Refuses what cannot work before anything is read or run. Raises OptionError."""
    if not models and save_to is None:
        raise OptionError("--model or --save-pictures: nothing to do; name a network, or a folder for the close-ups")
    for flag, value in zip(("--baseline", *("--share" for _ in shares[1:])), shares, strict=True):
        if not _SMALLEST_SHARE <= value <= 1:
            raise OptionError(f"{flag}: {value:g} is not a share of the frame's side from {_SMALLEST_SHARE:g} to 1")
    if save_to is not None and save_to.is_file():
        raise OptionError(f"--save-pictures: {save_to} is a file; name a folder")


def _choose(
    source: Path, images: Path | None, label_format: str | None, *, min_face: int, num: int, seed: int
) -> tuple[Chosen, list[str]]:
    """The faces to look at, and what was odd about the labels."""
    from scrfdkit.data import formats
    from scrfdkit.evaluate.closeups import choose
    from scrfdkit.evaluate.labelled import picture_folder, present, read

    if label_format is not None:
        formats.find(label_format, "--format")
    every, notes = read(source, label_format, images)
    labels, files = present(every, picture_folder(every, source, images))
    if len(labels) < len(every):
        notes.append(f"{len(labels):,} of {len(every):,} labelled pictures are there: faces are from these alone")
    return (labels, files, choose(labels, num=num, min_face=min_face, seed=seed)), notes


def _run(
    model: str, name: str, chosen: Chosen, shares: Sequence[float], fill: int, score: float, how: Mapping[str, Any]
) -> tuple[CloseUpScore, list[str]]:
    """One network's figures, with a bar where somebody watches."""
    from rich.console import Console
    from rich.progress import track

    from scrfdkit.cli import scoring
    from scrfdkit.evaluate import closeup_score, closeups
    from scrfdkit.files.pipeline import ordered_map

    labels, files, subjects = chosen
    detector, workers = scoring.open_model(model, len(subjects), **how)
    console = Console(stderr=True)
    bar: dict[str, Any] = {"console": console, "transient": True, "disable": not console.is_terminal}

    def mapper(function: Any, items: Sequence[Subject]) -> Any:
        return track(ordered_map(function, items, workers), name, len(items), **bar)

    seen, notes = closeups.look(labels, files, subjects, shares, detector.detect, fill=fill, mapper=mapper)
    return closeup_score.score(seen[0], seen[1:], score_threshold=score), notes


def _save(folder: Path, chosen: Chosen, shares: Sequence[float], fill: int) -> list[str]:
    """Writes every close-up as a picture, the baseline's too, and their labels; gives notes about unreadable ones."""
    from dataclasses import replace

    import cv2

    from scrfdkit import atomic, image
    from scrfdkit.data import formats
    from scrfdkit.data.pictures import stem
    from scrfdkit.data.words import plural
    from scrfdkit.errors import ImageError
    from scrfdkit.evaluate.closeups import close_up
    from scrfdkit.evaluate.run import unreadable

    labels, files, subjects = chosen
    kept: list[LabelledImage] = []
    broken: list[ImageError] = []
    for subject in subjects:
        try:
            pixels = image.load(files[subject.picture]).pixels
        except ImageError as error:
            broken.append(error)
            continue
        for share in dict.fromkeys(shares):
            frame = close_up(labels[subject.picture], pixels, subject, share, fill=fill)
            path = f"{share:g}/{stem(frame.labels.path)}.png"
            atomic.save(folder / path, cv2.imencode(".png", frame.pixels)[1].tobytes())
            kept.append(replace(frame.labels, path=path))
    if broken and not kept:
        raise broken[0]
    formats.write(kept, folder / "labelv2.txt", "labelv2")
    typer.echo(f"wrote {plural(len(kept), 'close-up')} to {folder}", err=True)
    return list(unreadable(broken))


def _report(rows: Mapping[str, CloseUpScore], facts: Mapping[str, Any], notes: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        figures = [{"name": name, **row.to_dict()} for name, row in rows.items()]
        typer.echo(json.dumps({**facts, "rows": figures, "notes": list(notes)}, indent=2))
        return
    for note in notes:
        typer.echo(f"warning: {note}", err=True)
    if rows:
        _table(rows, facts)


def _table(rows: Mapping[str, CloseUpScore], facts: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from scrfdkit.data.words import plural

    console = Console(markup=False, highlight=False, width=None if Console().is_terminal else 160)
    first = next(iter(rows.values()))
    console.print(
        f"{plural(first.baseline.faces, 'face')}, each filling these shares of the frame's side;"
        f" found: score from {facts['score_threshold']:g}, IoU from 0.5"
    )
    table = Table()
    table.add_column("detector", overflow="fold")
    table.add_column("figure")
    for each in (first.baseline, *first.shares):
        table.add_column(f"{100 * each.share:g} %", justify="right")
    table.add_column(f"all but {100 * first.baseline.share:g} %", justify="right")
    for name, row in rows.items():
        columns = [_figures(each) for each in (row.baseline, *row.shares)]
        for figure in columns[0]:
            total = f"{100 * row.found:.1f}" if figure == "found, %" else ""
            table.add_row(name, figure, *(column.get(figure, "-") for column in columns), total)
        table.add_section()
    console.print(table)


def _figures(each: ShareScore) -> dict[str, str]:
    """A column of the table."""
    figures = {
        "found, %": f"{100 * each.found:.1f}",
        "median score": f"{each.median_score:.3f}",
        "mean score": f"{each.mean_score:.3f}",
        "mean IoU of found": "-" if math.isnan(each.mean_iou) else f"{each.mean_iou:.3f}",
    }
    if each.landmarks is not None:
        figures["median landmark error"] = "-" if not each.landmarks.faces else f"{each.landmarks.median:.4f}"
    return figures
