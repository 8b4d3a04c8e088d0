"""A runner: claims one candidate after another until none is left. Any number of them may share a search."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from scrfdkit.search.agreement import agree, facts
from scrfdkit.search.plan import Plan
from scrfdkit.search.store import Store
from scrfdkit.search.training import Training
from scrfdkit.search.work import End, Score, work
from scrfdkit.train.outcome import Watcher
from scrfdkit.train.stop import stopping

Watch = Callable[[], AbstractContextManager[Watcher]]
"""Who is shown the training of a candidate: a new one for each."""

_LOOK_AGAIN = 5.0  # seconds


def run(
    plan: Plan, training: Training, score: Score, watch: Watch, say: Callable[[str], None], **where: Any
) -> Counter[End]:
    """Works until nothing is left to claim, or this process is asked to stop, by Ctrl-C or SIGTERM; how the candidates
    ended, with "asked" where it was.

    Candidates of runners on other machines that may have ended are waited for, for as long as it takes to know.
    where: as of `training.settings`. Raises ScrfdError for what would stop every candidate.
    """
    store, ours = Store(plan), facts(plan, training)
    ends: Counter[End] = Counter()
    waits = False
    with stopping(say) as asked:
        while not asked:
            agree(store, ours)
            claim = store.claim(training.retries)
            if claim is not None:
                waits = False
                with watch() as watcher:
                    traits = _words(claim.candidate.traits)
                    watcher.say(f"candidate {claim.candidate.number} of {len(plan.candidates)}: {traits}")
                    end = work(plan, training, claim, score, watcher, **where)
                ends[end] += 1
            elif others := store.others():
                if not waits:
                    say(f"waits to see whether {', '.join(map(str, others))} still work on theirs")
                waits = True
                _pause(asked)
            else:
                break
        if asked:
            ends["asked"] = max(ends["asked"], 1)  # as it came to the end of a candidate before it could stop
    return ends


def _pause(asked: Sequence[int]) -> None:
    until = time.monotonic() + _LOOK_AGAIN
    while not asked and time.monotonic() < until:
        time.sleep(0.1)


def _words(traits: Any) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in traits.items())


def several(folder: Path, devices: Sequence[str], threads: int, options: Sequence[str] = ()) -> list[int]:
    """A runner a device, each a process of its own with so many threads; their exit codes. They stand in groups of
    their own, so that Ctrl-C and SIGTERM, which are passed on, reach each of them once. This waits for the last."""
    command = [sys.executable, "-m", "scrfdkit", "search", "run", str(folder), "--threads", str(threads), *options]
    running: list[subprocess.Popen[bytes]] = []
    told: list[int] = []

    def pass_on(number: int, frame: Any) -> None:
        told.append(number)
        for process in running:
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for device in devices:
            if told:
                break
            running += [subprocess.Popen([*command, "--device", device], start_new_session=True)]
        codes = [process.wait() for process in running]
        return codes if len(codes) == len(devices) else [*codes, 130]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
