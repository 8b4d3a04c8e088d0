"""Records, one a picture or video frame, and the file of JSON Lines that a broken run is resumed from."""

from __future__ import annotations

import fcntl
import json
import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from scrfdkit.atomic import write_error
from scrfdkit.errors import OptionError, ScrfdError
from scrfdkit.types import Detections

Record = dict[str, Any]
"""One line: {"file", "width", "height", "faces"}, {"file", "frame", "time", "faces"} or {"file", "error"}. A picture
whose faces are known, but that could not be drawn, has both faces and error."""

_START = b'{"file":'  # how every line begins


def picture_record(file: str, width: int, height: int, detections: Detections) -> Record:
    """Of a picture; width and height are those of the upright original."""
    return {"file": file, "width": width, "height": height, "faces": detections.to_dict()}


def frame_record(
    file: str, frame: int, seconds: float, detections: Detections, bridged: Sequence[bool] | NDArray[np.bool_] = ()
) -> Record:
    """Of one frame of a video, its number from 0 and its time from the start. bridged: which faces were filled in;
    only these have "bridged": true."""
    faces = detections.to_dict()
    for face, filled in zip(faces, bridged, strict=False):
        if filled:
            face["bridged"] = True
    return {"file": file, "frame": frame, "time": round(seconds, 4), "faces": faces}


def failure_record(file: str, error: str) -> Record:
    """Of an input that could not be read."""
    return {"file": file, "error": error}


def found_faces(record: Record) -> list[Record]:
    """The faces that the detector itself found, without those filled in between frames."""
    return [face for face in record["faces"] if not face.get("bridged")]


def encode(record: Record) -> bytes:
    """The record as a line of UTF-8; file names that are not text are escaped."""
    try:
        return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(record, separators=(",", ":")).encode() + b"\n"


@dataclass(frozen=True)
class _Run:
    """Neighbouring lines of one input: which file they are in, from which byte to which."""

    place: Path
    start: int
    end: int


