"""What the verbs of `scrfd data` share: the labels that they take, and how they speak."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

FORMATS = "labelv2|wider|coco|yolo|voc|csv"

Source = Annotated[Path, typer.Argument(metavar="SRC", help="A label file, or a folder of them.", show_default=False)]
Format = Annotated[str | None, typer.Option(metavar=FORMATS, help="Format of SRC.", show_default="by looking")]


def say(text: str, *, err: bool = False) -> None:
    """Prints a line, whatever bytes the names of files are made of."""
    typer.echo(text.encode("utf-8", "backslashreplace").decode(), err=err)
