"""`scrfd models`: every network of the zoo, what it costs, what it scores and whether its weights are at hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scrfdkit.errors import ScrfdError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the networks: size, cost, published accuracy, and where their weights are on this machine.

    GFLOPs are for one 640x480 picture, counted as in the SCRFD paper. Easy, medium and hard are the published
    WIDER FACE validation AP in percent, of InsightFace's weights.
    """
    from scrfdkit.zoo import ZOO

    rows = [_row(name) for name in ZOO]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    from rich.console import Console

    console = Console()
    console.print(_fitting(console, [_cells(row) for row in rows]))
    console.print(
        "here: ready to use. embedded: the same, and part of this package. official: InsightFace publishes them for "
        "non-commercial research; `scrfd convert FILE` imports them. none: never published. damaged: see below."
    )
    for row in rows:
        if row["embedded"]:
            console.print(_own_ap(row), highlight=False)
        if row["problem"]:
            console.print(f"{row['name']}: {row['problem']}", style="red", markup=False, highlight=False)


_LEVELS = ("easy", "medium", "hard")
_LEAST_NEEDED = ("points", "params", "GFLOPs", "medium", "easy", "hard")
"""Columns that a narrow terminal does without, the first of them first."""


def _cells(row: dict[str, Any]) -> dict[str, str]:
    published = row["published"] or {}
    if row["problem"]:
        where = "damaged"
    elif row["weights"]:
        where = "embedded" if row["embedded"] else "here"
    else:
        where = "official" if row["official"] else "none"
    return {
        "name": row["name"],
        "params": f"{row['params'] / 1e6:.2f} M",
        "GFLOPs": f"{row['gflops']:.2f}",
        **{level: f"{published[level]:.2f}" if published else "-" for level in _LEVELS},
        "points": "yes" if row["keypoints"] else "no",
        "weights": where,
    }


def _fitting(console: Console, rows: list[dict[str, str]]) -> Table:
    """The table with as many columns as the console has room for; a number that is cut off says nothing."""
    from rich.table import Table

    columns = list(rows[0])
    unlimited = console.options.update(width=1000)
    for spare in (*_LEAST_NEEDED, ""):
        table = Table(box=None)
        for title in columns:
            table.add_column(title, no_wrap=True, justify="left" if title in ("name", "points", "weights") else "right")
        for row in rows:
            table.add_row(*(row[title] for title in columns))
        if not spare or console.measure(table, options=unlimited).maximum <= console.width:
            break
        columns.remove(spare)
    return table


def _own_ap(row: dict[str, Any]) -> str:
    figures = [
        f"{' / '.join(f'{ap[level]:.2f}' for level in _LEVELS)} ({what})"
        for what, ap in row["measured"].items()
        if isinstance(ap, dict) and ap.keys() >= set(_LEVELS)
    ]
    ap = f"; these have {', '.join(figures)}" if figures else ""
    return f"{row['name']}: the AP above is that of InsightFace's weights, not of the embedded ones{ap}."


def _row(name: str) -> dict[str, Any]:
    from dataclasses import asdict

    from scrfdkit.model.cost import cost
    from scrfdkit.zoo import ZOO

    entry = ZOO[name]
    total = cost(entry.spec, 640, 480)
    return {
        "name": name,
        "config": entry.config,
        "params": total.params,
        "gflops": total.flops / 1e9,
        "gmacs": total.macs / 1e9,
        "published": asdict(entry.published) if entry.published else None,
        "keypoints": entry.spec.head.num_keypoints,
        **_weights(name),
        "official": [asdict(file) for file in entry.official],
    }


def _weights(name: str) -> dict[str, Any]:
    """Where they are, whether they are the embedded ones, what AP these have by their own header, what is wrong."""
    from scrfdkit import weights
    from scrfdkit.model.checkpoint import read_header

    facts: dict[str, Any] = {"weights": None, "embedded": False, "measured": {}, "problem": ""}
    try:
        path = weights.locate(name)
        facts["weights"] = str(path) if path else None
        if path is not None and name == weights.DEFAULT and path == weights.embedded(path.suffix):
            facts["embedded"] = True
            facts["measured"] = dict(read_header(weights.embedded(".safetensors")).metrics)
    except (ScrfdError, OSError) as error:
        facts["problem"] = str(error)
    return facts
