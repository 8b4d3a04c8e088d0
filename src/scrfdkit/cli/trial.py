"""Flags and words that `scrfd export` and `scrfd verify` share: how a file is tried, and what came out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scrfdkit.errors import MissingExtraError, OptionError

if TYPE_CHECKING:
    from scrfdkit.certificate import Certificate
    from scrfdkit.export.measure import Trial
    from scrfdkit.export.order import Target
    from scrfdkit.export.source import Source

Pictures = Annotated[
    list[Path] | None,
    typer.Option("--pictures", help="Pictures or folders to compare faces on; may be repeated. Default: a portrait."),
]
Data = Annotated[
    Path | None, typer.Option("--data", help="Labels with their pictures, or with --gt WIDER FACE's: for AP.")
]
GroundTruth = Annotated[Path | None, typer.Option("--gt", help="Folder of WIDER FACE's .mat files.")]
Images = Annotated[Path | None, typer.Option("--images", help="Folder of the pictures that --data labels.")]
MaxDrop = Annotated[
    float, typer.Option("--max-ap-drop", help="Percent of AP (hard, if there is one) that may be lost.")
]
Threads = Annotated[int, typer.Option("--threads", min=1, help="Threads of the network while it is timed.")]


def trial(
    pictures: list[Path] | None,
    data: Path | None,
    gt: Path | None,
    images: Path | None,
    max_drop: float,
    threads: int,
    size: tuple[int, int] | None,
) -> Trial:
    """The trial that the flags ask for. Raises OptionError, or what reading the labels raises."""
    from scrfdkit.cli.flags import check_threads
    from scrfdkit.cli.validation import scorer
    from scrfdkit.export.measure import Trial

    if data is None and (gt is not None or images is not None):
        raise OptionError("--gt and --images: name the labels or the folder of the pictures with --data")
    check_threads(threads)
    if not math.isfinite(max_drop):
        raise OptionError(f"--max-ap-drop: {max_drop} is no number")
    mode = f"{size[0]}x{size[1]}" if size else "640"
    score = scorer(data, gt, images, mode) if data is not None else None
    return Trial(files(pictures or [], "--pictures"), score, max_drop, threads=threads)


def files(places: list[Path], flag: str) -> tuple[Path, ...]:
    """The pictures in files and folders. Raises OptionError where there are none."""
    from scrfdkit.atomic import exists
    from scrfdkit.files.inputs import expand

    for place in places:
        if not exists(place):
            raise OptionError(f"{flag}: {place}: there is no such file or folder")
    found = expand([str(place) for place in places])
    problem = next((source for source in found if source.problem), None)
    if problem is not None:
        raise OptionError(f"{flag}: {problem.problem}")
    pictures = tuple(Path(source.file) for source in found if source.kind == "picture")
    if places and not pictures:
        raise OptionError(f"{flag}: there are no pictures in {', '.join(map(str, places))}")
    return pictures


def targets() -> Mapping[str, Target]:
    """All formats by their names. Raises MissingExtraError, naming the extra."""
    try:
        from scrfdkit.export.targets import TARGETS
    except ImportError as error:
        if error.name in ("torch", "onnx", "safetensors"):
            raise MissingExtraError("exporting", "export", error.name) from None
        raise
    return TARGETS


def open_source(model: str | Path) -> Source:
    """As `export.source.open_source`, after making sure that all that it needs is installed."""
    targets()
    from scrfdkit.export.source import open_source

    return open_source(model)


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """What is told to it is shown on a terminal, one thing at a time."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("reading the weights") as status:
        yield status.update


def report(made: Certificate) -> None:
    """Prints what was measured."""
    measured = made.measured
    if "not_run" in measured:
        typer.echo(f"not run here: {measured['not_run']}")
        typer.echo("on a machine that can: `scrfd verify --update` completes its certificate")
        return
    parity = measured["parity"]
    typer.echo(f"{parity['candidate']} against {parity['reference']}, largest differences:")
    for case in parity["cases"]:
        parts = {"scores": case["scores"], "boxes": case["boxes"]}
        parts |= {"key points": case["keypoints"]} if case["keypoints"] else {}
        parts |= {"faces": case["faces"]} if made.contract["layout"] == "end2end" else {}
        words = ", ".join(f"{name} {value:.1e}" for name, value in parts.items())
        typer.echo(f"  {case['batch']} x {case['width']}x{case['height']}: {words}")
    if "faces" in measured:
        _report_faces(measured)


def _report_faces(measured: Mapping[str, Any]) -> None:
    faces = measured["faces"]
    found = f"{faces['faces'] - faces['missing']} of {faces['faces']} faces found, {faces['extra']} more"
    points = f", key points {faces['keypoints']:.2g}" if faces["keypoints"] else ""
    typer.echo(f"{faces['pictures']} picture(s): {found}; boxes within {faces['boxes']:.2g}{points} pixels")
    if measured["batch_difference"] is not None:
        typer.echo(f"a picture in a batch and by itself: within {measured['batch_difference']:.1e}")
    if "ap" not in measured and measured["parity"]["tolerance"] is None:
        typer.echo("AP was not measured; --data does, and --max-ap-drop says how much may be lost")
    if "ap" in measured:
        pairs = zip(measured["ap"].items(), measured["ap_pytorch"].values(), strict=True)
        typer.echo("AP: " + ", ".join(f"{name} {ap:.2f} (PyTorch {plain:.2f})" for (name, ap), plain in pairs))
    time = measured["latency"]
    size = "x".join(map(str, time["size"]))
    typer.echo(
        f"{time['milliseconds']['median']:.1f} ms a run ({time['batch']} x {size}, {time['threads']} thread(s),"
        f" {measured['device']})"
    )
