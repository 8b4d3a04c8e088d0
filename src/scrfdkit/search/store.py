"""The state of a search: an Optuna study, in which every run of a candidate is a trial.

Planned candidates are waiting trials. A runner claims one, which makes it running, and tells what comes of it. One
that is gone leaves a running trial behind: another one ends that trial as failed. Whoever claims first sees to it that
every candidate that is neither done nor hopeless has a trial, so it does not matter where a runner was killed. Only
public methods of Optuna are used, so that any of its storages will do, and its own tools can read the study.
"""

from __future__ import annotations

import fcntl
import os
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, Trial, TrialState

from scrfdkit import atomic
from scrfdkit.errors import ScrfdError
from scrfdkit.search.candidate import Outcome
from scrfdkit.search.claim import BEAT, Claim
from scrfdkit.search.database import close, connect, file_of, surely, told
from scrfdkit.search.owner import UNKNOWN, Owner, this_process
from scrfdkit.search.plan import STORE, Plan
from scrfdkit.search.trials import by_candidate, is_first, is_ready, outcome, waiting

PATIENCE = 90.0
"""Seconds without a sign of life, as seen from here, after which a runner on another machine counts as gone."""

LOCK = "lock"


def create(plan: Plan) -> None:
    """Makes the study and its waiting trials. Raises OptionError where the database cannot be had."""
    with told(plan):
        storage = _prepared(plan)
        try:
            study = optuna.create_study(study_name=plan.study, storage=storage, direction="maximize")
            for candidate in plan.candidates:
                study.add_trial(waiting(candidate))
        finally:
            close(storage, plan)


def _prepared(plan: Plan) -> Any:
    """The storage with its tables, which somebody else may be making in a new database at the same moment."""
    for pause in (0.2, 1.0):
        try:
            return connect(plan, new=True)
        except Exception as error:  # of SQLAlchemy and its drivers, each of which has its own for this
            if not any(words in str(error) for words in ("already exists", "duplicate key", "Duplicate entry")):
                raise
            time.sleep(pause)
    return connect(plan, new=True)


@dataclass(frozen=True)
class _Seen:
    """A runner's last sign of life. since: seconds that it has not changed, of those in which it was looked at. moved:
    when it last did."""

    beat: Any
    at: float
    since: float = 0.0
    moved: float | None = None


