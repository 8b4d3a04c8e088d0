"""`scrfd search`: networks drawn from a space, each trained for a while, compared, and the best one chosen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from scrfdkit.cli import search_report, search_run
from scrfdkit.errors import MissingExtraError, OptionError

if TYPE_CHECKING:
    from scrfdkit.search.space import Space
    from scrfdkit.spec import ModelSpec

app = typer.Typer(help="Search for networks: plan, run, status, report.", no_args_is_help=True)


@app.callback()
def _needs() -> None:
    for package in ("torch", "safetensors", "optuna"):
        if find_spec(package) is None:
            raise MissingExtraError("searching", "search", package)


Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the search.", show_default=False)]


@app.command()
def plan(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Folder of the search.", show_default=False)
    ],
    space: Annotated[
        str,
        typer.Option(
            metavar="backbone|all|crops|FILE",
            help="What is looked for: a backbone under a given neck and head (step 1), a whole detector around a given"
            " backbone (step 2), the sizes of training windows, or a .json file with a space.",
        ),
    ] = "backbone",
    budget: Annotated[
        str | None, typer.Option(metavar="FLOPS", help="FLOPs at 640x480: 500M, 2.5G.", show_default="the template's")
    ] = None,
    num: Annotated[int, typer.Option(min=1, max=1000, metavar="N", help="Candidates.")] = 64,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="Of the draws.")] = 0,
    family: Annotated[
        Literal["residual", "separable"] | None,
        typer.Option(help="Kind of backbone, of step 1.", show_default="separable below 1.2G"),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="Network that neck and head (step 1) or backbone (step 2) are taken from, or that is trained (crops).",
            show_default="a baseline of that budget",
        ),
    ] = None,
    after: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A search that is finished: its best network is the template."),
    ] = None,
    narrow: Annotated[
        bool,
        typer.Option("--narrow", help="With --after: keep computation in the 95 % ranges that search found good."),
    ] = False,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Database of the state, as SQLAlchemy names it.", show_default="a file in the folder"
        ),
    ] = None,
) -> None:
    """Draw the candidates of a search, in seconds.

    Nothing is trained yet. The same options give the same candidates.
    """
    from scrfdkit.search import plan as plans
    from scrfdkit.search.draw import sample
    from scrfdkit.search.space import CropSpace
    from scrfdkit.search.store import create
    from scrfdkit.search.words import describe

    chosen, origin = _space(space, budget, family, template, after, narrow)
    drawn = sample(chosen, num, seed)
    made = plans.make(chosen, drawn.candidates, seed, drawn.drawn, drawn.accepted, storage=storage, origin=origin)
    made = plans.save(made, output, create)
    typer.echo(f"{output}: {describe(made)}")
    if not isinstance(chosen, CropSpace):
        typer.echo(f"{drawn.accepted:,} of {drawn.drawn:,} draws met the budget ({drawn.accepted / drawn.drawn:.3%})")
    typer.echo(f"train them with: scrfd search run {output} --data LABELS")


def _space(
    space: str, budget: str | None, family: Any, template: str | None, after: Path | None, narrow: bool
) -> tuple[Space, str]:
    """The space that the options ask for, and where its template comes from."""
    from scrfdkit.search import space as spaces

    if Path(space).suffix == ".json":
        other: dict[str, Any] = {"--budget": budget, "--family": family, "--template": template, "--after": after}
        other["--narrow"] = narrow or None
        if given := [name for name, value in other.items() if value is not None]:
            raise OptionError(f"{', '.join(given)}: {space} says all of that already")
        return _space_file(Path(space)), space
    if space not in spaces.KINDS:
        raise OptionError(f"--space {space}: is none of {', '.join(spaces.KINDS)}, and no .json file")
    if narrow and after is None:
        raise OptionError("--narrow: name the search whose ranges hold with --after DIR")
    if after is not None and template is not None:
        raise OptionError("--template, --after: only one of them can give the template")
    flops = None if budget is None else spaces.budget_of(budget)
    spec: ModelSpec | None = None
    origin = ""
    shares: Mapping[str, tuple[float, float]] = {}
    if after is not None:
        from scrfdkit.search.finished import best_of

        best = best_of(after, narrow)
        spec, origin, shares = best.spec, best.origin, best.shares
        if space != "crops":
            flops = flops or best.budget
    elif template is not None:
        from scrfdkit.train.start import begin

        spec, origin = begin(template).spec, template
    return _made(space, flops, family, spec, shares), origin


def _made(space: str, flops: float | None, family: Any, spec: ModelSpec | None, shares: Any) -> Space:
    from dataclasses import replace

    from scrfdkit.model.cost import cost
    from scrfdkit.search import space as spaces

    if space == "backbone":
        if flops is None:
            if spec is None:
                raise OptionError("--budget: how many FLOPs? like 500M or 2.5G")
            flops = float(cost(spec).flops)
        return replace(spaces.backbone_space(flops, family, spec), shares=shares)
    if spec is None:
        raise OptionError(f"--template: --space {space} needs a network, or --after with a search that found one")
    if family is not None:
        raise OptionError(f"--family: --space {space} has that of its template")
    if space == "crops":
        if flops is not None:
            raise OptionError("--budget: --space crops trains one network, its template")
        return spaces.CropSpace(spec)
    return spaces.WholeSpace(float(cost(spec).flops) if flops is None else flops, spec, shares=shares)


def _space_file(path: Path) -> Space:
    from scrfdkit.search.space import from_dict

    try:
        return from_dict(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise OptionError(f"--space {path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise OptionError(f"--space {path}: {error}") from None


app.command()(search_run.run)


@app.command()
def status(
    folder: Folder,
    everything: Annotated[bool, typer.Option("--all", help="List every candidate.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every candidate.")] = False,
) -> None:
    """How a search stands, at any time."""
    from scrfdkit.search import training
    from scrfdkit.search.plan import load
    from scrfdkit.search.store import Store
    from scrfdkit.search.words import counts, describe, line, record

    made = load(folder)
    outcomes = Store(made).outcomes()
    settled = training.load(made)
    if as_json:
        typer.echo(json.dumps({"search": describe(made), "candidates": [record(o) for o in outcomes]}, indent=1))
        return
    typer.echo(f"{folder}: {describe(made)}")
    typer.echo(counts(outcomes))
    shown = outcomes if everything else [o for o in outcomes if o.state in ("running", "failed")]
    for outcome in shown:
        typer.echo(line(outcome, settled))
    best = sorted((o for o in outcomes if o.state == "done"), key=lambda o: -(o.score or 0))
    for outcome in best[:5] if not everything else ():
        typer.echo(f"{'best' if outcome is best[0] else '    '} {line(outcome, settled)}")


app.command()(search_report.report)
