"""`scrfd data show`: labelled pictures drawn, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scrfdkit.cli.labels import Format, Source, say
from scrfdkit.errors import OptionError, ScrfdError

if TYPE_CHECKING:
    from scrfdkit.data.labels import LabelledImage
    from scrfdkit.sheet import Labelled

_SHEETS = (".png", ".jpg", ".jpeg", ".webp")


def show(
    source: Source,
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
    pictures: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only pictures of this name, or pattern like '0--Parade/*'; may come again."),
    ] = None,
    min_face: Annotated[
        float, typer.Option(min=0, metavar="PX", help="Leave out smaller faces, and pictures without others.")
    ] = 0,
    format: Format = None,
) -> None:
    """Draw labelled pictures, picked at random: as a contact sheet, or one by one.

    Key points are drawn in a colour each, hidden ones as rings; ignored
    faces are dashed. The sheet ends with a key to its colours.

    Exit codes: 0 all were drawn; 1 some pictures could not be read, as told
    on standard error, and the others were drawn; 2 wrong usage, or there is
    nothing to draw.
    """
    from scrfdkit.data import formats
    from scrfdkit.data.pictures import folder_holding
    from scrfdkit.data.words import plural

    if format is not None:
        formats.find(format, "--format")
    one_sheet = out.suffix.lower() in _SHEETS and not out.is_dir()
    if not one_sheet and out.is_file():
        raise OptionError(f"--out: {out} is a file; name a .png, .jpg or .webp file, or a folder")
    labels = formats.read(source, format=format, images=images)
    if not labels:
        raise ScrfdError(f"{source}: no labelled pictures in it")
    folder = images if images is not None else folder_holding(source, (image.path for image in labels))
    pool = _pool(labels, pictures or (), min_face)
    picked = _picked(pool, number, seed)
    written = _write_sheet(picked, folder, out) if one_sheet else _write_pictures(picked, folder, out)
    if not written:
        told = plural(len(picked), "picture")
        raise ScrfdError(f"{folder}: none of {told} could be read; name their folder with --images")
    of = f" of {len(pool):,}" if written < len(pool) else ""
    say(f"wrote {out}: {plural(written, 'picture')}{of}")
    if written < len(picked):
        raise typer.Exit(1)


def _pool(labels: Sequence[LabelledImage], names: Sequence[str], min_face: float) -> list[LabelledImage]:
    """The pictures to pick from, in the order of the labels."""
    wanted = {i for name in names for i in _named(labels, name)} if names else set(range(len(labels)))
    pool = [labels[i] for i in sorted(wanted)]
    if min_face > 0:
        pool = [m for m in (_without_small(m, min_face) for m in pool) if len(m.boxes)]
        if not pool:
            raise OptionError(f"--min-face: no picture has a face of {min_face:g} pixels")
    return pool


def _named(labels: Sequence[LabelledImage], name: str) -> list[int]:
    """Which pictures have the name: a path, its end, or a pattern of either."""
    from fnmatch import fnmatchcase

    found = [i for i, m in enumerate(labels) if m.path == name or m.path.endswith(f"/{name}")]
    found = found or [i for i, m in enumerate(labels) if fnmatchcase(m.path, name) or fnmatchcase(m.path, f"*/{name}")]
    if not found:
        raise OptionError(f"--pictures: no labelled picture is called {name}")
    return found


def _without_small(labels: LabelledImage, least: float) -> LabelledImage:
    from dataclasses import replace

    import numpy as np

    sides = np.clip(labels.boxes[:, 2:] - labels.boxes[:, :2], 0, None).astype(np.float64)
    large = np.sqrt(sides.prod(axis=1)) >= least
    points = None if labels.keypoints is None else labels.keypoints[large]
    return replace(labels, boxes=labels.boxes[large], ignore=labels.ignore[large], keypoints=points)


def _picked(pool: Sequence[LabelledImage], number: int, seed: int) -> list[LabelledImage]:
    """Some at random, in the order of the labels, so that pictures that belong together stay together."""
    import random

    which = random.Random(seed).sample(range(len(pool)), min(number, len(pool)))
    return [pool[i] for i in sorted(which)]


def _write_sheet(picked: Sequence[LabelledImage], folder: Path, out: Path) -> int:
    """Returns how many pictures are on it; without any, nothing is written."""
    from scrfdkit import sheet
    from scrfdkit.atomic import save

    side = sheet.cell_side(len(picked))
    cells = [sheet.fit(loaded, side) for m in picked if (loaded := _loaded(m, folder)) is not None]
    if cells:
        save(out, sheet.encoded(sheet.contact_sheet(cells), out.suffix))
    return len(cells)


def _write_pictures(picked: Sequence[LabelledImage], folder: Path, out: Path) -> int:
    """Returns how many were written."""
    from scrfdkit import sheet
    from scrfdkit.atomic import save

    written = 0
    for m in picked:
        if (loaded := _loaded(m, folder)) is not None:
            save(out / f"{m.path}.png", sheet.encoded(sheet.mark(loaded), ".png"))
            written += 1
    return written


def _loaded(labels: LabelledImage, folder: Path) -> Labelled | None:
    """The picture and what is said of it; one that cannot be read is told of."""
    from dataclasses import replace

    from scrfdkit.data.words import plural
    from scrfdkit.errors import ImageError
    from scrfdkit.image import load
    from scrfdkit.sheet import Labelled

    try:
        picture = load(folder / labels.path)
    except ImageError as error:
        say(f"warning: {error}", err=True)
        return None
    found = Labelled(picture.pixels, labels.boxes, labels.keypoints, labels.ignore)
    facts = [f"{picture.width}x{picture.height}", plural(len(labels.boxes), "face")]
    if labels.width and (labels.width, labels.height) != (picture.width, picture.height):
        facts.insert(1, f"labelled as {labels.width}x{labels.height}")
    for which, what in ((found.ignored, "ignored"), (found.bare & ~found.ignored, "without key points")):
        facts += [f"{which.sum():,} {what}"] if which.any() else []
    return replace(found, words=(labels.path.rsplit("/", 1)[-1], ", ".join(facts)))
