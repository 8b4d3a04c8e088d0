"""Real processes for tests of a search's state, started in no time as they are forked from one that has imported
everything, and killed at the very write that a test names."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from scrfdkit.model.net import SCRFD
from scrfdkit.search import plan as plans
from scrfdkit.search import training as trainings
from scrfdkit.search.candidate import Candidate
from scrfdkit.search.draw import sample
from scrfdkit.search.plan import Plan
from scrfdkit.search.space import BackboneSpace
from scrfdkit.search.store import Store, create
from scrfdkit.search.training import Training
from scrfdkit.train import recipes
from scrfdkit.train.settings import Settings
from scrfdkit.zoo import ZOO

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(
    [
        *("scrfdkit.search.runner", "scrfdkit.cli.search_run", "scrfdkit.cli.validation", "scrfdkit.evaluate.labelled"),
        *("scrfdkit.evaluate.leaderboard", "scrfdkit.evaluate.run", "scrfdkit.runtime.pytorch", "scrfdkit.detector"),
        *("torch._dynamo", "torch.utils.tensorboard", "PIL.Image", "scrfdkit.sheet", "scrfdkit.search.draw"),
        *("optuna.storages._rdb.models", "alembic.command", "alembic.config", "alembic.migration", "alembic.script"),
        *("sqlalchemy.orm", "sqlalchemy.dialects.sqlite", "sqlalchemy.dialects.postgresql", "psycopg", "pytest"),
    ]
)


def tiny_space() -> BackboneSpace:
    """Networks of 50 MFLOPs, which learn 9 steps in a second."""
    spec = ZOO["base_500m"].spec
    head = replace(spec.head, channels=8, depth=1, groups=2)
    template = replace(spec, neck=replace(spec.neck, channels=8), head=head)
    return BackboneSpace(5e7, template, ("separable",), base=(8, 16), depth=(1, 2), ratio=(1.0, 2.0), tolerance=0.1)


def tiny_plan(folder: Path, number: int = 3, storage: str | None = None) -> Plan:
    """A search that is planned, with its store."""
    space = tiny_space()
    drawn = sample(space, number, 0)
    made = plans.make(space, drawn.candidates, 0, drawn.drawn, drawn.accepted, storage)
    return plans.save(made, folder, create)


def plan_of_many(folder: Path, number: int, storage: str | None = None) -> Plan:
    """One whose candidates are all the same, and nothing to look at."""
    space = tiny_space()
    candidates = tuple(Candidate(n, space.template) for n in range(1, number + 1))
    return plans.save(plans.make(space, candidates, 0, number, number, storage), folder, create)


def tiny_training(plan: Plan, toy_set: Path, changes: Mapping[str, Any] | None = None, **more: Any) -> Training:
    """Three epochs of three steps on six small pictures, scored on two; settled."""
    changed: dict[str, Any] = {"steps": 0, "epochs": 3, "size": 96, "batch": 2, **(changes or {})}
    recipe = recipes.find("fast").change(changed)
    wanted = Training(str(toy_set), recipe, **{"holdout": 0.3, **more})
    with Store(plan).locked():
        return trainings.settle(plan, wanted)


@dataclass
class Said:
    """A watcher that keeps what it hears, in order, also in a file that outlasts the process."""

    path: Path
    name: str = ""

    def __enter__(self) -> Said:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def _keep(self, *words: object) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps([os.getpid(), self.name, *words]) + "\n")

    def begin(self, total_steps: int, start_step: int, steps_per_epoch: int) -> None:
        self._keep("begin", start_step)

    def update(self, step: int, numbers: Mapping[str, float]) -> None:
        pass

    def say(self, text: str) -> None:
        if text.startswith("candidate "):
            self.name = f"{int(text.split()[1]):04d}"
        self._keep("say", text)

    def saving(self, step: int) -> None:
        pass

    def saved(self, step: int, epoch: int) -> None:
        self._keep("saved", step)


def heard(path: Path) -> list[list[Any]]:
    """Lines of `Said`: process, candidate, word, value."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def die_at(write: int) -> None:
    """Kills this process, like kill -9, right before its so-manieth write: a commit of the database, or a file that
    is renamed, removed or made."""
    import sqlalchemy

    left = write

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hear(event: str, arguments: Any) -> None:
        if event in ("os.rename", "os.remove", "os.mkdir"):
            count()

    sys.addaudithook(hear)
    sqlalchemy.event.listen(sqlalchemy.engine.Engine, "commit", lambda connection: count())


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is killed loses nothing that the system has, so tests need not wait until that is on the disk."""
    monkeypatch.setattr(sqlite3, "connect", _connect)


def _connect(*arguments: Any, **words: Any) -> sqlite3.Connection:
    connection = sqlite3.Connection(*arguments, **words)
    connection.execute("PRAGMA synchronous = OFF")
    return connection


def patch(words: Mapping[str, float]) -> None:
    """Other times than usual, by name, such as "store.PATIENCE"; and "place" for another machine."""
    import importlib

    sqlite3.connect = _connect
    for name, value in words.items():
        if name == "place":
            from scrfdkit.search import owner

            owner._place = partial(str, f"machine {value}")
        else:
            module, _, field = name.rpartition(".")
            setattr(importlib.import_module(f"scrfdkit.search.{module}"), field, value)


def train_here(
    folder: Path, said: Path, death: int = 0, words: Mapping[str, float] | None = None, in_score: int = 0
) -> None:
    """What `scrfd search run` does, in a process; its exit code, where it comes to its end. in_score: it is killed
    while it scores for the so-manieth time."""
    import torch

    from scrfdkit.cli.search_run import _score
    from scrfdkit.errors import ScrfdError
    from scrfdkit.search.runner import run

    torch.set_num_threads(1)
    patch(words or {})
    out = Said(said)
    left = in_score

    def score(settings: Settings) -> Any:
        of = _score(settings)

        def look(net: SCRFD) -> Mapping[str, float]:
            nonlocal left
            left -= 1
            found: Mapping[str, float] = of(net)
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return found

        return look

    try:
        plan = plans.load(folder)
        training = trainings.load(plan)
        assert training is not None
        if death:
            die_at(death)
        ends = run(plan, training, score, lambda: Said(said), out.say, device="cpu", workers=1)
    except ScrfdError as error:
        out.say(f"error: {error}")
        sys.exit(2)
    sys.exit(130 if ends["asked"] else 0)


def claim_all(folder: Path, said: Path, death: int = 0, words: Mapping[str, float] | None = None) -> None:
    """A runner that trains nothing: every candidate that it gets has an epoch, a look and an end at once."""
    patch(words or {})
    plan = plans.load(folder)
    store = Store(plan)
    if death:
        die_at(death)
    while claim := store.claim(retries=0):
        claim.beat()
        claim.epoch(1, 3)
        claim.look(1, {"ap": 50.0}, 50.0)
        with said.open("a") as file:
            file.write(f"{claim.candidate.number}\n")
        claim.done({"ap": 50.0}, float(claim.candidate.number))


def claim_and_end(folder: Path, said: Path, words: Mapping[str, float] | None = None) -> None:
    """Nothing but claims, as fast as they come."""
    patch(words or {})
    store = Store(plans.load(folder))
    while claim := store.claim(retries=0):
        with said.open("a") as file:
            file.write(f"{claim.candidate.number}\n")
        claim.done({}, float(claim.candidate.number))


def start(target: Callable[..., None], *arguments: Any, **words: Any) -> BaseProcess:
    process = FORK.Process(target=target, args=arguments, kwargs=words, daemon=True)
    process.start()
    return process


def end(process: BaseProcess, seconds: float = 120) -> int:
    """Its exit code; the test fails where it does not come to an end."""
    process.join(seconds)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
        pytest.fail("a process did not come to its end")
    process.close()
    return code


@contextmanager
def together(processes: Sequence[BaseProcess]) -> Iterator[Sequence[BaseProcess]]:
    """None is left behind by a test that fails."""
    try:
        yield processes
    finally:
        for process in processes:
            try:
                process.kill()
                process.join()
            except ValueError:  # closed
                continue
