"""`scrfd data`: labels of own pictures converted, checked and looked at."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scrfdkit.errors import OptionError, ScrfdError

if TYPE_CHECKING:
    from scrfdkit.data.check import Report, Watch
    from scrfdkit.data.labels import LabelledImage
    from scrfdkit.types import Image

app = typer.Typer(no_args_is_help=True, help="Labels of your own pictures: convert, check, look at them.")

_FORMATS = "labelv2|wider|coco|yolo|voc|csv"
_SHOWN = 5  # findings of each kind, unless --all
_CELL, _TITLE, _GAP = 480, 40, 8  # pixels of a contact sheet


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
        typer.Option(metavar="DIR", help="Folder of the pictures, where SRC does not tell their sizes."),
    ] = None,
) -> None:
    """Convert labels from one format to another.

    What the new format cannot carry is told on standard error, with how
    many faces it concerns. A label that makes no sense is an error that
    names its file and line, and nothing is written.
    """
    from scrfdkit.data import formats

    formats.find(to, "--to")
    if from_ is not None:
        formats.find(from_, "--from")
    reading = formats.scan(source, format=from_, images=images, strict=True)
    if not reading.images:
        raise ScrfdError(f"{source}: no labelled pictures in it")
    losses = formats.write(reading.images, out, to)
    for what, number in reading.not_read.items():
        _say(f"not read: {number:,} x {what}", err=True)
    for what, number in losses.items():
        _say(f"{to} cannot carry: {number:,} x {what}", err=True)
    faces = sum(len(labels.boxes) for labels in reading.images)
    _say(f"wrote {out}: {len(reading.images):,} pictures, {faces:,} faces")


@app.command()
def check(
    source: _Source,
    images: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the pictures; without it only labels are checked.")
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

    from scrfdkit.data import formats
    from scrfdkit.data.check import check as check_labels

    if format is not None:
        formats.find(format, "--format")
    jobs = len(os.sched_getaffinity(0))
    with _progress(show=images is not None) as watch:
        report = check_labels(source, format=format, images=images, jobs=jobs, watch=watch)
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

    for kind, meaning in KINDS.items():
        found = [finding for finding in report.findings if finding.kind == kind]
        if not found:
            continue
        remarks = sum(finding.level == "remark" for finding in found)
        told = f" ({remarks:,} mere remarks)" if remarks else ""
        _say(f"{kind}: {meaning}: {len(found):,}{told}")
        found.sort(key=lambda finding: finding.level == "remark")  # problems first
        for finding in found if everything else found[:_SHOWN]:
            _say(f"  {finding.place}: {finding.text}")
        if not everything and len(found) > _SHOWN:
            _say(f"  ... {len(found) - _SHOWN:,} more; --all prints them")


def _print_summary(report: Report) -> None:
    s = report.summary
    _say(f"{s.pictures:,} pictures, {s.pictures_without_faces:,} without faces")
    points = f"{s.with_landmarks:,} with key points ({s.num_keypoints} each)" if s.num_keypoints else "no key points"
    _say(f"{s.faces:,} faces, {s.ignored:,} of them ignored, {points}")
    if most := max(s.sizes.values()):
        _say("faces by the geometric mean of their sides, in pixels:")
        for name, number in s.sizes.items():
            _say(f"  {name:>8} {number:>9,} {'#' * round(40 * number / most)}".rstrip())
    remarks = len(report.findings) - report.problems
    _say(f"{report.problems:,} problems, {remarks:,} remarks")


@app.command()
def show(
    source: _Source,
    images: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the pictures.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", metavar="FILE|DIR", help="One sheet, or a folder for single pictures in full size."
        ),
    ],
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
    from scrfdkit.data import formats

    if format is not None:
        formats.find(format, "--format")
    one_sheet = out.suffix.lower() in (".png", ".jpg", ".jpeg", ".webp") and not out.is_dir()
    if not one_sheet and out.is_file():
        raise OptionError(f"--out: {out} is a file; name a .png, .jpg or .webp file, or a folder")
    labels = formats.read(source, format=format, images=images)
    if not labels:
        raise ScrfdError(f"{source}: no labelled pictures in it")
    picked = random.Random(seed).sample(labels, min(number, len(labels)))
    drawn = ((m, picture) for m in picked if (picture := _drawn(m, images, one_sheet)) is not None)
    if one_sheet:
        cells = [_cell(m, picture) for m, picture in drawn]
        if not cells:
            raise ScrfdError(f"{images}: none of the {len(picked)} pictures could be read")
        save(out, _encoded(_sheet(cells), out.suffix))
        _say(f"wrote {out}: {len(cells)} pictures")
        return
    written = 0
    for m, picture in drawn:
        save(out / f"{m.path}.png", _encoded(picture, ".png"))
        written += 1
    _say(f"wrote {written} pictures to {out}")


def _drawn(labels: LabelledImage, images: Path, small: bool) -> Image | None:
    """The picture with its faces, shrunk to a sheet's cell first if `small`, so that lines stay legible."""
    import cv2
    import numpy as np

    from scrfdkit import draw
    from scrfdkit.errors import ImageError
    from scrfdkit.image import load
    from scrfdkit.types import Detections

    try:
        picture = load(images / labels.path)
    except ImageError as error:
        _say(f"warning: {error}", err=True)
        return None
    pixels = picture.pixels
    scale = min(1.0, _CELL / max(pixels.shape[:2])) if small else 1.0
    if scale < 1:
        size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    points = None
    if labels.keypoints is not None:
        # What is not labelled is put where nothing is drawn.
        points = np.where(labels.keypoints[:, :, 2:] < 0, np.float32(-1e6), labels.keypoints[:, :, :2])
    faces = Detections(labels.boxes, np.ones(len(labels.boxes), np.float32), points).scale(scale, scale)
    out = draw.annotate(pixels, faces[~labels.ignore], scores=False)
    line = max(1, round(min(out.shape[:2]) / 400))
    for x1, y1, x2, y2 in np.clip(faces.boxes[labels.ignore], -30000, 30000).round().astype(int).tolist():
        cv2.rectangle(out, (x1, y1), (x2, y2), (160, 160, 160), line)
        cv2.line(out, (x1, y1), (x2, y2), (160, 160, 160), line)
        cv2.line(out, (x1, y2), (x2, y1), (160, 160, 160), line)
    return out


