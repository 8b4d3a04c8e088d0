"""`scrfd train`: a network from labelled pictures, from nothing or from weights; again for a run that was stopped."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from scrfdkit.cli.flags import flag
from scrfdkit.errors import MissingExtraError, OptionError

if TYPE_CHECKING:
    from scrfdkit.train.outcome import Result
    from scrfdkit.train.recipe import Recipe
    from scrfdkit.train.settings import Settings

_DATA, _LEARN, _RUN, _SCORE = "Pictures", "Learning", "The run", "Scores"


Model = Annotated[
    str | None,
    typer.Option(metavar="NAME|FILE", help="Network: zoo name, .json description, or weights to go on from."),
]
Data = Annotated[
    Path | None, typer.Option(metavar="SRC", help="Labels in any known format, or a folder with train/ and val/.")
]
RecipeName = Annotated[str, typer.Option(metavar="NAME|FILE", help="reference, fast, finetune, or a .json file.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder of the run.", show_default="runs/...")
]
Resume = Annotated[Path | None, typer.Option(metavar="DIR", help="Go on with the run in this folder, as it was begun.")]
Images = Annotated[Path | None, flag(_DATA, "Their folder.", metavar="DIR", show_default="beside the labels")]
LabelFormat = Annotated[
    str | None, flag(_DATA, "Format of the labels.", "--format", metavar="NAME", show_default="guessed")
]
Weights = Annotated[str | None, flag(_LEARN, "Weights to begin with.", metavar="NAME|FILE", show_default="random ones")]
Keypoints = Annotated[int | None, flag(_LEARN, "Key points a face.", min=0, show_default="the network's")]
Norm = Annotated[Literal["bn", "gn"] | None, flag(_LEARN, "Norms of the head.", show_default="the network's")]
Freeze = Annotated[
    list[str] | None, flag(_LEARN, "Part that keeps its weights: stem, backbone, neck, head; again.", metavar="PART")
]
Epochs = Annotated[int | None, flag(_LEARN, "Times every picture is looked at.", min=1)]
Steps = Annotated[int | None, flag(_LEARN, "Optimiser steps, instead of epochs.", min=1)]
Minutes = Annotated[float, flag(_LEARN, "Fit the run into this time.", min=0, show_default="none")]
BatchSize = Annotated[int | None, flag(_LEARN, "Pictures a step, of all processes together.", min=1)]
Size = Annotated[int | None, flag(_LEARN, "Side of the network's input.", metavar="PX")]
Rate = Annotated[float | None, flag(_LEARN, "Learning rate.")]
Change = Annotated[
    list[str] | None,
    flag(_LEARN, "Another change of the recipe, like crop.close_ups=0.2; again.", "--set", metavar="FIELD=VALUE"),
]
Seed = Annotated[int, flag(_LEARN, "Of everything random.", min=0)]
Device = Annotated[str, flag(_RUN, "auto, cpu, cuda or cuda:N.", metavar="NAME")]
Road = Annotated[
    Literal["auto", "workers", "device"],
    flag(_RUN, "How pictures come: read by threads, or all kept in the GPU's memory."),
]
Workers = Annotated[int, flag(_RUN, "Threads that prepare pictures.", min=0, show_default="one a core")]
StoreSide = Annotated[int, flag(_RUN, "Longest side of pictures in the GPU's memory.", min=32, metavar="PX")]
Threads = Annotated[int | None, flag(_RUN, "CPU threads of the network.", min=1, show_default="one a core")]
Compile = Annotated[bool, flag(_RUN, "On CUDA: compile the network, with fused kernels.")]
SaveEvery = Annotated[float, flag(_RUN, "Minutes between two checkpoints.", min=0)]
Keep = Annotated[int, flag(_RUN, "Newest checkpoints that are kept.", min=1)]
Licence = Annotated[str, flag(_RUN, "Terms of the new weights, kept in their files.", metavar="TEXT")]
Val = Annotated[Path | None, flag(_SCORE, "Labels to score on; with --val-gt, WIDER FACE's pictures.", metavar="SRC")]
ValImages = Annotated[Path | None, flag(_SCORE, "Their folder.", metavar="DIR", show_default="beside the labels")]
ValTruth = Annotated[Path | None, flag(_SCORE, "Folder of WIDER FACE's .mat files.", "--val-gt", metavar="DIR")]
ValEvery = Annotated[
    int | None,
    flag(_SCORE, "Epochs between two scores; 0 for one at the end.", min=0, show_default="a tenth of the run"),
]


def command(
    context: typer.Context,
    model: Model = None,
    data: Data = None,
    recipe: RecipeName = "reference",
    output: Output = None,
    resume: Resume = None,
    images: Images = None,
    label_format: LabelFormat = None,
    weights: Weights = None,
    keypoints: Keypoints = None,
    norm: Norm = None,
    freeze: Freeze = None,
    epochs: Epochs = None,
    steps: Steps = None,
    minutes: Minutes = 0,
    batch: BatchSize = None,
    size: Size = None,
    lr: Rate = None,
    change: Change = None,
    seed: Seed = 0,
    device: Device = "auto",
    road: Road = "auto",
    workers: Workers = 0,
    store_side: StoreSide = 1024,
    threads: Threads = None,
    compile: Compile = True,
    save_every: SaveEvery = 5.0,
    keep: Keep = 2,
    licence: Licence = "",
    val: Val = None,
    val_images: ValImages = None,
    val_gt: ValTruth = None,
    val_every: ValEvery = None,
) -> None:
    """Train a network on labelled pictures.

    Writes checkpoints, a log and weights into the run's folder. Ctrl-C ends
    it with a checkpoint, and --resume goes on as if nothing had happened.
    Start it with `torchrun --nproc-per-node N -m scrfdkit train ...` for
    several GPUs.
    """
    _check_torch()
    import torch

    from scrfdkit.train import settings as stored

    if threads is not None:
        torch.set_num_threads(threads)
    if resume is not None:
        _run(replace(stored.load(resume), **_changes(context)), resume=True)
        return
    if model is None or data is None:
        raise OptionError("--model and --data: both are needed, unless a run is resumed with --resume DIR")
    network = _network(model)
    chosen = recipe_of(recipe, network, change or (), epochs=epochs, steps=steps, batch=batch, size=size, lr=lr)
    labels, val, val_gt = _split(data, val, val_gt)
    begun = stored.Settings(
        model=_lasting(model),
        data=str(labels.absolute()),
        output=str(output or _free(Path("runs"), f"{network}-{chosen.name}")),
        recipe=chosen,
        images=_text(images),
        format=label_format,
        weights=None if weights is None else _lasting(weights),
        num_keypoints=keypoints,
        norm=norm,
        freeze=tuple(freeze or ()),
        device=device,
        road=road,
        workers=workers,
        store_side=store_side,
        seed=seed,
        minutes=minutes,
        val=_text(val),
        val_images=_text(val_images),
        val_gt=_text(val_gt),
        validate_every=val_every,
        save_minutes=save_every,
        keep=keep,
        compile=compile,
        licence=licence,
    )
    _run(begun, resume=False)


def _changes(context: typer.Context) -> dict[str, Any]:
    """What a resumed run does otherwise: where it runs, and how often it saves. Anything else would make it another."""
    given = {
        name: value
        for name, value in context.params.items()
        if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"
    }
    fields = {name: name for name in ("device", "road", "workers", "store_side", "compile", "keep")}
    fields["save_every"] = "save_minutes"
    other = [name for name in given if name not in (*fields, "resume", "threads")]
    if other:
        raise OptionError(
            f"--resume: goes on with what the run was begun with; leave {', '.join(map(flag_of, other))} out, or begin"
            " another run with --model and its last.safetensors"
        )
    return {fields[name]: value for name, value in given.items() if name in fields}


def flag_of(parameter: str) -> str:
    """How the command line calls a parameter of a command that trains."""
    names = {"label_format": "--format", "change": "--set"}
    return names.get(parameter, f"--{parameter.replace('_', '-')}")


def _check_torch() -> None:
    for package in ("torch", "safetensors"):
        if find_spec(package) is None:
            raise MissingExtraError("training", "train", package)


def recipe_of(name: str, network: str, change: Sequence[str], **flags: float | None) -> Recipe:
    """The recipe with what the command line changes."""
    from scrfdkit.train import recipes

    found = recipes.find(name, network)
    changes: dict[str, Any] = {}
    if flags["epochs"] is not None:
        changes |= {"epochs": flags["epochs"], "steps": 0}
    paths = {"steps": "steps", "batch": "batch", "size": "size", "lr": "optimiser.lr"}
    changes |= {path: flags[flag] for flag, path in paths.items() if flags[flag] is not None}
    for text in change:
        path, equals, value = text.partition("=")
        if not equals:
            raise OptionError(f"--set: {text!r} is not FIELD=VALUE, like optimiser.lr=0.02")
        changes[path.strip()] = value.strip()
    if "epochs" in changes:
        changes.setdefault("steps", 0)  # which would end the run instead
    return found.change(changes)


def _network(model: str) -> str:
    """What a network is called: its name in the zoo or its description, or its file's name without the suffix."""
    from scrfdkit import network as networks
    from scrfdkit import weights

    path = Path(model)
    return path.stem if path.suffix in weights.SUFFIXES else networks.find(model).name


