"""The `scrfd` command: one small file a verb. These import only typer; a verb fetches the rest when it runs."""

from __future__ import annotations

import sys

import typer

from scrfdkit import __version__
from scrfdkit.cli import (
    analyze,
    bench,
    calibrate,
    convert,
    data,
    detect,
    doctor,
    eval,
    export,
    info,
    inspect,
    models,
    search,
    train,
    vastai,
    verify,
)
from scrfdkit.errors import ScrfdError

app = typer.Typer(
    name="scrfd",
    help="SCRFD face detection: find faces in pictures and video.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"scrfdkit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


for _verb in (detect, train, models, info, convert, export, verify, inspect, bench, calibrate, analyze, doctor):
    app.command(_verb.__name__.rsplit(".", 1)[1])(_verb.command)
app.add_typer(eval.app, name="eval")
app.add_typer(data.app, name="data")
app.add_typer(search.app, name="search")
app.add_typer(vastai.app, name="vastai")


def main() -> None:
    """Entry point. A mistake of the user's is one line on stderr and exit code 2, never a traceback."""
    try:
        app()
    except ScrfdError as error:
        # A file name need not be valid text, and the message holds it.
        text = str(error).encode("utf-8", "backslashreplace").decode()
        typer.echo(f"error: {text}", err=True)
        sys.exit(2)
