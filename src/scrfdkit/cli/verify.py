"""`scrfd verify`: exported files measured again and compared with their certificates."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scrfdkit.cli import trial as trials
from scrfdkit.errors import ModelError, ScrfdError, WeightError

if TYPE_CHECKING:
    from scrfdkit.certificate import Certificate
    from scrfdkit.export.measure import Trial


_WIDTH = 180
"""Characters of a line of the table: wrapped cells could not be read."""


def command(
    files: Annotated[list[Path], typer.Argument(help="Files or folders that `scrfd export` wrote.")],
    against: Annotated[
        str | None,
        typer.Option("--against", help="The weights they were made from.", show_default="as certified"),
    ] = None,
    pictures: trials.Pictures = None,
    data: trials.Data = None,
    gt: trials.GroundTruth = None,
    images: trials.Images = None,
    max_drop: trials.MaxDrop = 1.0,
    threads: trials.Threads = 1,
    update: Annotated[bool, typer.Option("--update", help="Write what was measured into the certificates.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the new certificates as JSON Lines.")] = False,
) -> None:
    """Compare files with their hashes, run them beside PyTorch again, and show what comes out.

    Exit code 1 if one is not good enough any more, or cannot be run here; 2 if one was changed.
    """
    made, refused = [], 0
    for file in files:
        try:
            new = _verify(file, against, lambda size: trials.trial(pictures, data, gt, images, max_drop, threads, size))
        except ScrfdError as error:
            if len(files) == 1:
                raise
            typer.echo(f"error: {error}", err=True)  # and on to the others
            refused += 1
            continue
        made.append((file.name, new))
        if update:
            _update(file, new)
        if as_json:
            typer.echo(json.dumps({"file": str(file), **asdict(new)}))
        else:
            _report(file, new)
    if len(files) > 1 and not as_json:
        _print(made)
    raise typer.Exit(2 if refused else 0 if all(new.passed for _, new in made) else 1)


def _update(file: Path, new: Certificate) -> None:
    """Writes what was measured; what could not be measured this time stays as it was."""
    from scrfdkit import atomic, certificate

    old = certificate.read(file)
    if new.passed is None:
        typer.echo(f"{file}: could not be run, so its certificate stays as it is")
        return
    kept = {name: old.measured[name] for name in ("ap", "ap_pytorch") if old and name in old.measured}
    atomic.save(certificate.beside(file), replace(new, measured={**kept, **new.measured}).to_json().encode())


def _verify(file: Path, against: str | None, how: Callable[[tuple[int, int] | None], Trial]) -> Certificate:
    from scrfdkit import atomic, certificate

    old = certificate.check(file)
    if not atomic.exists(file):
        raise ModelError(f"{file}: there is no such file")
    if old is None:
        raise ModelError(f"{file}: has no certificate ({certificate.beside(file).name}) beside it")
    with trials.progress() as say:
        beside = file.parent / old.source
        try:
            source = trials.open_source(against or (beside if atomic.is_file(beside) else old.source))
        except (ModelError, WeightError) as error:
            raise type(error)(f"{error}; --against names the weights that {file.name} was made from") from None
        from scrfdkit.export.order import Order
        from scrfdkit.export.run import verify
        from scrfdkit.export.targets import TARGETS

        if old.target not in TARGETS:
            raise ModelError(f"{certificate.beside(file)}: {old.target!r} is no known format")
        size = Order.from_dict(old.contract, old.precision).contract.size
        return verify(file, source, TARGETS[old.target], how(size), say)


def _report(file: Path, new: Certificate) -> None:
    typer.echo(f"{file}: the hashes are those of its certificate")
    trials.report(new)
    for complaint in new.measured.get("complaints", ()):
        typer.echo(f"not good enough: {complaint}")
    typer.echo({True: "passed", False: "failed", None: "not run"}[new.passed])


def _print(made: list[tuple[str, Certificate]]) -> None:
    from rich.console import Console
    from rich.table import Table

    from scrfdkit.export.table import COLUMNS, row

    table = Table(*COLUMNS)
    for name, new in made:
        table.add_row(*row(name, new))
    Console(width=_WIDTH).print(table)
