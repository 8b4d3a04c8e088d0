"""`scrfd export`: a network as a file for other runtimes, with a certificate."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scrfdkit.cli import trial as trials
from scrfdkit.errors import ModelError, OptionError

if TYPE_CHECKING:
    from scrfdkit.certificate import Certificate
    from scrfdkit.export.order import Order, Target

TARGETS = ("onnx", "tflite", "tensorrt", "vastai", "triton", "torchscript", "torchexport", "ncnn", "openvino")
_SETTINGS = ("max_batch", "min_size", "max_size", "timing_cache", "compute_capability", "backend")
_OWN_FIELDS = ("layout", "size", "batch", "opset", "precision", "calibrate", *_SETTINGS)  # called like their flags


def command(
    model: Annotated[
        str, typer.Argument(help="A network's name, its .json description, or a .safetensors, .pth or .onnx file.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="The file or folder to write.")],
    to: Annotated[str, typer.Option("--to", help=f"Format: {', '.join(TARGETS)}.")] = TARGETS[0],
    precision: Annotated[str, typer.Option("--precision", help="fp32, fp16 or int8.")] = "fp32",
    layout: Annotated[
        str | None,
        typer.Option(
            "--layout",
            help="reference: rows as in the official files; maps: as convolved; end2end: pictures to faces.",
            show_default="the format's usual one",
        ),
    ] = None,
    sigmoid: Annotated[
        bool | None,
        typer.Option("--sigmoid/--raw", help="Scores of maps: probabilities, or logits.", show_default="raw"),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", help="Fixed input size WIDTHxHEIGHT.", show_default="dynamic where it can be"),
    ] = None,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Any input size.")] = False,
    batch: Annotated[
        str | None,
        typer.Option("--batch", help="Fixed number of pictures a run.", show_default="dynamic where it can be"),
    ] = None,
    opset: Annotated[int | None, typer.Option("--opset", help="ONNX operator set.", show_default="17")] = None,
    score: Annotated[float | None, typer.Option("--score", help="end2end: least score.", show_default="0.5")] = None,
    nms: Annotated[
        float | None, typer.Option("--nms", help="end2end: overlap above which a face goes.", show_default="0.4")
    ] = None,
    max_faces: Annotated[
        int | None, typer.Option("--max-faces", help="end2end: rows for faces.", show_default="300")
    ] = None,
    calibrate: Annotated[
        list[Path] | None,
        typer.Option("--calibrate", help="int8, vastai: pictures or folders to take ranges from; may be repeated."),
    ] = None,
    max_batch: Annotated[
        int | None, typer.Option("--max-batch", help="tensorrt, triton: most pictures a run.", show_default="8")
    ] = None,
    min_size: Annotated[
        str | None, typer.Option("--min-size", help="tensorrt: smallest input size of a range, WIDTHxHEIGHT.")
    ] = None,
    max_size: Annotated[str | None, typer.Option("--max-size", help="tensorrt: largest input size of it.")] = None,
    timing_cache: Annotated[
        Path | None, typer.Option("--timing-cache", help="tensorrt: file that keeps timings from build to build.")
    ] = None,
    compute_capability: Annotated[
        str | None,
        typer.Option("--compute-capability", help="tensorrt: of GPUs to build for, such as 8.9; TensorRT-RTX only."),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option("--backend", help="triton: onnxruntime, tensorrt, pytorch or python.", show_default="onnxruntime"),
    ] = None,
    pictures: trials.Pictures = None,
    data: trials.Data = None,
    gt: trials.GroundTruth = None,
    images: trials.Images = None,
    max_drop: trials.MaxDrop = 1.0,
    threads: trials.Threads = 1,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Write a network as a file for another runtime, held against PyTorch before it is saved.

    The new file is run beside PyTorch on three sizes and batches and on pictures; where it differs by more than its
    precision allows, misses faces, or with --data loses AP, nothing is written. What was measured is in
    OUT.certificate.json. docs/export.md tells what each format can do.
    """
    from scrfdkit.atomic import exists

    if to not in TARGETS:
        raise OptionError(f"--to: {to!r} is not one of {TARGETS}")
    only = {"--score": score, "--nms": nms, "--max-faces": max_faces}
    given = {"layout": layout, "sigmoid": sigmoid, "size": _size(size, dynamic), "batch": _batch(batch)}
    settings = {
        "max_batch": max_batch,
        "min_size": _pair(min_size, "--min-size"),
        "max_size": _pair(max_size, "--max-size"),
        "timing_cache": None if timing_cache is None else str(timing_cache),
        "compute_capability": compute_capability,
        "backend": backend,
    }
    if exists(out) and not force:
        raise ModelError(f"{out}: is there already; --force overwrites it")
    with trials.progress() as say:
        source = trials.open_source(model)
        try:
            target = trials.targets()[to]
            _check_dynamic(target, dynamic or size == "dynamic", batch == "dynamic")
            order = _order(target, precision, opset, given, only, calibrate or [], settings)
            how = trials.trial(pictures, data, gt, images, max_drop, threads, order.contract.size)
            from scrfdkit.export.run import export

            made = export(source, out, target, order, how, say, "" if Path(model).exists() else model)
        except OptionError as error:
            raise OptionError(_flag(str(error))) from None
    _report(made, target, out)


