"""`scrfd bench`: where the time of a detection goes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from scrfdkit.cli.flags import check_threads, flags_in_errors
from scrfdkit.errors import ImageError


def command(
    inputs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PICTURE]...", help="Pictures, taken in turn. Without any, a portrait that ships."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Name or file; the embedded weights if left out.")] = None,
    runtime: Annotated[str | None, typer.Option(help="onnxruntime or pytorch.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    size: Annotated[
        list[str] | None, typer.Option(help="WxH, a long side, auto or original; again for a row each.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the network and of resizing.")] = 1,
    batch: Annotated[int, typer.Option(min=1, help="Pictures a run; figures stay per picture.")] = 1,
    repeat: Annotated[int, typer.Option(min=1, help="Runs that count.")] = 50,
    warmup: Annotated[int, typer.Option(min=0, help="Runs before them that do not.")] = 5,
    output: Annotated[
        str | None,
        typer.Option("--json", metavar="FILE|-", help="Write the record as JSON; - prints it instead of the table."),
    ] = None,
) -> None:
    """Time decode, preprocess, network, postprocess and all of it, in milliseconds a picture."""
    from scrfdkit.options import parse_size

    check_threads(threads)
    sizes = [parse_size(text) for text in size or ["auto"]]
    pictures = [_read(path) for path in inputs] if inputs else [_portrait()]
    with _written(output) as write, flags_in_errors():
        record = measure(
            pictures,
            sizes=sizes,
            model=model,
            runtime=runtime,
            device=device,
            threads=threads,
            batch=batch,
            repeat=repeat,
            warmup=warmup,
        )
        write((json.dumps(record, indent=2) + "\n").encode())
    if output != "-":
        _print(record)


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
    from scrfdkit.machine import machine

    cv2.setNumThreads(threads)
    detector = Detector.open(model, runtime=runtime, device=device, threads=threads)
    console = Console(stderr=True)
    rows = []
    for size in track(sizes, "measuring", console=console, transient=True, disable=not console.is_terminal):
        spreads = latency(detector, pictures, repeat=repeat, warmup=warmup, batch=batch, input_size=size)
        rows.append({"input_size": size, "milliseconds": as_record(spreads)})
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "model": str(detector.path),
        "runtime": type(detector.runtime).__name__,
        "device": detector.device,
        "threads": threads,
        "batch": batch,
        "repeat": repeat,
        "pictures": len(pictures),
        "rows": rows,
    }


def _print(record: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    host = record["machine"]
    title = (
        f"{Path(record['model']).name} on {record['device']} ({record['runtime']}), {record['threads']} thread(s),"
        f" batch {record['batch']}, {record['repeat']} runs; {host['cpu']}, {host['cores']} cores"
    )
    table = Table(
        title=title, caption="milliseconds a picture: median (minimum, 95th percentile)", title_justify="left"
    )
    table.add_column("input")
    for stage in record["rows"][0]["milliseconds"]:
        table.add_column(stage, justify="right")
    for row in record["rows"]:
        size = row["input_size"]
        cells = [f"{v['median']:.2f} ({v['min']:.2f}, {v['p95']:.2f})" for v in row["milliseconds"].values()]
        table.add_row("x".join(map(str, size)) if isinstance(size, tuple) else str(size), *cells)
    Console(soft_wrap=True).print(table)
