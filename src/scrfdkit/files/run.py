"""All inputs through the detector, their records to every output in input order, and a tidy end in any case."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import groupby
from threading import Event

from scrfdkit.atomic import exists
from scrfdkit.errors import ScrfdError
from scrfdkit.files.job import Job, Task, with_crop
from scrfdkit.files.pipeline import ordered_map
from scrfdkit.files.records import Journal, Record
from scrfdkit.files.sinks import Sink


@dataclass
class Outcome:
    """How a run went.

    inputs, frames, faces: counts of what was handed to the outputs. resumed: inputs of these known from before.
    failed: messages of inputs that could not be read. hung_up: the reader of standard output went away.
    """

    inputs: int = 0
    frames: int = 0
    faces: int = 0
    resumed: int = 0
    failed: list[str] = field(default_factory=list)
    hung_up: bool = False


Watch = Callable[[Outcome, str], None]
"""Called after every input and video frame; the second argument is the failure message, if any."""


def run(
    tasks: Sequence[Task],
    job: Job,
    outputs: Outputs,
    *,
    jobs: int,
    stop: Event,
    watch: Watch = lambda _outcome, _failure: None,
) -> Outcome:
    """Works through all tasks, or until `stop` is set, and finishes every output with what is there by then.

    Raises the ScrfdError of an output that could not be written; the other outputs are finished nevertheless.
    """
    outcome = Outcome()
    try:
        with closing(_results(tasks, job, outputs.journal, jobs, stop)) as results:
            for old, records in results:
                for record in records:
                    outputs.add(record, old)
                    watch(outcome, _count(outcome, record))
                outcome.inputs += 1
                outcome.resumed += old
                watch(outcome, "")
    except BrokenPipeError:
        outcome.hung_up = True
    except BaseException:
        outputs.finish(quiet=True)
        raise
    outputs.finish()
    return outcome


def _count(outcome: Outcome, record: Record) -> str:
    failure: str = record.get("error", "")
    outcome.frames += "frame" in record
    outcome.faces += len(record.get("faces", ()))
    if failure:
        outcome.failed.append(failure)
    return failure


class Outputs:
    """The journal, if there is one, and the other sinks, which get the same records."""

    def __init__(self, journal: Journal | None, sinks: Sequence[Sink]) -> None:
        self.journal = journal
        self._sinks = list(sinks)

    def add(self, record: Record, old: bool = False) -> None:
        """Hands a record to all of them; one that is old is in the journal already."""
        if self.journal is not None and not old:
            self.journal.add(record)
        for sink in self._sinks:
            try:
                sink.add(record)
            except ScrfdError:
                self._sinks.remove(sink)
                sink.discard()
                raise

    def finish(self, quiet: bool = False) -> None:
        """Puts every file in its place. One that fails does not keep the others from it; the first error is raised
        at the end, unless `quiet`."""
        errors: list[ScrfdError] = []
        steps: list[Callable[[], None]] = [self._rest, *(sink.finish for sink in self._sinks)]
        steps += [] if self.journal is None else [self.journal.finish]
        for step in steps:
            try:
                step()
            except BrokenPipeError:
                pass
            except ScrfdError as error:
                errors.append(error)
        if errors and not quiet:
            raise errors[0]

    def _rest(self) -> None:
        """What a resumed journal holds of other inputs belongs into the other files too."""
        for file in self.journal.remaining() if self.journal is not None else []:
            for record in self.journal.take(file):  # type: ignore[union-attr]
                self.add(record, old=True)


def _results(
    tasks: Sequence[Task], job: Job, journal: Journal | None, jobs: int, stop: Event
) -> Generator[tuple[bool, Iterable[Record]], None, None]:
    """For every task whether it was done before, and its records; pictures several at a time, videos one by one."""

    def known(task: Task) -> bool:
        return journal is not None and _is_done(task, journal)

    def picture(entry: tuple[Task, bool]) -> tuple[Task, Record | None]:
        task, old = entry
        return task, None if old else job.picture(task)

    for moving, group in groupby(tasks, key=lambda task: task.source.kind in ("video", "camera")):
        if moving:
            for task in group:
                if stop.is_set():
                    return
                if journal is not None and known(task):
                    yield True, journal.take(task.source.file)
                else:
                    with closing(job.video(task)) as records:
                        yield False, records
        else:
            entries = ((task, known(task)) for task in group)
            with closing(ordered_map(picture, entries, jobs, stop=stop)) as results:
                for task, record in results:
                    if record is not None:
                        yield False, [record]
                    elif journal is not None:
                        yield True, journal.take(task.source.file)


def _is_done(task: Task, journal: Journal) -> bool:
    """Whether an earlier run left the record and the pictures that this one shall leave; else forgets the record."""
    file = task.source.file
    if file not in journal:
        return False
    done = task.picture is None or exists(task.picture)
    if done and task.crops is not None and task.source.kind == "picture":
        done = all(exists(task.crop(i)) for record in journal.peek(file) for i in with_crop(record))
    if not done:
        journal.forget(file)
    return done
