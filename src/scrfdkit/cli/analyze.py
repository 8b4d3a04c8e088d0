"""`scrfd analyze`: which faces a detector misses and where it is wrong, as a page to look at."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scrfdkit.errors import OptionError

if TYPE_CHECKING:
    from scrfdkit.evaluate.results import Results
    from scrfdkit.evaluate.widerface import Found, GroundTruth


def command(
    gt: Annotated[
        Path, typer.Option(metavar="DIR", help="WIDER FACE's ground truth, the four .mat files of its eval_tools.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.html", help="The page to write.")],
    detections: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR|FILE.npz", help="Results of a detector; again for another one beside it."),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(metavar="NAME|FILE", help="Network to run on --images first; may come again.")
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(help="What to call the results, in the order of --detections, then --model.", show_default="file"),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The pictures; only those that are here are analysed.", show_default="none"),
    ] = None,
    setting: Annotated[str, typer.Option(metavar="easy|medium|hard", help="Which faces count.")] = "hard",
    threshold: Annotated[
        float | None,
        typer.Option("--score", metavar="SCORE", help="Score from which a detection counts.", show_default="best F1"),
    ] = None,
    mode: Annotated[str, typer.Option(metavar="vga|original|N|WxH", help="What a --model sees.")] = "vga",
) -> None:
    """Analyse errors on WIDER FACE: one HTML page with AP by size, blur, pose ..., and the worst errors drawn.

    Without --images there are no galleries and no sizes as the network sees them.
    """
    from scrfdkit.atomic import save
    from scrfdkit.evaluate import attributes
    from scrfdkit.evaluate.analysis import analyze
    from scrfdkit.evaluate.report import report
    from scrfdkit.evaluate.run import wider_pictures
    from scrfdkit.evaluate.widerface import read_ground_truth

    names = _names(detections or [], model or [], name or [])
    if threshold is not None and not math.isfinite(threshold):
        raise OptionError(f"--score: {threshold} is not a score")
    if model and images is None:
        raise OptionError("--model looks at pictures: name their folder with --images DIR")
    truth = read_ground_truth(gt)
    labels = attributes.read_attributes(gt, truth)
    paths: dict[str, Path] = {}
    others: set[str] = set()
    if images is not None:
        present, files = wider_pictures(images, truth)
        paths = dict(zip(present, files, strict=True))
        faces = attributes.faces_of(truth, present)
        others = set(truth.images) - set(present)
        truth, labels = truth.select(present), [grouping.select(faces) for grouping in labels]
    found, notes = _read_all(truth, others, names, detections or [], model or [], paths, mode)
    sizes = attributes.read_sizes(truth, paths) if paths else None
    analysis = analyze(truth, found, labels=labels, picture_sizes=sizes, setting=setting, threshold=threshold)
    html, problems = report(analysis, paths, notes)
    for line in (*notes, *problems):
        typer.echo(f"warning: {line}", err=True)
    save(output, html.encode())
    typer.echo(f"{output}: {len(truth.images)} pictures, {len(html.encode()) / 1e6:.1f} MB")


def _names(detections: list[Path], models: list[str], given: list[str]) -> list[str]:
    """A name for each set of results. Raises OptionError for none, for too many names and for equal ones."""
    sources = [path.stem if path.suffix else path.name or str(path) for path in detections]
    sources += [Path(model).name.removesuffix(".onnx").removesuffix(".safetensors") for model in models]
    if not sources:
        raise OptionError("--detections DIR|FILE.npz or --model NAME|FILE: at least one is needed")
    if len(given) > len(sources):
        raise OptionError(f"--name: {len(given)} names for {len(sources)} sets of results")
    names = given + sources[len(given) :]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise OptionError(f"--name: two sets of results are called {twice!r}; give each a --name of its own")
    return names


def _read_all(
    truth: GroundTruth,
    others: set[str],
    names: list[str],
    detections: list[Path],
    models: list[str],
    paths: dict[str, Path],
    mode: str,
) -> tuple[dict[str, Found], list[str]]:
    """Results by name, and what the user must know about them. others: pictures that are left out on purpose."""
    from scrfdkit.evaluate.results import align, read

    found: dict[str, Found] = {}
    notes: list[str] = []
    for i, name in enumerate(names):
        if i < len(detections):
            results = _without(read(detections[i]), others)
        else:
            results = _look(models[i - len(detections)], paths, mode)
        _, found[name], odd = align(truth, results, "empty")
        notes += [f"{name}: {note}" for note in odd]
    return found, notes


def _without(results: Results, others: set[str]) -> Results:
    """The results without those of some pictures."""
    import numpy as np

    from scrfdkit.evaluate.results import Results, bare

    keep = np.array([bare(name) not in others for name in results.images], bool)
    rows = np.repeat(keep, results.counts)
    images = tuple(name for name, kept in zip(results.images, keep.tolist(), strict=True) if kept)
    return Results(images, results.counts[keep], results.boxes[rows], results.scores[rows], results.notes)


def _look(model: str, paths: dict[str, Path], mode: str) -> Results:
    """Runs a network on every picture, by the road that published figures are measured on."""
    from scrfdkit.cli.scoring import run_reference

    _, done = run_reference(model, list(paths), list(paths.values()), mode, jobs=None, device="auto", runtime=None)
    return done.results
