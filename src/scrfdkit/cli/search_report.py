"""`scrfd search report`: one page about a search, and its winner as a network of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from scrfdkit.errors import OptionError

if TYPE_CHECKING:
    from scrfdkit.search.bootstrap import Range
    from scrfdkit.search.candidate import Outcome
    from scrfdkit.search.latencies import Latencies
    from scrfdkit.search.plan import Plan
    from scrfdkit.search.summary import Summary
    from scrfdkit.search.training import Training


def report(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the search.", show_default=False)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.html", help="The page.", show_default="DIR/report.html"),
    ] = None,
    objective: Annotated[
        Literal["hard", "latency", "pareto"],
        typer.Option(help="What wins: the highest score; the fastest close to it; all that nobody beats in both."),
    ] = "hard",
    within: Annotated[
        float | None,
        typer.Option(min=0, metavar="POINTS", help="With --objective latency: how close.", show_default="1.0"),
    ] = None,
    latency: Annotated[
        bool, typer.Option("--latency", help="Measure all candidates' time first, on this machine, where not yet done.")
    ] = False,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="With --latency: the input.", show_default="640x480")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="With --latency: CPU threads.", show_default="1")
    ] = None,
) -> None:
    """Write a page with what a search has found, at any time.

    Once a candidate is done, the winner is written too: winner.json, to be
    given to scrfd train and scrfd export like the name of a network.
    """
    from scrfdkit import atomic
    from scrfdkit.search import latencies, training
    from scrfdkit.search.choice import choose
    from scrfdkit.search.plan import load
    from scrfdkit.search.report import page
    from scrfdkit.search.store import Store

    if within is not None and objective != "latency":
        raise OptionError("--within: needs --objective latency")
    if not latency and (size, threads) != (None, None):
        raise OptionError("--size, --threads: need --latency")
    plan = load(folder)
    outcomes = Store(plan).outcomes()
    settled = training.load(plan)
    place = folder / "latency.json"
    times = _measured(plan, place, size or "640x480", threads or 1) if latency else latencies.load(place)
    milliseconds = dict(times.milliseconds) if times is not None else {}
    winners = choose(outcomes, milliseconds, objective, 1.0 if within is None else within)
    found = _ranges(outcomes)
    tie = _tied(outcomes)
    summary = _summary(plan, settled, outcomes, times, objective, winners, tie)
    target = output or folder / "report.html"
    atomic.save(target, page(summary).encode())
    typer.echo(f"page: {target}")
    if tie:
        typer.echo(f"note: {tie}")
    _write_winners(plan, settled, winners, objective, milliseconds, {} if tie else found)


def _measured(plan: Plan, place: Path, size: str, threads: int) -> Latencies:
    from rich.console import Console
    from rich.progress import Progress

    from scrfdkit.cli.flags import parse_size
    from scrfdkit.search import latencies, measure

    width, height = parse_size(size)
    known = latencies.load(place)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("measuring", total=None)
        times = measure.measure(
            plan.candidates,
            width=width,
            height=height,
            threads=threads,
            known=known,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    latencies.save(place, times)
    return times


def _ranges(outcomes: Sequence[Outcome]) -> dict[str, Range]:
    from scrfdkit.search.bootstrap import ranges

    try:
        return ranges(outcomes)
    except OptionError:  # too few are done; the page says so
        return {}


def _tied(outcomes: Sequence[Outcome]) -> str:
    """What is to be said where the best score tells candidates not apart; "" where it does."""
    from scrfdkit.search.choice import finished, points

    scores = [points(one) for one in finished(outcomes)]
    equal = scores.count(max(scores)) if scores else 0
    if equal < 2:
        return ""
    return (
        f"{equal} candidates have the same highest score, {max(scores):.2f}, so that this search does not tell which is"
        " the best: train for longer, or score on more pictures."
    )


def _summary(
    plan: Plan,
    settled: Training | None,
    outcomes: Sequence[Outcome],
    times: Latencies | None,
    objective: Literal["hard", "latency", "pareto"],
    winners: Sequence[Outcome],
    tie: str,
) -> Summary:
    from scrfdkit.model.cost import cost
    from scrfdkit.search.summary import Summary
    from scrfdkit.search.words import facts, shape

    costs = {c.number: cost(c.spec) for c in plan.candidates}
    notes = []
    if settled is not None and settled.on_val:
        notes.append(
            "Candidates were chosen by the validation pictures. What the winner reaches there is too good to be true of"
            " others; measure it on pictures that it was not chosen by."
        )
    if tie:
        notes.append(tie)
    return Summary(
        title=f"Search in {plan.folder.absolute().name}",
        facts=facts(plan, settled),
        notes=notes,
        outcomes=outcomes,
        gflops={number: total.flops / 1e9 for number, total in costs.items()},
        params={number: total.params for number, total in costs.items()},
        milliseconds=dict(times.milliseconds) if times is not None else {},
        latency_note=times.words() if times is not None else "",
        objective=objective,
        winners=[one.candidate.number for one in winners],
        names={c.number: shape(c) for c in plan.candidates},
    )


def _write_winners(
    plan: Plan,
    settled: Training | None,
    winners: Sequence[Outcome],
    objective: str,
    milliseconds: dict[int, float],
    found: dict[str, Range],
) -> None:
    from scrfdkit.search.finished import publish, save_narrowed
    from scrfdkit.search.words import line

    if not winners:
        typer.echo("no candidate is done yet, so there is no winner")
        return
    for stale in plan.folder.glob("front-*"):  # of an earlier front, which this one may have left behind
        stale.unlink(missing_ok=True)
    for number, outcome in enumerate(winners):
        name = f"front-{outcome.candidate.name}" if objective == "pareto" and number else "winner"
        path = plan.folder / f"{name}.json"
        publish(plan, settled, outcome, path, milliseconds)
        typer.echo(f"{path}: {line(outcome, settled)}")
    if found and (space := save_narrowed(plan, winners[0], found)) is not None:
        typer.echo(f"{space}: the space of the next step, for scrfd search plan --space")
