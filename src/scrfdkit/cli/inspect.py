"""`scrfd inspect`: what a network file of any format takes and gives."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from scrfdkit.certificate import Certificate
    from scrfdkit.runtime.base import Binding


_WIDTH = 160
"""Characters of a line, whatever the terminal's: wrapped shapes could not be read."""


def command(
    model: Annotated[str, typer.Argument(help="A network file of any format, or triton://host:port/name.")],
    runtime: Annotated[str | None, typer.Option("--runtime", help="Ask this runtime.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List inputs and outputs with their names, types and shapes, and what the certificate says."""
    from scrfdkit import certificate
    from scrfdkit.runtime.formats import bindings, is_address, version

    record = None if is_address(model) else certificate.check(Path(model))
    subject = _inside(Path(model), record) if record is not None and Path(model).is_dir() else model
    found = bindings(subject, runtime)
    if as_json:
        data = {"model": model, "runtime": version(subject, runtime), "bindings": [asdict(b) for b in found]}
        typer.echo(json.dumps(data | {"certificate": asdict(record) if record else None}, indent=2))
        return
    typer.echo(f"{model}, as {version(subject, runtime)} sees it")
    if record is not None:
        state = {True: "passed", False: "failed", None: "not run yet"}[record.passed]
        typer.echo(f"{record.metadata.get('name', '')} for {record.target}, {record.precision}; certificate: {state}")
    _print(found)


def _inside(folder: Path, record: Certificate) -> str:
    """The network's file in an exported folder."""
    from scrfdkit.cli.trial import targets

    target = targets().get(record.target)
    return str(target.inside(folder)) if target is not None and target.inside is not None else str(folder)


def _print(found: list[Binding]) -> None:
    from rich.console import Console
    from rich.table import Table

    ranged = any(b.least for b in found)
    table = Table("", "name", "type", "shape", *(("least", "best", "most") if ranged else ()))
    for b in found:
        shapes = (b.shape, b.least, b.best, b.most) if ranged else (b.shape,)
        table.add_row(b.kind, b.name, b.dtype, *(", ".join(map(str, shape)) for shape in shapes))
    Console(width=_WIDTH).print(table)