def _order(
    target: Target,
    precision: str,
    opset: int | None,
    given: dict[str, Any],
    only: dict[str, Any],
    calibrate: list[Path],
    settings: dict[str, Any],
) -> Order:
    """What the flags ask for. Raises OptionError, naming a field or a flag."""
    from scrfdkit.export.calibration import choose
    from scrfdkit.export.contract import Contract, Suppression
    from scrfdkit.export.order import OPSET, PRECISIONS, Order

    layout = given["layout"] or target.layouts[0]
    flags = [flag for flag, value in only.items() if value is not None]
    if flags and layout != "end2end":
        raise OptionError(f"{flags[0]}: is part of an end2end file only; the {layout} layout leaves it to who reads it")
    if given["sigmoid"] is False and layout != "maps":
        raise OptionError(f"--raw: the {layout} layout always has its sigmoid; only maps can do without")
    if precision not in PRECISIONS:
        raise OptionError(f"precision: {precision!r} is not one of {PRECISIONS}")
    if calibrate and precision != "int8" and not target.calibrates:
        raise OptionError(f"calibrate: only int8 takes ranges from pictures, and this is {precision}")
    names = ("score_threshold", "nms_threshold", "max_faces")
    rule = {name: value for name, value in zip(names, only.values(), strict=True) if value is not None}
    fields = {**given, "layout": layout, "sigmoid": bool(given["sigmoid"])}
    return Order(
        contract=Contract(**fields, suppression=Suppression(**rule)),
        precision=precision,
        calibration=choose(trials.files(calibrate, "--calibrate")),
        opset=OPSET if opset is None else opset,
        settings={name: value for name, value in settings.items() if value is not None},
    )


def _report(made: Certificate, target: Target, out: Path) -> None:
    from scrfdkit.export.order import Order

    contract = Order.from_dict(made.contract, made.precision).contract
    typer.echo(f"{made.metadata['name']} for {made.target}, {made.precision}: {contract.describe()}")
    trials.report(made)
    typer.echo(f"wrote {out} ({made.num_bytes / 1e6:.1f} MB) and its certificate")
    typer.echo(f"licence: {made.metadata['licence'] or 'unknown'}")
    if target.folder:
        typer.echo(f"what to do with it: {out / 'README.md'}")
    elif contract.layout == "end2end":
        typer.echo("it takes uint8 pictures and gives faces; docs/export.md shows how to run it")
    else:
        typer.echo(f'use it: Detector.open("{out}"), or `scrfd detect --model {shlex.quote(str(out))}`')


def _flag(message: str) -> str:
    from scrfdkit.cli.flags import as_flags

    own = message.startswith(tuple(f"{name}:" for name in _OWN_FIELDS))
    return f"--{message.partition(':')[0].replace('_', '-')}:{message.partition(':')[2]}" if own else as_flags(message)


def _size(text: str | None, dynamic: bool) -> tuple[int, int] | None:
    if text is not None and dynamic:
        raise OptionError("--dynamic: and --size cannot be both; dynamic is any size")
    return None if text == "dynamic" else _pair(text, "--size")


def _check_dynamic(target: Target, size: bool, batch: bool) -> None:
    """Raises OptionError where what was asked to be open cannot be."""
    if size and not target.open_size:
        raise OptionError(
            f"--dynamic: {target.name} files have a fixed size; name it with --size, or leave it at 640x640"
        )
    if batch and not target.open_batch:
        raise OptionError(f"--batch: {target.name} files have a fixed number of pictures; name it, or leave it at 1")


def _pair(text: str | None, flag: str) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,6})[xX](\d{1,6})", text)
    if match is None:
        also = ", nor 'dynamic'" if flag == "--size" else ""
        raise OptionError(f"{flag}: {text!r} is {'neither' if also else 'not'} WIDTHxHEIGHT, such as 640x480{also}")
    return int(match[1]), int(match[2])


def _batch(text: str | None) -> int | None:
    if text in (None, "dynamic"):
        return None
    if not re.fullmatch(r"\d{1,6}", text or ""):
        raise OptionError(f"--batch: {text!r} is neither a number nor 'dynamic'")
    return int(text or "")
