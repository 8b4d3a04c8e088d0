"""`scrfd data`: labels of own pictures converted, checked and looked at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scrfdkit.cli.labels import FORMATS, Format, Source, say
from scrfdkit.cli.show import show
from scrfdkit.errors import ScrfdError

if TYPE_CHECKING:
    from scrfdkit.data.check import Report, Watch

app = typer.Typer(no_args_is_help=True, help="Labels of your own pictures: convert, check, look at them.")

_SHOWN = 5  # findings of each kind, unless --all


@app.command()
def convert(
    source: Source,
    out: Annotated[
        Path, typer.Argument(metavar="DST", help="The file to write; for yolo and voc a folder.", show_default=False)
    ],
    to: Annotated[str, typer.Option("--to", metavar=FORMATS, help="Format of DST.", show_default=False)],
    from_: Annotated[
        str | None, typer.Option("--from", metavar=FORMATS, help="Format of SRC.", show_default="by looking")
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
        say(f"note: {note}", err=True)
    for what, number in reading.not_read.items():
        say(f"not read: {number:,} x {what}", err=True)
    for what, number in losses.items():
        say(f"{to} cannot carry: {number:,} x {what}", err=True)
    faces = sum(len(labels.boxes) for labels in reading.images)
    say(f"wrote {out}: {plural(len(reading.images), 'picture')}, {plural(faces, 'face')}")


@app.command()
def check(
    source: Source,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the pictures; without it only labels are checked, but for yolo, which needs its pictures.",
        ),
    ] = None,
    format: Format = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every finding.")] = False,
    everything: Annotated[bool, typer.Option("--all", help=f"Print every finding, not {_SHOWN} of each kind.")] = False,
) -> None:
    """Find what breaks a training: each with its file and line.

    Exit codes: 0 nothing but remarks was found; 1 there are problems; 2
    wrong usage, or there is nothing to check.
    """
    from dataclasses import asdict

    from scrfdkit.data import formats
    from scrfdkit.data.check import check as check_labels
    from scrfdkit.data.pictures import folder_of
    from scrfdkit.machine import usable_cores

    kind = formats.find(format or formats.guess(source), "--format")
    if images is None and kind.pictured:
        images = folder_of(source)
    with _progress(show=images is not None) as watch:
        report = check_labels(source, format=format, images=images, jobs=usable_cores(), watch=watch)
    if as_json:
        say(json.dumps({"problems": report.problems, **asdict(report)}, indent=2))
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
        say(f"{kind}: {meaning}: {len(found):,}{told}")
        found.sort(key=lambda finding: finding.level == "remark")  # problems first
        for finding in found if everything else found[:_SHOWN]:
            say(f"  {finding.place}: {finding.text}")
        if not everything and len(found) > _SHOWN:
            say(f"  ... {len(found) - _SHOWN:,} more; --all prints them")


def _print_summary(report: Report) -> None:
    from scrfdkit.data.words import plural

    s = report.summary
    say(f"{plural(s.pictures, 'picture')}, {s.pictures_without_faces:,} without faces")
    points = f"{s.with_landmarks:,} with key points ({s.num_keypoints} each)" if s.num_keypoints else "no key points"
    say(f"{plural(s.faces, 'face')}, {s.ignored:,} of them ignored, {points}")
    if most := max(s.sizes.values()):
        say("faces by the geometric mean of their sides, in pixels:")
        for name, number in s.sizes.items():
            say(f"  {name:>8} {number:>9,} {'#' * round(40 * number / most)}".rstrip())
    remarks = len(report.findings) - report.problems
    say(f"{plural(report.problems, 'problem')}, {plural(remarks, 'remark')}")


app.command()(show)
