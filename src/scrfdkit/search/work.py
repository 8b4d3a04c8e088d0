"""One candidate from its claim to its scores: trained as `scrfd train` would, an epoch at a time told to the store."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from scrfdkit import atomic, network
from scrfdkit.errors import ModelError, ScrfdError, WeightError
from scrfdkit.model.net import SCRFD
from scrfdkit.network import Network
from scrfdkit.search.claim import BEAT, Claim, LostClaim
from scrfdkit.search.plan import Plan
from scrfdkit.search.training import NETWORK, Training, settings
from scrfdkit.train import state
from scrfdkit.train.outcome import TrainingError, Watcher
from scrfdkit.train.run import train
from scrfdkit.train.settings import FILE, Settings

Score = Callable[[Settings], Callable[[SCRFD], Mapping[str, float]] | None]
"""From settings to what scores a network, as `train.run.Validate`; made outside, so that labels are read by whom they
concern."""

End = Literal["done", "stopped", "failed", "lost", "asked"]
"""asked: the runner was asked to stop."""


class _Worse(Exception):
    """Successive halving gives the candidate up."""


@dataclass
class _Told:
    """Between training and store: what is saved is told, and what the store says may end the training."""

    claim: Claim
    watch: Watcher
    halving: tuple[int, int]
    validate: Callable[[SCRFD], Mapping[str, float]]
    total: int = 0
    per_epoch: int = 1
    step: int = 0
    epoch: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    last: float = 0.0

    def begin(self, total_steps: int, start_step: int, steps_per_epoch: int) -> None:
        self.total, self.per_epoch = total_steps, max(1, steps_per_epoch)
        self.step, self.epoch = start_step, start_step // self.per_epoch
        self.watch.begin(total_steps, start_step, steps_per_epoch)

    def update(self, step: int, numbers: Mapping[str, float]) -> None:
        if self.claim.lost:
            raise LostClaim
        self.watch.update(step, numbers)

    def say(self, text: str) -> None:
        self.watch.say(f"{self.claim.candidate.name}: {text}")

    def saving(self, step: int) -> None:
        """The folder is this runner's only as long as the candidate is. One that was suspended, and taken over in that
        time, must not write into it any more."""
        self.step, self.epoch = step, step // self.per_epoch  # a disk that is full does not change what is scored next
        self.claim.beat()
        self.watch.saving(step)

    def saved(self, step: int, epoch: int) -> None:
        """A checkpoint is where a later runner would go on."""
        self.claim.epoch(epoch, step)
        self.watch.saved(step, epoch)

    def score(self, net: SCRFD) -> Mapping[str, float]:
        """What `train` calls after it has saved. The last scores are the candidate's."""
        found = self.validate(net)
        self.scores = {name: value for name, value in found.items() if name != "score"}
        self.last = found["score"]
        over = self.step >= self.total  # who came to the end is done, whatever the others have
        if self.claim.look(self.epoch, self.scores, self.last, (0, 0) if over else self.halving):
            raise _Worse
        return found


def work(plan: Plan, training: Training, claim: Claim, score: Score, watch: Watcher, **where: Any) -> End:
    """Trains and scores the claimed candidate, and tells the store how it ended. where: as of `training.settings`.

    Goes on after the newest checkpoint in its folder. A training that comes to nothing, a checkpoint of another
    network, or one that does not fit into the memory, is the candidate's failure. Everything else that is wrong, like
    a missing picture or a full disk, is so for all of them: it is raised, as a ScrfdError, after the candidate was put
    back.
    """
    asked = settings(plan, training, claim.candidate, **where)
    try:
        end = _train(asked, training, claim, score, watch)
    except LostClaim:
        end = "lost"
    if end == "lost":
        watch.say(f"{claim.candidate.name}: another runner has taken it over")
    elif end in ("done", "stopped"):
        shutil.rmtree(Path(asked.output) / state.FOLDER, ignore_errors=True)  # checkpoints are only to go on with
    return end


def _train(asked: Settings, training: Training, claim: Claim, score: Score, watch: Watcher) -> End:
    try:
        with _alive(claim):
            begun = _begin(claim, Path(asked.output))
            validate = score(asked)
            assert validate is not None, "settings name what to score on"
            told = _Told(claim, watch, (training.look_every, training.halving), validate)
            finished = train(asked, told, told.score, resume=begun).finished
    except LostClaim:
        raise
    except _Worse:
        claim.stop()
        return "stopped"
    except KeyboardInterrupt:
        finished = False
    except Exception as error:
        # A network of unusual shape may bring about anything; the others go on.
        own = not isinstance(error, ScrfdError) or isinstance(error, TrainingError | WeightError | ModelError)
        if own or isinstance(error.__context__, torch.OutOfMemoryError):
            text = str(error) if isinstance(error, ScrfdError) else f"{type(error).__name__}: {error}"
            watch.say(f"{claim.candidate.name}: failed: {text}")
            claim.fail(text)
            return "failed"
        with suppress(ScrfdError):
            claim.put_back()
        raise
    if not finished:
        claim.put_back()
        return "asked"
    claim.done(told.scores, told.last)
    return "done"


def _begin(claim: Claim, folder: Path) -> bool:
    """Makes the folder of the run, with the network's description. Whether there is a run to go on with."""
    atomic.make_folder(folder)
    network.save(folder / NETWORK, Network(f"candidate-{claim.candidate.name}", claim.candidate.spec))
    return (folder / FILE).exists()


@contextmanager
def _alive(claim: Claim) -> Iterator[None]:
    """Signs of life while the candidate is worked on, until it is lost."""
    over = threading.Event()

    def beat() -> None:
        while not claim.lost and not over.wait(BEAT):
            with suppress(Exception):  # another sign is due soon; a runner without any would be taken for gone
                claim.beat()

    thread = threading.Thread(target=beat, name="beat", daemon=True)
    claim.beat()
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(timeout=2 * BEAT)
