"""`scrfd data`: labels of own pictures converted, checked and looked at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scrfdkit.errors import OptionError, ScrfdError

if TYPE_CHECKING:
    from scrfdkit.data.check import Report, Watch
    from scrfdkit.data.labels import LabelledImage
    from scrfdkit.types import Image

app = typer.Typer(no_args_is_help=True, help="Labels of your own pictures: convert, check, look at them.")

_FORMATS = "labelv2|wider|coco|yolo|voc|csv"
_SHOWN = 5  # findings of each kind, unless --all


def _say(text: str, *, err: bool = False) -> None:
    """Prints a line, whatever bytes the names of files are made of."""
    typer.echo(text.encode("utf-8", "backslashreplace").decode(), err=err)


_Source = Annotated[Path, typer.Argument(metavar="SRC", help="A label file, or a folder of them.", show_default=False)]
_Format = Annotated[str | None, typer.Option(metavar=_FORMATS, help="Format of SRC.", show_default="by looking")]


@app.command()
def convert(
    source: _Source,
    out: Annotated[
        Path, typer.Argument(metavar="DST", help="The file to write; for yolo and voc a folder.", show_default=False)
    ],
    to: Annotated[str, typer.Option("--to", metavar=_FORMATS, help="Format of DST.", show_default=False)],
    from_: Annotated[
        str | None, typer.Option("--from", metavar=_FORMATS, help="Format of SRC.", show_default="by looking")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the pictures, where SRC does not tell their sizes.",
            show_default="beside the labels, or their images/",
        ),
    ] = None,
) -> None:
    """Convert labels from one format to another.

    What the new format cannot carry is told on standard error, with how
    many faces it concerns. A label that makes no sense is an error that
    names its file and line, and nothing is written.
    """
    from scrfdkit.data import formats
    from scrfdkit.data.words import plural

    formats.find(to, "--to")
    if from_ is not None:
        formats.find(from_, "--from")
    reading = formats.scan(source, format=from_, images=images, strict=True)
    if not reading.images:
        raise ScrfdError(f"{source}: no labelled pictures in it")
    losses = formats.write(reading.images, out, to)
    for note in reading.notes:
        _say(f"note: {note}", err=True)
    for what, number in reading.not_read.items():
        _say(f"not read: {number:,} x {what}", err=True)
    for what, number in losses.items():
        _say(f"{to} cannot carry: {number:,} x {what}", err=True)
    faces = sum(len(labels.boxes) for labels in reading.images)
    _say(f"wrote {out}: {plural(len(reading.images), 'picture')}, {plural(faces, 'face')}")


@app.command()
def check(
    source: _Source,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the pictures; without it only labels are checked, but for yolo, which needs its pictures.",
        ),
    ] = None,
    format: _Format = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every finding.")] = False,
    everything: Annotated[bool, typer.Option("--all", help=f"Print every finding, not {_SHOWN} of each kind.")] = False,
) -> None:
    """Find what breaks a training: each with its file and line.

    Exit codes: 0 nothing but remarks was found; 1 there are problems; 2
    wrong usage, or there is nothing to check.
    """
    from dataclasses import asdict

    from scrfdkit.benchmark.machine import usable_cores
    from scrfdkit.data import formats
    from scrfdkit.data.check import check as check_labels
    from scrfdkit.data.pictures import folder_of

    kind = formats.find(format or formats.guess(source), "--format")
    if images is None and kind.pictured:
        images = folder_of(source)
    with _progress(show=images is not None) as watch:
        report = check_labels(source, format=format, images=images, jobs=usable_cores(), watch=watch)
    if as_json:
        _say(json.dumps({"problems": report.problems, **asdict(report)}, indent=2))
    else:
        _print_findings(report, everything)
        _print_summary(report)
    if report.problems:
        raise typer.Exit(1)


@contextmanager
def _progress(*, show: bool) -> Iterator[Watch | None]:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if not (show and console.is_terminal):
        yield None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("reading pictures", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print_findings(report: Report, everything: bool) -> None:
    from scrfdkit.data.check import KINDS
    from scrfdkit.data.words import plural

    for kind, meaning in KINDS.items():
        found = [finding for finding in report.findings if finding.kind == kind]
        if not found:
            continue
        remarks = sum(finding.level == "remark" for finding in found)
        told = f" ({plural(remarks, 'mere remark')})" if remarks else ""
        _say(f"{kind}: {meaning}: {len(found):,}{told}")
        found.sort(key=lambda finding: finding.level == "remark")  # problems first
        for finding in found if everything else found[:_SHOWN]:
            _say(f"  {finding.place}: {finding.text}")
        if not everything and len(found) > _SHOWN:
            _say(f"  ... {len(found) - _SHOWN:,} more; --all prints them")


def _print_summary(report: Report) -> None:
    from scrfdkit.data.words import plural

    s = report.summary
    _say(f"{plural(s.pictures, 'picture')}, {s.pictures_without_faces:,} without faces")
    points = f"{s.with_landmarks:,} with key points ({s.num_keypoints} each)" if s.num_keypoints else "no key points"
    _say(f"{plural(s.faces, 'face')}, {s.ignored:,} of them ignored, {points}")
    if most := max(s.sizes.values()):
        _say("faces by the geometric mean of their sides, in pixels:")
        for name, number in s.sizes.items():
            _say(f"  {name:>8} {number:>9,} {'#' * round(40 * number / most)}".rstrip())
    remarks = len(report.findings) - report.problems
    _say(f"{plural(report.problems, 'problem')}, {plural(remarks, 'remark')}")


@app.command()
def show(
    source: _Source,
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FILE|DIR", help="One sheet, or a folder for single pictures in full size."
        ),
    ],
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the pictures.", show_default="beside the labels, or their images/"),
    ] = None,
    number: Annotated[int, typer.Option("-n", "--number", min=1, metavar="N", help="How many pictures.")] = 16,
    seed: Annotated[int, typer.Option(metavar="N", help="Another seed, other pictures.")] = 0,
    format: _Format = None,
) -> None:
    """Draw labelled pictures, picked at random: as a contact sheet, or one by one.

    Faces are drawn with their key points; ignored ones are grey and
    crossed out. A picture that cannot be read is told and left out.
    """
    import random

    from scrfdkit.atomic import save
    from scrfdkit.cli import sheet
    from scrfdkit.data import formats
    from scrfdkit.data.pictures import folder_of
    from scrfdkit.data.words import plural

    if format is not None:
        formats.find(format, "--format")
    one_sheet = out.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp") and not out.is_dir()
    if not one_sheet and out.is_file():
        raise OptionError(f"--out: {out} is a file; name a .png, .jpg or .webp file, or a folder")
    labels = formats.read(source, format=format, images=images)
    if not labels:
        raise ScrfdError(f"{source}: no labelled pictures in it")
    folder = images if images is not None else folder_of(source)
    picked = random.Random(seed).sample(labels, min(number, len(labels)))
    drawn = ((m, picture) for m in picked if (picture := _drawn(m, folder, small=one_sheet)) is not None)
    if one_sheet:
        cells = [sheet.cell(m, picture) for m, picture in drawn]
        if not cells:
            told = plural(len(picked), "picture")
            raise ScrfdError(f"{folder}: none of {told} could be read; name their folder with --images")
        save(out, sheet.encoded(sheet.sheet(cells), out.suffix))
        _say(f"wrote {out}: {plural(len(cells), 'picture')}")
        return
    written = 0
    for m, picture in drawn:
        save(out / f"{m.path}.png", sheet.encoded(picture, ".png"))
        written += 1
    _say(f"wrote {plural(written, 'picture')} to {out}")


def _drawn(labels: LabelledImage, folder: Path, *, small: bool) -> Image | None:
    """The picture with its faces; one that cannot be read is told of."""
    from scrfdkit.cli import sheet
    from scrfdkit.errors import ImageError

    try:
        return sheet.drawn(labels, folder, small=small)
    except ImageError as error:
        _say(f"warning: {error}", err=True)
        return None
