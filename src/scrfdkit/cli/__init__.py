"""The `scrfd` command: one small file a verb, fetched only when that verb runs."""

from __future__ import annotations

import sys

import typer

from scrfdkit import __version__
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


def main() -> None:
    """Entry point. A mistake of the user's is one line on stderr and exit code 2, never a traceback."""
    try:
        app()
    except ScrfdError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
