"""From what the user asked for to tasks and open outputs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from scrfdkit.atomic import is_special, make_folder, write_error
from scrfdkit.errors import OptionError
from scrfdkit.files import names
from scrfdkit.files.inputs import expand
from scrfdkit.files.job import Task
from scrfdkit.files.records import Journal
from scrfdkit.files.run import Outputs
from scrfdkit.files.sinks import CocoSink, CsvSink, LinesSink, Sink, WiderSink


@dataclass(frozen=True)
class Wanted:
    """The outputs that were asked for; "-" is standard output. Raises OptionError for what cannot be written to, and
    where two of them exclude each other."""

    json: str | None
    save_dir: Path | None
    crops: Path | None
    csv: str | None
    coco: str | None
    wider: Path | None
    resume: bool

    def __post_init__(self) -> None:
        if self.resume and self.journal is None:
            raise OptionError("--resume goes on with a run by its records: add --json FILE, the file of that run")
        places: dict[str, str] = {}
        for flag, text in (("--json", self.json), ("--csv", self.csv), ("--coco", self.coco)):
            if text is None:
                continue
            path = names.output_file(text, flag)
            other = places.setdefault("-" if text == "-" else os.path.realpath(path), flag)
            if other != flag and text == "-":
                raise OptionError(f"{flag}: standard output is taken by {other} already; only one output can be -")
            if other != flag and not is_special(path):
                raise OptionError(f"{flag}: {path} is also the file of {other}; choose another name")
        for flag, folder in (("--save-dir", self.save_dir), ("--crops", self.crops), ("--wider", self.wider)):
            if folder is not None:
                names.output_folder(folder, flag)

    @property
    def stream(self) -> Path | None:
        """A device or pipe that records are sent to; "-" is standard output."""
        nothing_else = all(v is None for v in (self.save_dir, self.crops, self.csv, self.coco, self.wider))
        if self.json == "-" or (self.json is None and nothing_else):
            return Path("-")
        return Path(self.json) if self.json is not None and is_special(Path(self.json)) else None

    @property
    def journal(self) -> Path | None:
        """The file of records."""
        return None if self.json is None or self.stream is not None else Path(self.json)

    @property
    def folders(self) -> list[Path]:
        """Folders that pictures and label files go into."""
        return [folder for folder in (self.save_dir, self.crops, self.wider) if folder is not None]


def plan(inputs: Sequence[str], wanted: Wanted) -> tuple[list[Task], names.Guard]:
    """All inputs and the names of their pictures; the guard that keeps outputs off the inputs.

    Raises OptionError where there is no input at all, or where an output would replace one.
    """
    sources = expand(inputs, skip=wanted.folders)
    real = [source for source in sources if source.kind != "nothing"]
    if not real:
        raise OptionError("; ".join(source.problem for source in sources) or "no inputs were named")
    guard = names.Guard(real)
    for flag, file in (("--json", wanted.json), ("--csv", wanted.csv), ("--coco", wanted.coco)):
        if file is not None and file != "-":
            guard.check(Path(file), flag)
    pictures = dict(zip(real, names.distinct([names.picture_name(source) for source in real]), strict=True))
    stems = dict(zip(real, names.distinct([names.stem(source) for source in real]), strict=True))
    tasks = []
    for source in sources:
        drawn = crops = None
        if source in stems and wanted.save_dir is not None:
            drawn = guard.check(wanted.save_dir / pictures[source], "--save-dir")
        if source in stems and wanted.crops is not None:
            crops = wanted.crops / stems[source]
        tasks.append(Task(source, drawn, crops))
    return tasks, guard


def open_outputs(
    wanted: Wanted, tasks: Sequence[Task], num_keypoints: int, frame_size: Callable[[str], tuple[int, int] | None]
) -> Outputs:
    """Everything that takes records, ready for the first. frame_size: width and height of a video, for COCO.

    Raises ScrfdError for what cannot be written.
    """
    for folder in wanted.folders:
        make_folder(folder)
    sinks: list[Sink] = []
    try:
        if wanted.csv is not None:
            sinks.append(CsvSink(Path(wanted.csv), num_keypoints))
        if wanted.coco is not None:
            sinks.append(CocoSink(Path(wanted.coco), num_keypoints, frame_size))
        if wanted.wider is not None:
            sinks.append(WiderSink(wanted.wider, _wider_names(tasks)))
        if wanted.stream is not None:
            sinks.append(_stream(wanted.stream))
        journal = None if wanted.journal is None else Journal(wanted.journal, wanted.resume)
    except BaseException:
        for sink in sinks:
            sink.discard()
        raise
    return Outputs(journal, sinks)


def _wider_names(tasks: Sequence[Task]) -> dict[str, tuple[PurePosixPath, str]]:
    sources = [task.source for task in tasks if task.source.kind != "nothing"]
    stems = names.distinct([names.stem(source) for source in sources])
    return {source.file: (stem, str(source.relative)) for source, stem in zip(sources, stems, strict=True)}


def _stream(path: Path) -> LinesSink:
    if path == Path("-"):
        return LinesSink(sys.stdout.buffer, "standard output")
    try:
        return LinesSink(path.open("wb"), str(path))
    except OSError as error:
        raise write_error(path, error) from None
