"""`scrfd export`: a network as a file for other runtimes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scrfdkit.errors import MissingExtraError, ModelError, OptionError

if TYPE_CHECKING:
    from scrfdkit.export.contract import Contract
    from scrfdkit.export.onnx import Exported

TARGETS = ("onnx",)
_OWN_FIELDS = ("layout", "size", "batch", "opset")  # called like their flags


def command(
    model: Annotated[str, typer.Argument(help="A network's name, or a .safetensors, .pth or .onnx file.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The file to write.")],
    to: Annotated[str, typer.Option("--to", help=f"Format: {', '.join(TARGETS)}.")] = TARGETS[0],
    layout: Annotated[
        str,
        typer.Option(
            "--layout", help="reference: rows as in the official files; maps: as convolved; end2end: pictures to faces."
        ),
    ] = "reference",
    sigmoid: Annotated[
        bool | None,
        typer.Option("--sigmoid/--raw", help="Scores of maps: probabilities, or logits.", show_default="raw"),
    ] = None,
    size: Annotated[str, typer.Option("--size", help="Fixed input size WIDTHxHEIGHT.")] = "dynamic",
    batch: Annotated[str, typer.Option("--batch", help="Fixed number of pictures a run.")] = "dynamic",
    opset: Annotated[int | None, typer.Option("--opset", help="ONNX operator set.", show_default="17")] = None,
    score: Annotated[float | None, typer.Option("--score", help="end2end: least score.", show_default="0.5")] = None,
    nms: Annotated[
        float | None, typer.Option("--nms", help="end2end: overlap above which a face goes.", show_default="0.4")
    ] = None,
    max_faces: Annotated[
        int | None, typer.Option("--max-faces", help="end2end: rows for faces.", show_default="300")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Write a network as an ONNX file for other runtimes, held against PyTorch before it is saved.

    The new file is run in onnxruntime on three sizes and batches; if anything differs from PyTorch by more than 0.001
    (of a probability, of a distance in strides), nothing is written. What the layouts hold is in docs/export.md.
    """
    from scrfdkit.atomic import exists

    if to not in TARGETS:
        raise OptionError(f"--to: {to!r} is not one of {TARGETS}")
    only = {"--score": score, "--nms": nms, "--max-faces": max_faces}
    contract = _contract(layout, sigmoid, size, batch, only)
    if exists(out) and not force:
        raise ModelError(f"{out}: is there already; --force overwrites it")
    _report(_export(model, out, contract, opset))


def _contract(layout: str, sigmoid: bool | None, size: str, batch: str, only: dict[str, Any]) -> Contract:
    from scrfdkit.export.contract import Contract, Suppression

    given = [flag for flag, value in only.items() if value is not None]
    if given and layout != "end2end":
        raise OptionError(f"{given[0]}: is part of an end2end file only; the {layout} layout leaves it to who reads it")
    if sigmoid is False and layout != "maps":
        raise OptionError(f"--raw: the {layout} layout always has its sigmoid; only maps can do without")
    names = ("score_threshold", "nms_threshold", "max_faces")
    rule = {name: value for name, value in zip(names, only.values(), strict=True) if value is not None}
    fields: dict[str, Any] = {"layout": layout, "sigmoid": bool(sigmoid), "size": _size(size), "batch": _batch(batch)}
    try:
        return Contract(**fields, suppression=Suppression(**rule))
    except OptionError as error:
        raise OptionError(_flag(str(error))) from None


def _export(model: str, out: Path, contract: Contract, opset: int | None) -> Exported:
    try:
        from scrfdkit.export import onnx
        from scrfdkit.export.source import open_source
    except ImportError as error:
        if error.name in ("torch", "onnx", "safetensors"):
            raise MissingExtraError("exporting", "export", error.name) from None
        raise
    try:
        return onnx.export(open_source(model), out, contract, onnx.OPSET if opset is None else opset)
    except OptionError as error:
        raise OptionError(_flag(str(error))) from None


def _report(done: Exported) -> None:
    typer.echo(f"{done.info.name}: {done.contract.describe()}")
    typer.echo(f"{done.parity.candidate} against {done.parity.reference}, largest differences:")
    for case in done.parity.cases:
        parts = {"scores": case.scores, "boxes": case.boxes}
        parts |= {"key points": case.keypoints} if done.info.spec.head.num_keypoints else {}
        parts |= {"faces": case.faces} if done.contract.layout == "end2end" else {}
        words = ", ".join(f"{name} {value:.1e}" for name, value in parts.items())
        typer.echo(f"  {case.batch} x {case.width}x{case.height}: {words}")
    typer.echo(f"wrote {done.path} ({done.num_bytes / 1e6:.1f} MB)")
    typer.echo(f"licence: {done.info.licence or 'unknown'}")
    if done.contract.layout == "end2end":
        typer.echo("it takes uint8 pictures and gives faces; docs/export.md shows how to run it")
    else:
        typer.echo(f'use it: Detector.open("{done.path}"), or `scrfd detect --model {done.path}`')


def _flag(message: str) -> str:
    from scrfdkit.cli.flags import as_flags

    return f"--{message}" if message.startswith(tuple(f"{name}:" for name in _OWN_FIELDS)) else as_flags(message)


def _size(text: str) -> tuple[int, int] | None:
    if text == "dynamic":
        return None
    match = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", text)
    if match is None:
        raise OptionError(f"--size: {text!r} is neither WIDTHxHEIGHT, such as 640x480, nor 'dynamic'")
    return int(match[1]), int(match[2])


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    if not re.fullmatch(r"\d{1,6}", text):
        raise OptionError(f"--batch: {text!r} is neither a number nor 'dynamic'")
    return int(text)