def _lasting(model: str) -> str:
    """A file by its whole path, so that a resumed run finds it from any folder; a name as it is."""
    return str(Path(model).absolute()) if Path(model).is_file() else model


def _split(data: Path, val: Path | None, val_gt: Path | None) -> tuple[Path, Path | None, Path | None]:
    """Labels to learn from, and what to score on: a folder may hold both, as WIDER FACE does."""
    if not (data / "train").is_dir():
        return data, val, val_gt
    if val is None and (data / "val").is_dir():
        val = data / "val"
        if (data / "gt").is_dir():
            val, val_gt = data, data / "gt"
        elif (data / "val" / "gt").is_dir():
            val, val_gt = data, data / "val" / "gt"
    return data / "train", val, val_gt


def _free(folder: Path, name: str) -> Path:
    """A folder that holds no run yet: name, name-2, name-3 ..."""
    from scrfdkit.train.settings import FILE

    name = re.sub(r"[^\w.-]+", "-", name)
    number = 1
    while (folder / (name if number == 1 else f"{name}-{number}") / FILE).exists():
        number += 1
    return folder / (name if number == 1 else f"{name}-{number}")


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path.absolute())


def _run(settings: Settings, *, resume: bool) -> None:
    from rich.console import Console

    from scrfdkit.cli.validation import validation
    from scrfdkit.train.run import train
    from scrfdkit.train.watch import Watch

    first = os.environ.get("RANK", "0") == "0"
    score = validation(settings) if first else None
    with Watch(Console(stderr=True)) as watch:
        if first:
            watch.say(f"run: {settings.output}")
        result = train(settings, watch, score, resume=resume)
    if first:
        _report(result, settings.output)
    code = 0 if result.finished else 130
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        # gloo's threads may ask for Python's lock while Python shuts down, which aborts the process now and then (seen
        # with torch 2.13). Everything is written by now, so that it may leave at once.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise typer.Exit(code)


def _report(result: Result, output: str) -> None:
    if result.score:
        numbers = ", ".join(
            f"{name} {value:.2f}" for name, value in result.score.items() if name not in ("step", "score")
        )
        typer.echo(f"best: {numbers} at step {result.score['step']:,}: {result.best}")
    typer.echo(f"weights after {result.steps:,} steps: {result.last}")
    if not result.finished:
        typer.echo(f"stopped at step {result.steps:,} of {result.of:,}; go on with: scrfd train --resume {output}")
