"""A candidate that this process works on, and what it tells the store of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import Trial, TrialState

from scrfdkit.search.candidate import Candidate
from scrfdkit.search.database import in_words, surely
from scrfdkit.search.halving import goes_on, is_rung
from scrfdkit.search.trials import by_candidate, scores_on_the_way

if TYPE_CHECKING:
    from scrfdkit.search.store import Store

T = TypeVar("T")

BEAT = 15.0
"""Seconds between two signs of life of a runner."""


class LostClaim(Exception):
    """Somebody else has taken over the candidate, as this runner seemed gone."""


class Claim:
    """A candidate that this process works on, until `done`, `stop`, `fail` or `put_back` is called.

    Every method raises LostClaim where somebody else has taken it over, and OptionError where the database does not
    answer for about a minute; `beat` and `epoch` do without it. lost: whether one of them has raised LostClaim.
    """

    def __init__(self, store: Store, candidate: Candidate, trial: Trial, retries: int, told: set[int]) -> None:
        self.candidate = candidate
        self.lost = False
        self._store, self._trial, self._retries, self._told = store, trial, retries, told
        self._begun = time.monotonic()
        self._beat = 0

    def beat(self) -> None:
        """A sign of life, to be given every `BEAT` seconds. A database that is away is no reason to stop."""
        self._beat += 1
        with suppress(StorageInternalError):
            self._set(beat=self._beat)

    def epoch(self, number: int, step: int = 0) -> None:
        """So many epochs, and steps, are finished and saved."""
        with suppress(StorageInternalError):
            self._set(steps=step, epochs=number, seconds=self._seconds())

    def look(self, epoch: int, scores: Mapping[str, float], score: float, halving: tuple[int, int] = (0, 0)) -> bool:
        """Takes the scores after an epoch. True: the candidate is among the worse ones, and is to be given up.

        halving: epoch of the first decision, and the factor f of successive halving: after it, and after f, f^2 ...
        times as many epochs, the best 1 / f of those that came so far go on. A factor of 0 lets all go on.
        """
        self._surely(lambda: self._set(epochs=epoch, scores=dict(scores), score=score, seconds=self._seconds()))
        if epoch not in self._told:
            self._surely(lambda: self._trial.report(score, epoch))
            self._told.add(epoch)
        first, factor = halving
        if not factor or not is_rung(epoch, first, factor):
            return False
        runs = by_candidate(self._store.trials())
        there = {number: scores_on_the_way(own).get(epoch) for number, own in runs.items()}
        others = [other for number, other in there.items() if number != self.candidate.number and other is not None]
        return not goes_on(score, others, factor)

    def done(self, scores: Mapping[str, float], score: float) -> None:
        """The candidate is trained and scored."""
        if not math.isfinite(score):
            self.fail(f"its score is {score}, no number that can be compared")
            return
        self._surely(lambda: self._set(scores=dict(scores), score=score, seconds=self._seconds()))
        self._tell(TrialState.COMPLETE, score)

    def stop(self) -> None:
        """The candidate is given up, with the scores of the last look."""
        self._surely(lambda: self._set(seconds=self._seconds()))
        self._tell(TrialState.PRUNED)

    def fail(self, error: str) -> None:
        """This try came to nothing; there may be another."""
        self._end(error=error[:2000] or "it has no name")

    def put_back(self) -> None:
        """This runner was asked to stop; the candidate goes on with the next one."""
        self._end(put_back=True)

    def _end(self, **words: Any) -> None:
        self._surely(lambda: self._set(seconds=self._seconds(), **words))
        self._tell(TrialState.FAIL)
        with self._store.locked():
            self._surely(lambda: self._store.refill(self._retries))

    def _tell(self, state: TrialState, score: float | None = None) -> None:
        def tell() -> None:
            self._store.study.tell(self._trial, score, state)

        with self._store.locked():
            try:
                self._surely(tell)
            except LostClaim:
                # A connection that broke before the answer: told twice, it is still this runner's word.
                now = next(t.state for t in self._store.trials() if t.number == self._trial.number)
                if now != state or state == TrialState.FAIL:
                    raise
                self.lost = False

    def _seconds(self) -> float:
        return round(time.monotonic() - self._begun, 1)

    def _set(self, **words: Any) -> None:
        try:
            for name, value in words.items():
                self._trial.set_user_attr(name, value)
        except UpdateFinishedTrialError:
            self._lose()

    def _surely(self, do: Callable[[], T]) -> T:
        """Tries again while a database is away."""
        try:
            return surely(do)
        except StorageInternalError as error:
            raise in_words(self._store.plan, error) from None
        except UpdateFinishedTrialError:
            self._lose()
        except ValueError as error:
            if "Cannot tell a" not in str(error):
                raise
            self._lose()

    def _lose(self) -> NoReturn:
        self.lost = True
        raise LostClaim from None
