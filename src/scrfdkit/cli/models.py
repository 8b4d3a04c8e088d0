"""`scrfd models`: every network of the zoo, what it costs, what it scores and whether its weights are at hand."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the networks: size, cost, published accuracy, and where their weights are on this machine.

    GFLOPs are for one 640x480 picture, counted as in the SCRFD paper. Easy, medium and hard are the published
    WIDER FACE validation AP in percent.
    """
    rows = [_row(name) for name in _names()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    table.add_column("name", no_wrap=True)
    for title in ("params", "GFLOPs", "easy", "medium", "hard"):
        table.add_column(title, justify="right")
    table.add_column("points", no_wrap=True)
    table.add_column("weights", no_wrap=True)
    for row in rows:
        published = row["published"] or {}
        scores = [f"{published[level]:.2f}" if published else "-" for level in ("easy", "medium", "hard")]
        params, gflops = f"{row['params'] / 1e6:.2f} M", f"{row['gflops']:.2f}"
        here = "here" if row["weights"] else ("official" if row["official"] else "none")
        table.add_row(row["name"], params, gflops, *scores, "yes" if row["keypoints"] else "no", here)
    console = Console()
    console.print(table)
    console.print(
        "here: ready to use. official: InsightFace publishes them for non-commercial research; "
        "`scrfd convert FILE` imports them. none: never published."
    )


def _names() -> list[str]:
    from scrfdkit.zoo import ZOO

    return list(ZOO)


def _row(name: str) -> dict[str, Any]:
    from dataclasses import asdict

    from scrfdkit import weights
    from scrfdkit.model.cost import cost
    from scrfdkit.zoo import ZOO

    entry = ZOO[name]
    total = cost(entry.spec, 640, 480)
    path = weights.locate(name)
    return {
        "name": name,
        "config": entry.config,
        "params": total.params,
        "gflops": total.flops / 1e9,
        "gmacs": total.macs / 1e9,
        "published": asdict(entry.published) if entry.published else None,
        "keypoints": entry.spec.head.num_keypoints,
        "weights": str(path) if path else None,
        "official": [asdict(file) for file in entry.official],
    }
