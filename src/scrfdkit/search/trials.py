"""Runs of candidates as Optuna's trials: how a trial is made, and what the trials of a candidate say about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState, create_trial

from scrfdkit.search.candidate import Candidate, Outcome, State
from scrfdkit.search.owner import Owner

SETTLED = (TrialState.COMPLETE, TrialState.PRUNED)

SILENT = 10
"""Runs in a row that ended without a word and before anything new was saved, after which a candidate is given up: its
network takes its runner with it, for example by using up the memory. Not fewer, as machines are also just taken away.
"""


def waiting(candidate: Candidate, runs: Iterable[FrozenTrial] = ()) -> FrozenTrial:
    """A trial that waits, with the scores that earlier runs of the candidate had on their way. Traits are its
    parameters."""
    distribution = optuna.distributions.FloatDistribution(-1e9, 1e9)
    return create_trial(
        state=TrialState.WAITING,
        params=dict(candidate.traits),
        distributions=dict.fromkeys(candidate.traits, distribution),
        user_attrs={"candidate": candidate.number, "spec": candidate.spec.to_json()},
        intermediate_values=scores_on_the_way(runs),
    )


def scores_on_the_way(runs: Iterable[FrozenTrial]) -> dict[int, float]:
    """Of a candidate's runs, by epoch."""
    return {epoch: score for run in runs for epoch, score in run.intermediate_values.items()}


def by_candidate(trials: Iterable[FrozenTrial]) -> dict[int, list[FrozenTrial]]:
    """Runs of every candidate, in order."""
    runs: dict[int, list[FrozenTrial]] = {}
    for trial in trials:
        runs.setdefault(trial.user_attrs["candidate"], []).append(trial)
    return runs


def is_ready(runs: Sequence[FrozenTrial], retries: int) -> bool:
    """Whether a candidate should have a waiting trial, and has none."""
    return not any(_lives(t) or t.state in SETTLED for t in runs) and not is_hopeless(runs, retries)


def is_first(number: int, runs: Iterable[FrozenTrial]) -> bool:
    """Whether the trial of this number is the run of a candidate that counts: where machines have no common lock, two
    of them may have put the candidate back at the same time, and the lower number is right for all."""
    return not any(t.state in SETTLED or (_lives(t) and t.number < number) for t in runs)


def _lives(trial: FrozenTrial) -> bool:
    return trial.state in (TrialState.WAITING, TrialState.RUNNING)


def is_hopeless(runs: Iterable[FrozenTrial], retries: int) -> bool:
    """Whether a candidate is not tried again.

    What counts are tries in a row that came no further than an earlier one had saved: with an error, more than
    `retries`; without a word, `SILENT`. Runs that were asked to stop do not count.
    """
    best = errors = silent = 0
    for words, state in ((t.user_attrs, t.state) for t in sorted(runs, key=lambda t: t.number)):
        reached = int(words.get("steps") or words.get("epochs") or 0)
        if reached > best:
            best, errors, silent = reached, 0, 0
        elif state == TrialState.FAIL and "owner" in words and not words.get("put_back"):
            errors, silent = (errors + 1, silent) if words.get("error") else (errors, silent + 1)
    return errors > retries or silent >= SILENT


def outcome(candidate: Candidate, runs: list[FrozenTrial]) -> Outcome:
    """How a candidate stands, from all of its runs, begun or not."""
    begun = [t for t in runs if "owner" in t.user_attrs]
    last = max(runs, key=lambda t: (_RANK[t.state], t.number), default=None)
    state: State = "waiting" if last is None else _STATES[last.state]
    if state == "failed" and not is_hopeless(runs, _retries(begun)):
        state = "waiting"  # the next runner puts it back
    scored = [t for t in begun if t.user_attrs.get("scores")]
    words: dict[str, Any] = last.user_attrs if last is not None and last.state in SETTLED else {}
    if not words and scored:
        words = scored[-1].user_attrs
    owner = Owner.from_dict(last.user_attrs.get("owner")) if last is not None and state == "running" else None
    if owner is not None and owner.is_gone():
        state, owner = "waiting", None  # the next runner takes it over
    return Outcome(
        candidate,
        state,
        max((int(t.user_attrs.get("epochs", 0)) for t in begun), default=0),
        len(begun),
        dict(words.get("scores", {})),
        words.get("score"),
        sum(float(t.user_attrs.get("seconds", 0.0)) for t in begun),
        _error(begun, state),
        str(owner) if owner else "",
    )


def _retries(begun: Sequence[FrozenTrial]) -> int:
    """What the last runner was told."""
    return int(begun[-1].user_attrs.get("retries", 0)) if begun else 0


def _error(begun: Sequence[FrozenTrial], state: State) -> str:
    """Of the last try that failed."""
    if state in ("done", "stopped"):
        return ""
    errors = [t.user_attrs["error"] for t in begun if t.user_attrs.get("error")]
    if not errors and state == "failed":
        return f"{SILENT} runners in a row ended without a word while they trained it, as if killed"
    return errors[-1] if errors else ""


_STATES: dict[TrialState, State] = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
}
_RANK = {
    TrialState.FAIL: 0,
    TrialState.WAITING: 1,
    TrialState.RUNNING: 2,
    TrialState.PRUNED: 3,
    TrialState.COMPLETE: 4,
}
