"""`scrfd vastai`: pictures to a device's inputs, and its outputs to results that `scrfd eval` scores."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from scrfdkit.errors import OptionError, ScrfdError

if TYPE_CHECKING:
    from scrfdkit.vastai.match import Pairs

app = typer.Typer(no_args_is_help=True, help="Vastai's devices: pack pictures for vamp, decode what it writes.")

Jobs = Annotated[int | None, typer.Option(min=1, metavar="N", help="Files at a time.", show_default="one a core")]
_SHOWN = 5


@app.command()
def pack(
    pictures: Annotated[list[Path], typer.Argument(help="Pictures or folders, such as WIDER FACE's val/images.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for the .npz files and list.txt.")],
    letterbox: Annotated[
        str | None,
        typer.Option(
            metavar="WxH",
            help="Put each onto a canvas of this size, as `scrfd eval` does.",
            show_default="at their own size",
        ),
    ] = None,
    jobs: Jobs = None,
) -> None:
    """Write each picture as an .npz file with `input_0`, uint8 RGB (3, H, W), and a list of them.

    What was packed before is not packed again. Exit code 1 if a picture cannot be read, as told on standard error; it
    is then not on the list.
    """
    from scrfdkit.cli.trial import files
    from scrfdkit.data.words import plural
    from scrfdkit.files.pipeline import ordered_map
    from scrfdkit.machine import share_cores
    from scrfdkit.vastai import pack as packing

    canvas = None if letterbox is None else _size(letterbox, "--letterbox")
    plan = packing.plan(files(pictures, "PICTURES"), out)

    def one(entry: tuple[Path, Path]) -> bool | ScrfdError:
        try:
            return packing.pack(*entry, canvas)
        except ScrfdError as error:
            return error

    done = list(ordered_map(one, plan, share_cores(jobs, len(plan))[0]))
    errors = [outcome for outcome in done if isinstance(outcome, ScrfdError)]
    packed = [target for (_, target), outcome in zip(plan, done, strict=True) if not isinstance(outcome, ScrfdError)]
    packing.write_list(out / packing.LIST, packed)
    fresh = sum(outcome is True for outcome in done)
    typer.echo(f"{plural(fresh, 'picture')} packed, {len(packed) - fresh} were there; the list is {out / packing.LIST}")
    _leave(errors)


@app.command()
def decode(
    outputs: Annotated[Path, typer.Argument(metavar="NPZ_DIR", help="Folder of the .npz files that vamp wrote.")],
    listed: Annotated[Path, typer.Option("--list", metavar="FILE", help="The list that vamp was given.")],
    data: Annotated[Path, typer.Option(metavar="DIR", help="The pictures, in event folders.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for event/name.txt files.")],
    size: Annotated[str, typer.Option(metavar="WxH", help="Input size of the network.")] = "640x640",
    fed: Annotated[
        Literal["auto", "corner", "centre"],
        typer.Option(help="Where pictures lay on the input: told by their faces, packed with --letterbox, or by vdsp."),
    ] = "auto",
    published: Annotated[
        bool, typer.Option("--published", help="As Vastai's figures: threshold 0.5, centred, whole pixels.")
    ] = False,
    jobs: Jobs = None,
) -> None:
    """Turn logit maps into WIDER FACE result files, exactly as `scrfd eval --model` finds faces.

    Outputs are called like the entries of the list, or numbered in its order. Exit code 1 if some are missing or
    broken, as told on standard error.
    """
    from scrfdkit.data.words import plural
    from scrfdkit.files.pipeline import ordered_map
    from scrfdkit.machine import share_cores
    from scrfdkit.vastai import decode as decoding
    from scrfdkit.vastai.match import match, picture_folder, read_list

    if published and fed == "corner":
        raise OptionError("--fed: the published way has pictures in the centre; leave out --published or --fed corner")
    canvas, pictures = _size(size, "--size"), picture_folder(data)
    matched = match(read_list(listed), outputs, pictures)
    if published:
        rules = decoding.Rules(canvas, "centre", published=True)
    elif fed == "auto":
        where, share, other = decoding.where_fed(matched.pairs, pictures, canvas)
        rules = decoding.Rules(canvas, where)
        typer.echo(
            f"pictures lay in the {where} of the input: {share:.1%} of all scores are on them so, else {other:.1%}"
        )
    else:
        rules = decoding.Rules(canvas, fed)
    mapper = partial(ordered_map, jobs=share_cores(jobs, len(matched.pairs))[0])
    errors = decoding.write_all(matched.pairs, pictures, out, rules, mapper)
    written = plural(len(matched.pairs) - len(errors), "result file")
    typer.echo(f"{written} in {out}, outputs taken by {matched.how}")
    _leave(errors, matched)


def _size(text: str, flag: str) -> tuple[int, int]:
    from scrfdkit.options import parse_size

    size = parse_size(text, flag)
    if isinstance(size, tuple):
        return size
    raise OptionError(f"{flag}: {text!r} is not WIDTHxHEIGHT, such as 640x640")


def _leave(errors: list[ScrfdError], matched: Pairs | None = None) -> None:
    """Tells what went wrong, and ends with exit code 1 if anything did."""
    from scrfdkit.cli.flags import one_line
    from scrfdkit.data.words import plural

    for error in errors:
        typer.echo(f"failed: {one_line(str(error))}", err=True)
    if matched is not None:
        for what, names in (("without outputs", matched.missing), ("on no list", matched.extra)):
            if names:
                some = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
                noun = "picture" if what == "without outputs" else "file"
                typer.echo(one_line(f"{plural(len(names), noun)} {what}: {some}"), err=True)
    if errors or (matched is not None and matched.missing):
        raise typer.Exit(1)