class Journal:
    """FILE, built as FILE.partial, line by line as results come in, so that a kill loses nothing but a torn line.

    With `resume`, the records of FILE and FILE.partial are kept, and `in` tells whether an input needs not be looked
    at again. Failed inputs are looked at again, and so is a video that ended the file, as it may have
    been broken off. `finish` puts all lines into the order in which inputs were added or read back; records of
    inputs that were not named this time come last. Raises ScrfdError, naming the file.
    """

    def __init__(self, path: Path, resume: bool) -> None:
        self.path = Path(os.path.realpath(path))
        self.partial = self.path.with_name(self.path.name + ".partial")
        self._known: dict[str, _Run] = {}
        self._order = array("q")  # start and end of each run, as `finish` shall write them
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._open_locked(self.partial)
        except OSError as error:
            raise write_error(path, error) from None
        try:
            if resume:
                self._take_over()
            else:
                self._file.truncate(0)
            self._end = self._file.seek(0, os.SEEK_END)
        except (OSError, OptionError) as error:
            self.close()
            if self.partial.stat().st_size == 0:
                self.partial.unlink()
            raise (write_error(path, error) if isinstance(error, OSError) else error) from None

    def __contains__(self, file: str) -> bool:
        return file in self._known

    def peek(self, file: str) -> list[Record]:
        """What is known of an input."""
        run = self._known[file]
        return [json.loads(line) for line in self._read(run.start, run.end).splitlines()]

    def take(self, file: str) -> list[Record]:
        """The same, and gives the input its turn in the order."""
        records = self.peek(file)
        run = self._known.pop(file)
        self._order.extend((run.start, run.end))
        return records

    def forget(self, file: str) -> None:
        """Drops what is known of an input, which then has to be looked at again."""
        del self._known[file]

    def remaining(self) -> list[str]:
        """Known inputs that have not had their turn."""
        return list(self._known)

    def add(self, record: Record) -> None:
        """Appends a line; what was written before stays whole where it cannot be written."""
        line = encode(record)
        try:
            self._file.seek(self._end)
            _write_all(self._file, line)
        except OSError as error:
            self._file.truncate(self._end)
            raise write_error(self.path, error) from None
        self._order.extend((self._end, self._end + len(line)))
        self._end += len(line)

    def finish(self) -> None:
        """Moves everything into FILE. If that fails, FILE.partial stays and can be resumed from."""
        for file in self.remaining():
            run = self._known.pop(file)
            self._order.extend((run.start, run.end))
        try:
            if self._in_order():
                self.partial.replace(self.path)
            else:
                self._rewrite()
        except OSError as error:
            hint = f"; the records are in {self.partial.name}, go on with --resume"
            raise ScrfdError(str(write_error(self.path, error)) + hint) from None
        finally:
            self._file.close()

    def close(self) -> None:
        """Leaves FILE.partial as it is, for a later run to go on with."""
        self._file.close()

    def _in_order(self) -> bool:
        starts, ends = self._order[::2], self._order[1::2]
        return starts == array("q", [0, *ends])[: len(starts)] and (not ends or ends[-1] == self._end)

    def _rewrite(self) -> None:
        sorted_path = self.partial.with_name(self.partial.name + ".new")
        try:
            with sorted_path.open("wb") as file:
                for start, end in zip(self._order[::2], self._order[1::2], strict=True):
                    file.write(self._read(start, end))
            sorted_path.replace(self.path)
        except OSError:
            sorted_path.unlink(missing_ok=True)
            raise
        self.partial.unlink()

    def _read(self, start: int, end: int) -> bytes:
        self._file.seek(start)
        return self._file.read(end - start)

    def _open_locked(self, path: Path) -> BinaryIO:
        file = open(path, "r+b" if path.exists() else "w+b", buffering=0)  # noqa: PTH123, SIM115
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise OptionError(
                f"--json: {path} is being written by another run; wait for it or choose another file"
            ) from None
        except OSError:
            pass  # a file system without locks
        return file

    def _take_over(self) -> None:
        """Gathers the good lines of FILE and FILE.partial in a new FILE.partial."""
        runs: dict[str, _Run] = {}
        for place in (self.path, self.partial):
            if place.exists():
                runs.update(_good_runs(place))
        gathered = self.partial.with_name(self.partial.name + ".new")
        gathered.unlink(missing_ok=True)
        file, end = self._open_locked(gathered), 0
        try:
            for name, run in runs.items():
                with run.place.open("rb") as source:
                    source.seek(run.start)
                    _write_all(file, source.read(run.end - run.start))
                self._known[name] = _Run(self.partial, end, end + run.end - run.start)
                end = self._known[name].end
            gathered.replace(self.partial)
        except OSError:
            file.close()
            gathered.unlink(missing_ok=True)
            raise
        self._file.close()
        self._file = file


def _write_all(file: BinaryIO, data: bytes) -> None:
    """A file without a buffer may take less than it is given, on a full disk for one."""
    written = 0
    while written < len(data):
        written += file.write(data[written:])


def _good_runs(place: Path) -> dict[str, _Run]:
    runs: dict[str, _Run] = {}
    last, good, video = "", True, False
    for record, start, stop in _lines(place):
        if record["file"] != last:
            last, good = record["file"], True
            runs[last] = _Run(place, start, stop)
        good = good and "error" not in record
        video = "frame" in record
        if good:
            runs[last] = _Run(place, runs[last].start, stop)
        else:
            runs.pop(last, None)
    # Only a record of the next input shows that a video was seen to its end.
    if video:
        runs.pop(last, None)
    runs.pop("-", None)  # can be another picture each time
    return runs


def _lines(place: Path) -> Iterator[tuple[Record, int, int]]:
    """Records with their first byte and the one after; a torn last line is left out."""
    start = 0
    with place.open("rb") as file:
        for number, line in enumerate(file, 1):
            whole = line.endswith(b"\n")
            record = _parse(line) if whole else None
            if record is not None:
                yield record, start, start + len(line)
            elif whole or not line.startswith(_START[: len(line)]):
                raise OptionError(
                    f"--resume: {place}, line {number}, is no record of scrfd detect;"
                    " name the --json file of the run to go on with"
                )
            start += len(line)


def _parse(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("file"), str) else None
