"""`scrfd verify`: an exported file measured again and compared with its certificate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scrfdkit.cli import trial as trials
from scrfdkit.errors import ModelError


def command(
    file: Annotated[Path, typer.Argument(help="A file or folder that `scrfd export` wrote.")],
    against: Annotated[
        str | None,
        typer.Option("--against", help="The weights it was made from.", show_default="as the certificate names them"),
    ] = None,
    pictures: trials.Pictures = None,
    data: trials.Data = None,
    gt: trials.GroundTruth = None,
    images: trials.Images = None,
    max_drop: trials.MaxDrop = 1.0,
    threads: trials.Threads = 1,
    update: Annotated[bool, typer.Option("--update", help="Write what was measured into the certificate.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the new certificate as JSON.")] = False,
) -> None:
    """Compare a file with its hashes, run it beside PyTorch again, and show what comes out.

    Exit code 1 if it is not good enough any more, or cannot be run here; 2 if it was changed.
    """
    from scrfdkit import atomic, certificate

    old = certificate.check(file)
    if old is None:
        raise ModelError(f"{file}: has no certificate ({certificate.beside(file).name}) beside it")
    with trials.progress() as say:
        source = trials.open_source(against or old.source)
        from scrfdkit.export.order import Order
        from scrfdkit.export.run import verify
        from scrfdkit.export.targets import TARGETS

        if old.target not in TARGETS:
            raise ModelError(f"{certificate.beside(file)}: {old.target!r} is no known format")
        order = Order.from_dict(old.contract, old.precision)
        how = trials.trial(pictures, data, gt, images, max_drop, threads, order.contract.size)
        new = verify(file, source, TARGETS[old.target], how, say)
    if update:
        atomic.save(certificate.beside(file), new.to_json().encode())
    if as_json:
        typer.echo(new.to_json(), nl=False)
    else:
        typer.echo(f"{file}: the hashes are those of its certificate")
        trials.report(new)
        for complaint in new.measured.get("complaints", ()):
            typer.echo(f"not good enough: {complaint}")
        typer.echo({True: "passed", False: "failed", None: "not run"}[new.passed])
    raise typer.Exit(0 if new.passed else 1)