class Store:
    """The study of a plan. Raises ScrfdError where it cannot be opened. May be used by several threads."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        if plan.storage is None and not atomic.is_file(plan.folder / STORE):
            raise ScrfdError(f"{plan.folder / STORE}: is missing; without its store a search cannot go on")
        with told(plan):
            storage, sampler = connect(plan), optuna.samplers.RandomSampler()  # which is never asked
            self._storage = storage
            weakref.finalize(self, storage.engine.dispose)
            try:
                self.study = optuna.load_study(study_name=plan.study, storage=storage, sampler=sampler)
            except KeyError:
                raise ScrfdError(f"{plan.place()}: has no study {plan.study}, as {plan.folder} says") from None
        self._seen: dict[int, _Seen] = {}

    def trials(self) -> list[FrozenTrial]:
        """Every run of every candidate, begun or not. Waits while the database is away."""
        with told(self.plan):
            every = surely(lambda: self.study.get_trials(deepcopy=False))
        return [trial for trial in every if "candidate" in trial.user_attrs]

    def claim(self, retries: int = 2) -> Claim | None:
        """A candidate to work on that nobody else has, or None where none is waiting now. Waits while the database is
        away.

        retries: how often a candidate is tried again that came no further than before.
        """
        with told(self.plan):
            return surely(lambda: self._claim(retries))

    def take_over(self, retries: int = 2) -> None:
        """Puts back the candidates of runners that are gone, as `claim` does before it looks for one."""

        def tidy() -> None:
            with self.locked() as alone:
                self._tidy(alone, retries)

        with told(self.plan):
            surely(tidy)

    def _claim(self, retries: int) -> Claim | None:
        with self.locked() as alone:
            trials = self._tidy(alone, retries)
            for known in _in_turn(trials):
                trial = self._take(known)
                if trial is None:
                    continue  # machines without a common lock: another one was faster
                number = known.user_attrs["candidate"]
                trials = trials if alone else self.trials()
                if is_first(known.number, (t for t in trials if t.user_attrs["candidate"] == number)):
                    # The owner comes last: a trial of this very process that it knows nothing of would stay for ever.
                    trial.set_user_attr("retries", retries)
                    trial.set_user_attr("owner", this_process().to_dict())
                    on_the_way = set(known.intermediate_values)
                    return Claim(self, self.plan.candidate(number), trial, retries, on_the_way)
                self.study.tell(trial, state=TrialState.FAIL)  # a candidate that was put back twice
        return None

    def _take(self, waiting: FrozenTrial) -> Trial | None:
        """Makes a waiting trial running, if nobody else has meanwhile. Optuna's own `ask` takes them by their numbers,
        so that a candidate that was put back would go on last of all."""
        study_id = self._storage.get_study_id_from_name(self.plan.study)
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, waiting.number)
        try:
            taken = self._storage.set_trial_state_values(trial_id, TrialState.RUNNING)
        except UpdateFinishedTrialError:
            return None
        return Trial(self.study, trial_id) if taken else None

    def _tidy(self, alone: bool, retries: int) -> list[FrozenTrial]:
        """Ends the trials of runners that are gone, and puts their candidates back; all trials afterwards."""
        trials = self.trials()
        abandoned = [t for t in trials if t.state == TrialState.RUNNING and self._is_abandoned(t, alone)]
        for trial in abandoned:
            with suppress(ValueError, UpdateFinishedTrialError):  # another machine was faster
                self.study.tell(trial.number, state=TrialState.FAIL)
        if abandoned:
            trials = self.trials()
        return self.trials() if self._refill(trials, retries) else trials

    def _is_abandoned(self, trial: FrozenTrial, alone: bool) -> bool:
        owner = Owner.from_dict(trial.user_attrs.get("owner"))
        if owner is None and alone:
            return True  # killed between its claim and its name, as it would have the lock
        gone = owner.is_gone() if owner else None
        if gone is not None:
            return gone
        # Of another machine only its beats are seen, and by this machine's own clock. A time in which nobody looked,
        # as this process was suspended or the database away, says little about the other one.
        beat, now = trial.user_attrs.get("beat"), time.monotonic()
        last = self._seen.get(trial.number)
        if last is None or last.beat != beat:
            self._seen[trial.number] = _Seen(beat, now, moved=None if last is None else now)
            return False
        seen = _Seen(beat, now, last.since + min(now - last.at, BEAT), last.moved)
        self._seen[trial.number] = seen
        return seen.since > PATIENCE

    def refill(self, retries: int) -> None:
        """Puts back every candidate that nobody has and that is neither done nor hopeless. To be called under the
        lock; without one in common, two machines may put the same one back, which the next claim sees."""
        self._refill(self.trials(), retries)

    def _refill(self, trials: list[FrozenTrial], retries: int) -> bool:
        runs = by_candidate(trials)
        ready = [c for c in self.plan.candidates if is_ready(runs.get(c.number, []), retries)]
        for candidate in ready:
            self.study.add_trial(waiting(candidate, runs.get(candidate.number, [])))
        return bool(ready)

    def others(self) -> list[Owner]:
        """Runners at work whose end would not be seen from here at once, and whose signs of life this store has not
        lately seen either. Each either is seen to live or is taken over, if `claim` is called again and again."""
        found, now = [], time.monotonic()
        for trial in self.trials():
            owner = Owner.from_dict(trial.user_attrs.get("owner"))
            if trial.state == TrialState.RUNNING and (owner is None or owner.is_gone() is None):
                seen = self._seen.get(trial.number)
                if seen is None or seen.moved is None or now - seen.moved > PATIENCE:
                    found.append(owner or UNKNOWN)
        return found

    def begun(self) -> bool:
        """Whether a candidate has been trained for an epoch, or is in training, as far as can be seen."""
        runs = self.trials()
        lives = any(t.state == TrialState.RUNNING and not _is_gone(t) for t in runs)
        return lives or any(t.user_attrs.get("epochs") or t.user_attrs.get("steps") for t in runs)

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """One runner at a time: SQLite lets two of them claim the same trial. Whether it keeps out all others that use
        this database, and not only those that share the folder."""
        database = file_of(self.plan)
        path = self.plan.folder / LOCK if database is None or self.plan.storage is None else _beside(database)
        alone = database is not None
        try:
            # Whatever lies there under this name, a link to somewhere else or a file of others, is left as it is.
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            file = os.fdopen(os.open(path, flags, 0o666), "rb+", buffering=0)
        except OSError as error:
            raise atomic.write_error(path, error) from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
            except OSError:  # a file system without locks
                alone = False
            yield alone

    def outcomes(self) -> list[Outcome]:
        """How every candidate stands, in their order."""
        runs = by_candidate(self.trials())
        return [outcome(candidate, runs.get(candidate.number, [])) for candidate in self.plan.candidates]


def _beside(database: Any) -> Any:
    return database.with_name(f".{database.name}.scrfd-lock")


def _is_gone(trial: FrozenTrial) -> bool:
    owner = Owner.from_dict(trial.user_attrs.get("owner"))
    return owner is not None and owner.is_gone() is True


def _in_turn(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """Waiting trials: first those of candidates that were interrupted, last those whose last try failed, or ended
    without a word before anything was saved: a network that takes its runner with it must not keep all from the rest.
    """
    turn: dict[int, int] = {}
    for trial in sorted(trials, key=lambda t: t.number):
        if "owner" in trial.user_attrs:
            words = trial.user_attrs
            interrupted = words.get("put_back") or (words.get("steps") and not words.get("error"))
            turn[words["candidate"]] = 0 if interrupted else 2
    some = [t for t in trials if t.state == TrialState.WAITING]
    return sorted(some, key=lambda t: (turn.get(t.user_attrs["candidate"], 1), t.user_attrs["candidate"], t.number))