def _cell(labels: LabelledImage, picture: Image) -> Image:
    """A square with the picture in its middle and two lines of text below."""
    import cv2
    import numpy as np

    out = np.full((_CELL + _TITLE, _CELL, 3), 32, np.uint8)
    height, width = picture.shape[:2]
    top, left = (_CELL - height) // 2, (_CELL - width) // 2
    out[top : top + height, left : left + width] = picture
    ignored = int(labels.ignore.sum())
    facts = f"{labels.width}x{labels.height}, {len(labels.boxes)} faces" + (f", {ignored} ignored" if ignored else "")
    name = labels.path.rsplit("/", 1)[-1]
    name = name if len(name) <= 60 else f"{name[:28]}...{name[-29:]}"
    for row, words in enumerate((name, facts)):
        # OpenCV's letters are ASCII only.
        plain = words.encode("ascii", "replace").decode()
        at = (4, _CELL + 15 + 18 * row)
        cv2.putText(out, plain, at, cv2.FONT_HERSHEY_SIMPLEX, 0.43, (230, 230, 230), 1, cv2.LINE_AA)
    return out


def _sheet(cells: Sequence[Image]) -> Image:
    """As square as it goes."""
    import numpy as np

    across = max(n for n in range(1, len(cells) + 1) if (n - 1) ** 2 < len(cells))
    down = -(-len(cells) // across)
    width, height = cells[0].shape[1] + _GAP, cells[0].shape[0] + _GAP
    sheet = np.full((down * height + _GAP, across * width + _GAP, 3), 16, np.uint8)
    for i, cell in enumerate(cells):
        y, x = _GAP + i // across * height, _GAP + i % across * width
        sheet[y : y + cell.shape[0], x : x + cell.shape[1]] = cell
    return sheet


def _encoded(picture: Image, suffix: str) -> bytes:
    import cv2

    good, data = cv2.imencode(suffix.lower(), picture)
    if not good:
        raise ScrfdError(f"a sheet of {picture.shape[1]}x{picture.shape[0]} pixels cannot be written as {suffix}")
    content: Any = data
    return bytes(content.tobytes())
