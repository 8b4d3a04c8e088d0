"""`scrfd analyze`: which faces a detector misses and where it is wrong, as a page to look at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

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
    setting: Annotated[Literal["easy", "medium", "hard"], typer.Option(help="Which faces count.")] = "hard",
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
    from scrfdkit.data.words import plural
    from scrfdkit.evaluate import attributes
    from scrfdkit.evaluate.analysis import analyze
    from scrfdkit.evaluate.report import report
    from scrfdkit.evaluate.run import wider_pictures
    from scrfdkit.evaluate.widerface import read_ground_truth

    names = _names(detections or [], model or [], name or [])
    _check(output, threshold, mode, bool(model), images)
    every = read_ground_truth(gt)
    labels = attributes.read_attributes(gt, every)
    stored = _read(detections or [])
    paths = dict(zip(*wider_pictures(images, every), strict=True)) if images is not None else {}
    truth, notes = _readable(every, paths) if paths else (every, [])
    looked = [_look(each, {image: paths[image] for image in truth.images}, mode) for each in model or []]
    # A picture that one network could not read says nothing about any of them.
    usable = set(truth.images).intersection(*(found.images for found in looked))
    truth = truth.select([image for image in truth.images if image in usable])
    labels = [grouping.select(attributes.faces_of(every, truth.images)) for grouping in labels]
    found, odd = _align(truth, set(every.images) - usable, dict(zip(names, [*stored, *looked], strict=True)))
    notes += odd
    sizes = attributes.read_sizes(truth, paths)[0] if paths else None
    analysis = analyze(truth, found, labels=labels, picture_sizes=sizes, setting=setting, threshold=threshold)
    html, problems = report(analysis, paths, notes)
    for line in (*notes, *problems):
        typer.echo(f"warning: {line}", err=True)
    save(output, html.encode())
    typer.echo(f"{output}: {plural(len(truth.images), 'picture')}, {len(html.encode()) / 1e6:.1f} MB")


def _check(output: Path, threshold: float | None, mode: str, models: bool, images: Path | None) -> None:
    """Refuses what cannot work before anything is read or run. Raises OptionError."""
    from scrfdkit.atomic import is_folder
    from scrfdkit.evaluate.reference import parse_mode

    parse_mode(mode)
    if is_folder(output):
        raise OptionError(f"--output: {output} is a folder; name a file, such as {output / 'report.html'}")
    if threshold is not None and not math.isfinite(threshold):
        raise OptionError(f"--score: {threshold} is not a score")
    if models and images is None:
        raise OptionError("--model looks at pictures: name their folder with --images DIR")


def _names(detections: list[Path], models: list[str], given: list[str]) -> list[str]:
    """A name for each set of results. Raises OptionError for none, for too many and for equal names."""
    from scrfdkit.data.words import plural
    from scrfdkit.evaluate.analysis import MAX_RUNS
    from scrfdkit.evaluate.names import run_name

    sources = [run_name(source) for source in [*map(str, detections), *models]]
    if not sources:
        raise OptionError("--detections DIR|FILE.npz or --model NAME|FILE: at least one is needed")
    if len(sources) > MAX_RUNS:
        raise OptionError(f"--detections, --model: {len(sources)} sets of results; at most {MAX_RUNS} fit on a page")
    if len(given) > len(sources):
        results = plural(len(sources), "set of results", "sets of results")
        raise OptionError(f"--name: {plural(len(given), 'name')} for {results}")
    names = given + sources[len(given) :]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise OptionError(f"--name: two sets of results are called {twice!r}; give each a --name of its own")
    return names


def _read(detections: list[Path]) -> list[Results]:
    from scrfdkit.evaluate.results import read

    return [read(path) for path in detections]


def _readable(truth: GroundTruth, paths: Mapping[str, Path]) -> tuple[GroundTruth, list[str]]:
    """The pictures that are there and are pictures, and a note about others. Raises ImageError where there is none."""
    from scrfdkit.evaluate.attributes import read_sizes
    from scrfdkit.evaluate.run import unreadable

    present = truth.select(list(paths))
    _, broken = read_sizes(present, paths)
    if len(broken) == len(paths):
        raise next(iter(broken.values()))
    return present.select([name for name in paths if name not in broken]), list(unreadable(list(broken.values())))


def _align(truth: GroundTruth, others: Set[str], results: Mapping[str, Results]) -> tuple[dict[str, Found], list[str]]:
    """Results by name, and what the user must know about them. others: pictures that are left out on purpose."""
    from scrfdkit.evaluate.results import align

    found: dict[str, Found] = {}
    notes: list[str] = []
    for name, each in results.items():
        _, found[name], odd = align(truth, each.without(others), "empty")
        notes += [f"{name}: {note}" for note in odd]
    return found, notes


def _look(model: str, paths: Mapping[str, Path], mode: str) -> Results:
    """Runs a network on every picture, by the road that published figures are measured on."""
    from scrfdkit.cli.scoring import run_reference

    _, done = run_reference(model, list(paths), list(paths.values()), mode, jobs=None, device="auto", runtime=None)
    return done.results
