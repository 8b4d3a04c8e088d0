"""`scrfd detect`: faces in pictures, folders, videos and cameras, as records, pictures and label files."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from threading import enumerate as all_threads
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from scrfdkit.cli.flags import DeviceName, RuntimeName, as_flags, flags_in_errors, one_line
from scrfdkit.errors import OptionError, ScrfdError

if TYPE_CHECKING:
    from scrfdkit import draw
    from scrfdkit.detector import Detector
    from scrfdkit.files.job import FrameFaces, Job, Task
    from scrfdkit.files.names import Guard
    from scrfdkit.files.plan import Wanted
    from scrfdkit.files.run import Outcome

_FAILED, _INTERRUPTED, _HUNG_UP = 3, 130, 141


_WRITE, _FIND, _RUN = "What to write", "How to look", "How to run"


def command(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT",
            help="Pictures, videos, folders, quoted patterns such as 'in/**/*.jpg', a camera's number, or - for"
            " a picture on standard input.",
            show_default=False,
        ),
    ],
    json: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|-",
            help="JSON Lines, one record a picture or frame. To standard output if nothing else is asked for.",
            rich_help_panel=_WRITE,
        ),
    ] = None,
    save_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Pictures and videos with the faces marked.", rich_help_panel=_WRITE),
    ] = None,
    anonymize: Annotated[
        Literal["blur", "pixelate", "black"] | None,
        typer.Option(help="Hide the faces in --save-dir instead of marking them.", rich_help_panel=_WRITE),
    ] = None,
    crops: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Every face by itself, upright, 112x112.", rich_help_panel=_WRITE),
    ] = None,
    csv: Annotated[str | None, typer.Option(metavar="FILE|-", help="One row a face.", rich_help_panel=_WRITE)] = None,
    coco: Annotated[
        str | None, typer.Option(metavar="FILE|-", help="COCO data set with scores.", rich_help_panel=_WRITE)
    ] = None,
    wider: Annotated[
        Path | None, typer.Option(metavar="DIR", help="WIDER FACE result files.", rich_help_panel=_WRITE)
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with a broken-off run by its --json FILE.", rich_help_panel=_WRITE),
    ] = False,
    score: Annotated[
        float, typer.Option(min=0, max=1, metavar="0..1", help="Lowest score of a face.", rich_help_panel=_FIND)
    ] = 0.5,
    size: Annotated[
        list[str] | None,
        typer.Option(
            metavar="WxH|N|auto|original",
            help="What the network sees; several times: all of them, merged.",
            show_default="auto",
            rich_help_panel=_FIND,
        ),
    ] = None,
    nms: Annotated[
        float,
        typer.Option(
            min=0, max=1, metavar="0..1", help="Overlap (IoU) at which two faces are one.", rich_help_panel=_FIND
        ),
    ] = 0.4,
    max_faces: Annotated[
        int, typer.Option(min=0, metavar="N", help="At most so many a picture; 0 for all.", rich_help_panel=_FIND)
    ] = 0,
    rank: Annotated[
        Literal["area", "center"], typer.Option(help="Which faces --max-faces keeps.", rich_help_panel=_FIND)
    ] = "area",
    tile: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Look at tiles of N pixels too, for tiny faces.", rich_help_panel=_FIND),
    ] = 0,
    rotate: Annotated[
        Literal["0", "90", "180", "270", "auto"],
        typer.Option(help="Turn clockwise first; auto tries all.", rich_help_panel=_FIND),
    ] = "0",
    every: Annotated[
        int, typer.Option(min=1, metavar="N", help="Look at every Nth frame of a video.", rich_help_panel=_FIND)
    ] = 1,
    track: Annotated[
        bool, typer.Option("--track", help="Number the faces of a video through its frames.", rich_help_panel=_FIND)
    ] = False,
    hold: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Keep faces of a video N frames before and after they show.", rich_help_panel=_FIND
        ),
    ] = 0,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="Network; see `scrfd models`.", rich_help_panel=_RUN),
    ] = None,
    device: Annotated[DeviceName, typer.Option(help="Where the network runs.", rich_help_panel=_RUN)] = "auto",
    strict_device: Annotated[
        bool,
        typer.Option("--strict-device", help="Fail rather than run elsewhere than --device.", rich_help_panel=_RUN),
    ] = False,
    runtime: Annotated[RuntimeName | None, typer.Option(help="What runs the network.", rich_help_panel=_RUN)] = None,
    jobs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Pictures at a time.", show_default="one a core", rich_help_panel=_RUN),
    ] = None,
    max_pixels: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Refuse larger pictures.", show_default="179 million", rich_help_panel=_RUN
        ),
    ] = None,
) -> None:
    """Find faces in pictures and video.

    Exit codes: 0 all inputs were read; 3 some failed, as told on standard
    error and in the records; 2 wrong usage, or an output cannot be written;
    130 interrupted: what was done is in place, and --resume goes on.
    """
    from scrfdkit.files.plan import Wanted, plan
    from scrfdkit.machine import share_cores

    wanted = Wanted(json, save_dir, crops, csv, coco, wider, resume)
    if anonymize and save_dir is None:
        raise OptionError("--anonymize changes what --save-dir writes: add --save-dir DIR")
    options: dict[str, Any] = {
        "score_threshold": score,
        "nms_threshold": nms,
        "input_size": _sizes(size or ["auto"]),
        "max_faces": max_faces,
        "rank": rank,
        "tile": tile,
        "rotate": rotate if rotate == "auto" else int(rotate),
    }
    if max_pixels is not None:
        options["max_pixels"] = max_pixels
    with _until_signalled() as stop:
        tasks, guard = plan(inputs, wanted)
        pictures = sum(task.source.kind in ("picture", "stdin") for task in tasks)
        workers, threads = share_cores(jobs, pictures)
        detector = _open(model, threads, options, device=device, strict_device=strict_device, runtime=runtime)
        job = _job(detector, guard, method=anonymize, every=every, stop=stop, track=track, hold=hold)
        outcome = _run(tasks, job, wanted, detector.num_keypoints, workers=workers, stop=stop)
    _leave(outcome, stop)


def _sizes(values: list[str]) -> Any:
    from scrfdkit.options import parse_size

    sizes = [parse_size(value) for value in values]
    return sizes[0] if len(sizes) == 1 else sizes


def _open(model: str | None, threads: int, options: dict[str, Any], **how: Any) -> Detector:
    from scrfdkit.detector import Detector

    with warnings.catch_warnings(record=True) as caught, flags_in_errors():
        warnings.simplefilter("always", RuntimeWarning)
        detector = Detector.open(model, threads=threads, **how, **options)
    for warning in caught:
        typer.echo(f"warning: {one_line(as_flags(str(warning.message)))}", err=True)
    return detector


def _job(
    detector: Detector, guard: Guard, *, method: draw.Method | None, every: int, stop: Event, track: bool, hold: int
) -> Job:
    from scrfdkit.files.job import Job
    from scrfdkit.views import decoding_target

    def process(*arguments: Any, **how: Any) -> Iterator[FrameFaces]:
        from scrfdkit import video

        return video.process(*arguments, every=every, track=track, hold=hold, **how)

    target = decoding_target(detector.options, detector.runtime.input_size)
    return Job(detector.detect, process, guard, target, detector.options.max_pixels, method, every, stop)


def _run(tasks: Sequence[Task], job: Job, wanted: Wanted, num_keypoints: int, *, workers: int, stop: Event) -> Outcome:
    import cv2

    from scrfdkit.cli.display import Display
    from scrfdkit.files.plan import open_outputs
    from scrfdkit.files.run import run

    if workers > 1:
        cv2.setNumThreads(1)  # every worker has a core of its own already
    outputs = open_outputs(wanted, tasks, num_keypoints, _frame_size)
    with Display(len(tasks)) as display:
        outcome = run(tasks, job, outputs, jobs=workers, stop=stop, watch=display.watch)
    if outcome.failed:
        typer.echo(f"{len(outcome.failed)} of {len(tasks)} inputs failed", err=True)
    return outcome


def _frame_size(file: str) -> tuple[int, int] | None:
    """Width and height of a video's frames, None for a camera or where it cannot be opened any more."""
    from scrfdkit import video
    from scrfdkit.files.job import place_of

    if file.isdigit():
        return None
    with suppress(ScrfdError):
        info = video.probe(place_of(file))
        return info.width, info.height
    return None


@contextmanager
def _until_signalled() -> Iterator[Event]:
    """An event that SIGINT or SIGTERM sets, so that what is being written is finished; a second one ends at once."""
    stop = Event()

    def handle(_number: int, _frame: Any) -> None:
        if stop.is_set():
            os._exit(_INTERRUPTED)  # every file is whole at any moment, and records are written as they come
        stop.set()

    signals = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, handle) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _leave(outcome: Outcome, stop: Event) -> None:
    """Ends with the exit code that fits; returns where all went well."""
    if outcome.hung_up:
        # Python would complain when it flushes what nobody reads any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(_HUNG_UP)
    if stop.is_set():
        typer.echo("interrupted", err=True)
        if any(thread.name.startswith("scrfd-worker") for thread in all_threads()):
            os._exit(_INTERRUPTED)  # a worker that hangs, in a read for one, would be waited for without end
        raise typer.Exit(_INTERRUPTED)
    if outcome.failed:
        raise typer.Exit(_FAILED)
