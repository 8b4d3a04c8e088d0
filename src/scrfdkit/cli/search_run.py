"""`scrfd search run`: trains the candidates of a search, as often and on as many machines as one likes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from scrfdkit.cli.flags import flag
from scrfdkit.cli.train import flag_of, recipe_of
from scrfdkit.errors import OptionError

if TYPE_CHECKING:
    from scrfdkit.search.plan import Plan
    from scrfdkit.search.store import Store
    from scrfdkit.search.training import Training

_DATA, _LEARN, _WHERE, _RAY = "Pictures", "Training, settled by the first run", "Where", "With --engine ray"


Data = Annotated[Path | None, flag(_DATA, "Labels in any known format.", metavar="SRC")]
Images = Annotated[Path | None, flag(_DATA, "Their folder.", metavar="DIR", show_default="beside the labels")]
LabelFormat = Annotated[
    str | None, flag(_DATA, "Format of the labels.", "--format", metavar="NAME", show_default="guessed")
]
HoldOut = Annotated[
    float | None,
    flag(_DATA, "Share of the pictures to score on, not to learn from.", metavar="SHARE", show_default="0.1"),
]
Val = Annotated[Path | None, flag(_DATA, "Score on these labels instead; with --val-gt, WIDER FACE's.", metavar="SRC")]
ValImages = Annotated[Path | None, flag(_DATA, "Their folder.", metavar="DIR", show_default="beside the labels")]
ValTruth = Annotated[Path | None, flag(_DATA, "Folder of WIDER FACE's .mat files.", "--val-gt", metavar="DIR")]
RecipeName = Annotated[str | None, flag(_LEARN, "As of `scrfd train`.", metavar="NAME|FILE", show_default="reference")]
Epochs = Annotated[int | None, flag(_LEARN, "Of every candidate.", min=1, show_default="80")]
Steps = Annotated[int | None, flag(_LEARN, "Optimiser steps, instead of epochs.", min=1)]
BatchSize = Annotated[int | None, flag(_LEARN, "Pictures a step.", min=1)]
Size = Annotated[int | None, flag(_LEARN, "Side of the network's input.", metavar="PX")]
Rate = Annotated[float | None, flag(_LEARN, "Learning rate.")]
Change = Annotated[
    list[str] | None, flag(_LEARN, "Another change of the recipe; again.", "--set", metavar="FIELD=VALUE")
]
Seed = Annotated[int | None, flag(_LEARN, "Of the split and of all trainings.", min=0, show_default="0")]
LookEvery = Annotated[int | None, flag(_LEARN, "Epochs between two scores.", min=1, show_default="one at the end")]
Halving = Annotated[
    int | None,
    flag(_LEARN, "Stop early: at each of its looks only the best 1/N go on.", min=2, show_default="none stop"),
]
Retries = Annotated[int | None, flag(_LEARN, "More tries for a candidate that fails at once.", min=0, show_default="2")]
Licence = Annotated[str | None, flag(_LEARN, "Terms of the weights, kept in their files.", metavar="TEXT")]
Device = Annotated[str, flag(_WHERE, "auto, cpu, cuda or cuda:N.", metavar="NAME")]
Runners = Annotated[int, flag(_WHERE, "Candidates at a time: a process each, GPUs dealt out.", min=1)]
Threads = Annotated[
    int | None, flag(_WHERE, "CPU threads of a network.", min=1, show_default="a runner's share of the cores")
]
Workers = Annotated[int, flag(_WHERE, "Threads that prepare pictures.", min=0, show_default="one a core")]
Road = Annotated[Literal["auto", "workers", "device"], flag(_WHERE, "How pictures come, as of `scrfd train`.")]
Compile = Annotated[bool, flag(_WHERE, "On CUDA: compile the network, with fused kernels.")]
Engine = Annotated[Literal["local", "ray"], flag(_WHERE, "What starts runners: this command, or Ray.")]
Address = Annotated[
    str | None, flag(_RAY, "The cluster.", metavar="ADDRESS", show_default="$RAY_ADDRESS, or one of its own")
]
Gpus = Annotated[
    float | None,
    flag(_RAY, "GPUs a candidate, like 0.5.", min=0, show_default="1, where the cluster has any"),
]
Cpus = Annotated[float | None, flag(_RAY, "Cores a candidate.", min=0.01, show_default="1")]

_TRAINING = (
    *("data", "images", "label_format", "holdout", "val", "val_images", "val_gt"),
    *("recipe", "epochs", "steps", "batch", "size", "lr", "change", "seed"),
    *("look_every", "halving", "retries", "licence"),
)


def run(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the search.", show_default=False)],
    data: Data = None,
    images: Images = None,
    label_format: LabelFormat = None,
    holdout: HoldOut = None,
    val: Val = None,
    val_images: ValImages = None,
    val_gt: ValTruth = None,
    recipe: RecipeName = None,
    epochs: Epochs = None,
    steps: Steps = None,
    batch: BatchSize = None,
    size: Size = None,
    lr: Rate = None,
    change: Change = None,
    seed: Seed = None,
    look_every: LookEvery = None,
    halving: Halving = None,
    retries: Retries = None,
    licence: Licence = None,
    device: Device = "auto",
    runners: Runners = 1,
    threads: Threads = None,
    workers: Workers = 0,
    road: Road = "auto",
    compile: Compile = True,
    engine: Engine = "local",
    address: Address = None,
    gpus: Gpus = None,
    cpus: Cpus = None,
) -> None:
    """Train and score the candidates, until none is left.

    The first run settles how, with --data and the options beside it; later
    ones need none of them. Stopped or killed, begin it again: it goes on
    after the last epoch. Runs of the same folder share the work.
    """
    from scrfdkit.search import plan as plans
    from scrfdkit.search.store import Store

    if engine == "ray" and runners > 1:
        raise OptionError("--runners: Ray starts as many as --cpus and --gpus allow; leave it out")
    if engine != "ray" and (address, gpus, cpus) != (None, None, None):
        raise OptionError("--address, --gpus, --cpus: need --engine ray")
    made = plans.load(folder)
    store = Store(made)
    training = _settled(made, store, context)
    if training.on_val:
        typer.echo(
            "warning: candidates are chosen by their scores on --val; what the best one reaches there is then too good"
            " to be true of other pictures",
            err=True,
        )
    where = {"device": device, "road": road, "workers": workers, "compile": compile}
    if engine == "ray":
        ends = _on_ray(made, training, address, gpus, 1.0 if cpus is None else cpus, threads, where)
    elif runners > 1:
        raise typer.Exit(_several(folder, runners, device, threads, workers, road, compile))
    else:
        ends = _here(made, training, threads, where)
    _say(store, folder)
    raise typer.Exit(130 if ends["asked"] else 0)


def _settled(made: Plan, store: Store, context: typer.Context) -> Training:
    """How candidates are trained: as the options say, or as an earlier run settled."""
    from scrfdkit.search import training
    from scrfdkit.search.agreement import forget

    given = {name: context.params[name] for name in _TRAINING if context.params[name] not in (None, [], ())}
    if "data" in given:
        wanted = _wanted(given)
        with store.locked():
            begun = store.begun()
            if not begun:
                forget(store)
            return training.settle(made, wanted, begun)
    known = training.load(made)
    if known is None:
        raise OptionError("--data: no run has settled what candidates learn from; name labelled pictures")
    if given:
        names = ", ".join(map(flag_of, given))
        raise OptionError(f"{names}: the first run settled that; leave it out, or give all of its options again")
    return known


def _wanted(given: dict[str, Any]) -> Training:
    from scrfdkit.search.training import Training

    changes = {name: given.get(name) for name in ("epochs", "steps", "batch", "size", "lr")}
    if changes["steps"] is None:
        changes["epochs"] = changes["epochs"] or 80
    recipe = recipe_of(given.get("recipe", "reference"), "", given.get("change", ()), **changes)
    if "val" in given and "holdout" in given:
        raise OptionError("--holdout: with --val nothing is held out; leave one of them out")
    same = ("holdout", "seed", "look_every", "halving", "retries", "licence")
    words = {name: given[name] for name in same if name in given}
    paths = ("data", "images", "val", "val_images", "val_gt")
    words |= {name: str(given[name].resolve()) for name in paths if name in given}
    return Training(recipe=recipe, format=given.get("label_format"), **words)


def _here(made: Plan, training: Training, threads: int | None, where: dict[str, Any]) -> Counter[Any]:
    import torch
    from rich.console import Console

    from scrfdkit.search.runner import run as run_here
    from scrfdkit.train.watch import Watch

    if threads is not None:
        torch.set_num_threads(threads)
    console = Console(stderr=True)
    return run_here(made, training, _score, lambda: Watch(console), lambda text: typer.echo(text, err=True), **where)


def _on_ray(
    made: Plan,
    training: Training,
    address: str | None,
    gpus: float | None,
    cpus: float,
    threads: int | None,
    where: dict[str, Any],
) -> Counter[Any]:
    from scrfdkit.search.cluster import run as run_on_ray

    def say(text: str) -> None:
        typer.echo(text, err=True)

    return run_on_ray(made, training, _score, say, address, gpus, cpus, threads, **where)


def _score(settings: Any) -> Any:
    """As WIDER FACE's settings, by the heights of faces; a function of a module, as Ray needs it."""
    from scrfdkit.cli.validation import validation
    from scrfdkit.evaluate.labelled import HEIGHTS

    return validation(settings, HEIGHTS)


def _several(
    folder: Path, runners: int, device: str, threads: int | None, workers: int, road: str, compile: bool
) -> int:
    """Exit code of several runners on this machine, on its GPUs in turn."""
    import torch

    from scrfdkit.machine import usable_cores
    from scrfdkit.search.runner import several

    count = torch.cuda.device_count() if device in ("auto", "cuda") and torch.cuda.is_available() else 0
    devices = [f"cuda:{number % count}" if count else device for number in range(runners)]
    share = max(1, usable_cores() // runners)
    options = ["--workers", str(workers or share), "--road", road, "--compile" if compile else "--no-compile"]
    codes = several(folder, devices, threads or share, options)
    return next((code for code in codes if code), 0)


def _say(store: Store, folder: Path) -> None:
    from scrfdkit.search.words import counts

    outcomes = store.outcomes()
    typer.echo(counts(outcomes))
    if all(o.state not in ("waiting", "running") for o in outcomes):
        typer.echo(f"look at it with: scrfd search report {folder}")
