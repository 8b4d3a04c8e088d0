"""`scrfd bench`: where the time of a detection goes, or how fast a network is by itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scrfdkit.cli.flags import check_threads, flags_in_errors
from scrfdkit.errors import ImageError, OptionError

if TYPE_CHECKING:
    from scrfdkit.detector import Detector
    from scrfdkit.types import Floats


def command(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FILE]...",
            help="Pictures, taken in turn; without any, a portrait that ships. A network's file is taken for --model.",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name or file; the embedded weights if left out.")] = None,
    runtime: Annotated[str | None, typer.Option(help="Another runtime than the file's own.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or tensorrt.")] = "auto",
    size: Annotated[
        list[str] | None, typer.Option(help="WxH, a long side, auto or original; again for a row each.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the network and of resizing.")] = 1,
    batch: Annotated[int | None, typer.Option(min=1, help="Pictures a run.", show_default="1, or all it takes")] = None,
    iterations: Annotated[
        int | None, typer.Option(min=1, help="Time the network alone, so many runs, and print pictures a second.")
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Runs of all stages that count.")] = 50,
    warmup: Annotated[int, typer.Option(min=0, help="Runs before them that do not.")] = 5,
    output: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE|-", help="Write the record as JSON; - prints it instead of the table."),
    ] = None,
) -> None:
    """Time decode, preprocess, network, postprocess and all of it, in milliseconds a picture.

    With --iterations the network alone, of a file of any format: milliseconds a run, and pictures a second.
    """
    from scrfdkit.options import parse_size

    check_threads(threads)
    sizes = [parse_size(text) for text in size or ["auto"]]
    model, files = _sort(inputs or [], model)
    if iterations is not None and files:
        raise OptionError("--iterations: the network alone needs no pictures; leave one of them out")
    pictures = [_read(Path(path)) for path in files] if files else [_portrait()]
    how: dict[str, Any] = {"model": model, "runtime": runtime, "device": device, "threads": threads, "warmup": warmup}
    with _written(output) as write, flags_in_errors():
        if iterations is not None:
            record = measure_network(sizes=sizes, batch=batch, iterations=iterations, **how)
        else:
            record = measure(pictures, sizes=sizes, batch=batch or 1, repeat=repeat, **how)
        write((json.dumps(record, indent=2) + "\n").encode())
    if output != "-":
        (_print_network if iterations is not None else _print)(record)


def _sort(inputs: list[str], model: str | None) -> tuple[str | None, list[str]]:
    """The network and the pictures among what is named. Raises OptionError for two networks."""
    from scrfdkit.network import is_description
    from scrfdkit.runtime.formats import SUFFIXES, is_address

    networks = [t for t in inputs if is_address(t) or Path(t).suffix in SUFFIXES or is_description(t)]
    found = [*([] if model is None else [model]), *networks]
    if len(found) > 1:
        raise OptionError(f"--model: one network at a time is measured, not {' and '.join(found)}")
    return (found[0] if found else None), [text for text in inputs if text not in networks]


@contextmanager
def _written(output: str | None) -> Iterator[Callable[[bytes], None]]:
    """Opens the file at once, as nobody wants to learn after minutes of measuring that it cannot be written."""
    if output is None:
        yield lambda _: None
        return
    from scrfdkit.atomic import growing
    from scrfdkit.files.names import output_file

    file = growing(output_file(output, "--json"))
    try:
        yield file.write
    except BaseException:
        file.discard()
        raise
    file.commit()


def _read(path: Path) -> bytes:
    """A picture's content, decoded once to know that it is one. Raises ImageError, naming the file."""
    from scrfdkit import image

    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path}: cannot be read: {error.strerror or error}") from None
    image.load(data, name=str(path))
    return data


def _portrait() -> bytes:
    from importlib.resources import files

    return (files("scrfdkit") / "assets" / "astronaut.jpg").read_bytes()


def measure(
    pictures: list[bytes],
    *,
    sizes: list[Any],
    model: str | None,
    runtime: str | None,
    device: str,
    threads: int,
    batch: int,
    repeat: int,
    warmup: int,
) -> dict[str, Any]:
    """The whole record: machine, settings and a row a size."""
    import cv2
    from rich.console import Console
    from rich.progress import track

    from scrfdkit.benchmark.latency import as_record, latency
    from scrfdkit.detector import Detector

    cv2.setNumThreads(threads)
    detector = Detector.open(model, runtime=runtime, device=device, threads=threads)
    console = Console(stderr=True)
    rows = []
    for size in track(sizes, "measuring", console=console, transient=True, disable=not console.is_terminal):
        spreads = latency(detector, pictures, repeat=repeat, warmup=warmup, batch=batch, input_size=size)
        rows.append({"input_size": size, "milliseconds": as_record(spreads)})
    facts = _facts(detector, model, threads)
    return {**facts, "batch": batch, "repeat": repeat, "pictures": len(pictures), "rows": rows}


