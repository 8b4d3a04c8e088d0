"""What a worker of a cluster does: one candidate of a search, from the store to its end."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from scrfdkit.errors import OptionError, ScrfdError
from scrfdkit.search import plan as plans
from scrfdkit.search.agreement import agree, facts
from scrfdkit.search.database import file_of
from scrfdkit.search.owner import this_process
from scrfdkit.search.plan import Plan
from scrfdkit.search.store import Store
from scrfdkit.search.training import Training
from scrfdkit.search.work import End, Score, work
from scrfdkit.train.stop import stopping
from scrfdkit.train.watch import Watch

_EVERY = 60.0  # seconds between two lines in a worker's log


@dataclass(frozen=True)
class Turn:
    """What a worker did. number: of its candidate, 0 where none was left. error: what would stop every candidate."""

    host: str
    number: int = 0
    end: End | None = None
    error: str = ""


def turn(
    folder: Path, study: str, place: str, training: Training, score: Score, threads: int, where: dict[str, Any]
) -> Turn:
    """One candidate, in a worker. folder, study, place: where the driver sees the search, its name there, and the
    driver's machine."""
    torch.set_num_threads(threads)
    host = socket.gethostname()
    try:
        plan = plans.load(folder)
        if plan.study != study:
            raise OptionError(f"{folder}: is another search here; it must be the same folder on all machines")
        if needs_one_machine(plan) and this_process().place != place:
            raise OptionError(one_machine(plan))
        # Asked to stop at any moment, even before the training begins, the candidate is saved and put back.
        with Watch(Console(), every=_EVERY) as watch, stopping(watch.say):
            store = Store(plan)
            agree(store, facts(plan, training))
            claim = store.claim(training.retries)
            if claim is None:
                return Turn(host)
            return Turn(host, claim.candidate.number, work(plan, training, claim, score, watch, **where))
    except ScrfdError as error:  # as text, since not every error can be sent
        return Turn(host, error=str(error))


def needs_one_machine(plan: Plan) -> bool:
    return file_of(plan) is not None


def one_machine(plan: Plan) -> str:
    return (
        f"{plan.place()}: is a file, which several machines must not share; plan the search with --storage and a"
        " database's URL, in a folder that all machines see under the same path"
    )