def measure_network(
    *,
    sizes: list[Any],
    model: str | None,
    runtime: str | None,
    device: str,
    threads: int,
    batch: int | None,
    iterations: int,
    warmup: int,
) -> dict[str, Any]:
    """The record of runs of the network alone, on the portrait: machine, settings and a row a size.

    batch: None for the only one that the network takes, or 1. Raises OptionError for another than the only one.
    """
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    from scrfdkit.benchmark.latency import as_record, network
    from scrfdkit.detector import Detector

    detector = Detector.open(model, runtime=runtime, device=device, threads=threads)
    fixed = detector.runtime.batch_size if detector.layout.batched else 1
    if fixed and batch not in (None, fixed):
        raise OptionError(f"--batch: {detector.path or 'the network'} takes {fixed} picture(s) a run, not {batch}")
    number, rows = fixed or batch or 1, []
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        for size in sizes:
            blob = _blob(detector, size, number)
            width, height = blob.shape[:1:-1]
            bar = progress.add_task(f"{number} x {width}x{height}", total=iterations)
            step = partial(_show, progress, bar)
            spread = network(detector.runtime, blob, repeat=iterations, warmup=warmup, progress=step)
            times = as_record({"network": spread})["network"]
            fps = round(1000 * number / spread.median, 2)
            rows.append({"input_size": (width, height), "milliseconds": times, "pictures_per_second": fps})
    facts = _facts(detector, model, threads)
    return {**facts, "batch": number, "iterations": iterations, "warmup": warmup, "rows": rows}


def _show(progress: Any, bar: Any, done: int) -> None:
    progress.update(bar, completed=done)


def _blob(detector: Detector, size: Any, number: int) -> Floats:
    """(number, 3, H, W) float32 of the portrait as the detector lays it out; "auto" is 640x640 where that fits."""
    import numpy as np

    from scrfdkit import steps
    from scrfdkit.options import AUTO_LONG_SIDE
    from scrfdkit.runtime.base import within

    if size == "auto":
        size = within(detector.runtime, (AUTO_LONG_SIDE, AUTO_LONG_SIDE))
    detector.detect(_portrait(), input_size=size)  # refuses a size that the network does not take
    options = detector.options.override(input_size=size)
    batch = next(iter(detector.plan(detector.load([_portrait()], options), options)))
    return np.repeat(steps.preprocess(batch, detector.input, 1), number, axis=0)


def _facts(detector: Detector, model: str | None, threads: int) -> dict[str, Any]:
    from scrfdkit.machine import machine

    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "model": str(detector.path or model),
        "runtime": type(detector.runtime).__name__,
        "device": detector.device,
        "threads": threads,
    }


def _print(record: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    caption = "milliseconds a picture: median (minimum, 95th percentile)"
    table = Table(title=f"{_title(record)}, {record['repeat']} runs", caption=caption, title_justify="left")
    table.add_column("input")
    for stage in record["rows"][0]["milliseconds"]:
        table.add_column(stage, justify="right")
    for row in record["rows"]:
        cells = [f"{v['median']:.2f} ({v['min']:.2f}, {v['p95']:.2f})" for v in row["milliseconds"].values()]
        table.add_row(_text(row["input_size"]), *cells)
    Console(soft_wrap=True).print(table)


def _print_network(record: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"{_title(record)}, {record['iterations']} runs of the network alone"
    table = Table(title=title, caption="milliseconds a run; pictures a second at the median", title_justify="left")
    for name in ("input", "pictures a second", "median", "minimum", "95th percentile"):
        table.add_column(name, justify="left" if name == "input" else "right")
    for row in record["rows"]:
        times = row["milliseconds"]
        cells = (f"{times[key]:.2f}" for key in ("median", "min", "p95"))
        table.add_row(_text(row["input_size"]), f"{row['pictures_per_second']:.1f}", *cells)
    Console(soft_wrap=True).print(table)


def _title(record: dict[str, Any]) -> str:
    host = record["machine"]
    return (
        f"{Path(record['model']).name} on {record['device']} ({record['runtime']}), {record['threads']} thread(s),"
        f" batch {record['batch']}; {host['cpu']}, {host['cores']} cores"
    )


def _text(size: Any) -> str:
    return "x".join(map(str, size)) if isinstance(size, tuple) else str(size)
