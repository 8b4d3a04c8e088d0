"""One candidate from its claim to its scores: what is its own failure, what stops everybody, and how it is stopped."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from search_processes import (
    Said,
    end,
    heard,
    patch,
    quick_disk,
    start,
    tiny_plan,
    tiny_training,
    together,
    train_here,
)

from scrfdkit.cli.search_run import _score
from scrfdkit.errors import DeviceError, ImageError, OptionError, ScrfdError
from scrfdkit.model.checkpoint import read_header
from scrfdkit.model.net import SCRFD
from scrfdkit.search import plan as plans
from scrfdkit.search import runner
from scrfdkit.search import training as trainings
from scrfdkit.search.plan import Plan
from scrfdkit.search.store import Store
from scrfdkit.search.training import Training
from scrfdkit.search.work import End
from scrfdkit.train import log
from scrfdkit.train.settings import Settings

__all__ = ["quick_disk"]

pytestmark = pytest.mark.usefixtures("quick_disk")

Look = Callable[[SCRFD], Mapping[str, float]]


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run(plan: Plan, training: Training, said: Path, score: Any = _score, **where: Any) -> Counter[End]:
    words = {"device": "cpu", "workers": 1, **where}
    return runner.run(plan, training, score, lambda: Said(said), lambda text: None, **words)


def states(plan: Plan) -> list[tuple[str, int]]:
    return [(outcome.state, outcome.tries) for outcome in Store(plan).outcomes()]


def failing(when: Callable[[Settings, int], bool], error: Callable[[], Exception]) -> Any:
    """Scores, unless `when` says otherwise of a candidate's settings and how often it was scored in this run."""

    def score(settings: Settings) -> Look:
        of, count = _score(settings), 0

        def look(net: SCRFD) -> Mapping[str, float]:
            nonlocal count
            count += 1
            if when(settings, count):
                raise error()
            found: Mapping[str, float] = of(net)
            return found

        return look

    return score


def is_first(settings: Settings) -> bool:
    return settings.output.endswith("0001")


def test_a_candidate_becomes_a_run_of_scrfd_train(tmp_path: Path, toy_set: Path) -> None:
    plan = tiny_plan(tmp_path / "s", 1)
    training = tiny_training(plan, toy_set, look_every=1, licence="CC0")
    assert run(plan, training, tmp_path / "said") == {"done": 1}
    folder = plan.run_folder(plan.candidate(1))
    info = read_header(folder / "last.safetensors")
    assert (info.spec, info.name, info.licence) == (plan.candidate(1).spec, "candidate-0001", "CC0")
    lines = log.read(folder / "log.jsonl")
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [3, 6, 9]
    assert not (folder / "checkpoints").exists(), "nothing will go on from them"
    (outcome,) = Store(plan).outcomes()
    assert (outcome.state, outcome.epochs, outcome.tries) == ("done", 3, 1)
    assert set(outcome.scores) == {"easy", "medium", "hard"}
    assert outcome.score == outcome.scores["hard"]
    (trial,) = Store(plan).trials()
    assert set(trial.intermediate_values) == {1, 2, 3}
    assert trial.value == outcome.score
    assert run(plan, training, tmp_path / "said") == {}


def test_a_training_that_comes_to_nothing_fails_alone(tmp_path: Path, toy_set: Path) -> None:
    plan = tiny_plan(tmp_path / "s", 2)
    wild = {"optimiser.lr": 1e20, "optimiser.clip": 0.0, "schedule.warmup": 0}
    plan = replace(plan, candidates=(replace(plan.candidate(1), recipe=wild), plan.candidate(2)))
    training = tiny_training(plan, toy_set, retries=1)
    assert run(plan, training, tmp_path / "said") == {"failed": 2, "done": 1}
    assert states(plan) == [("failed", 2), ("done", 1)]
    assert "the loss is not finite" in Store(plan).outcomes()[0].error
    order = [name for _, name, word, _ in heard(tmp_path / "said") if word == "begin"]
    assert order == ["0001", "0002", "0001"], "the others come first"
    assert run(plan, training, tmp_path / "said") == {}, "and it stays so"


def test_failing_at_the_same_later_epoch_is_given_up(tmp_path: Path, toy_set: Path) -> None:
    plan = tiny_plan(tmp_path / "s", 2)
    training = tiny_training(plan, toy_set, retries=2)
    broken = failing(lambda settings, count: is_first(settings), lambda: RuntimeError("cannot be scored"))
    assert run(plan, training, tmp_path / "said", broken) == {"failed": 4, "done": 1}
    assert states(plan) == [("failed", 4), ("done", 1)]
    first = Store(plan).outcomes()[0]
    assert (first.error, first.epochs) == ("RuntimeError: cannot be scored", 3)
    begun = [value for _, name, word, value in heard(tmp_path / "said") if (name, word) == ("0001", "begin")]
    assert begun == [0, 9, 9, 9], "no epoch is trained twice"


def test_a_network_too_large_for_the_memory_fails_alone(tmp_path: Path, toy_set: Path) -> None:
    plan = tiny_plan(tmp_path / "s", 2)
    training = tiny_training(plan, toy_set, retries=0)
    broken = failing(lambda settings, count: is_first(settings), lambda: torch.OutOfMemoryError("much"))
    assert run(plan, training, tmp_path / "said", broken) == {"failed": 2, "done": 1}
    assert states(plan) == [("failed", 2), ("done", 1)]
    assert "too little memory" in Store(plan).outcomes()[0].error


def test_a_failure_that_passes(tmp_path: Path, toy_set: Path) -> None:
    plan = tiny_plan(tmp_path / "s", 1)
    training = tiny_training(plan, toy_set, look_every=1, retries=1)
    times = iter((1, 2))
    broken = failing(lambda settings, count: count == 1 and next(times, 9) < 9, lambda: OSError("a disk slept"))
    assert run(plan, training, tmp_path / "said", broken) == {"failed": 2, "done": 1}
    (outcome,) = Store(plan).outcomes()
    assert (outcome.state, outcome.tries, outcome.error) == ("done", 3, "")
    begun = [value for _, _, word, value in heard(tmp_path / "said") if word == "begin"]
    assert begun == [0, 3, 3]


def test_what_would_stop_all_of_them_stops_the_runner(tmp_path: Path, toy_set: Path) -> None:
    plan = tiny_plan(tmp_path / "s", 2)
    data = Path(shutil.copytree(toy_set, tmp_path / "toy"))
    training = tiny_training(plan, data)
    picture = data / "images" / "solvay_1927_3.jpg"
    picture.rename(tmp_path / "kept.jpg")
    for _ in range(4):  # more often than a candidate is tried
        with pytest.raises(ImageError, match=r"solvay_1927_3\.jpg"):
            run(plan, training, tmp_path / "said")
        assert [state for state, _ in states(plan)] == ["waiting", "waiting"]
    if not torch.cuda.is_available():
        with pytest.raises((OptionError, DeviceError), match="cuda"):
            run(plan, training, tmp_path / "said", device="cuda")
    held_out = (plan.folder / "data" / "heldout.txt").rename(tmp_path / "heldout.txt")
    with pytest.raises(ScrfdError, match=r"heldout\.txt"):
        run(plan, training, tmp_path / "said")
    held_out.rename(plan.folder / "data" / "heldout.txt")
    (tmp_path / "kept.jpg").rename(picture)
    assert run(plan, training, tmp_path / "said") == {"done": 2}


def test_a_moved_search_goes_on(tmp_path: Path, toy_set: Path) -> None:
    plan = tiny_plan(tmp_path / "s", 1)
    training = tiny_training(plan, toy_set, look_every=1)
    said = tmp_path / "said"
    broken = failing(lambda settings, count: count == 2, lambda: ScrfdError("stops everybody"))
    with pytest.raises(ScrfdError, match="stops everybody"):
        run(plan, training, said, broken)
    plan.folder.rename(tmp_path / "moved")
    plan = plans.load(tmp_path / "moved")
    settled = trainings.load(plan)
    assert settled == training
    assert run(plan, settled, said) == {"done": 1}
    assert [value for _, _, word, value in heard(said) if word == "begin"] == [0, 6]
    assert not (tmp_path / "s").exists()
    words = json.loads((plan.run_folder(plan.candidate(1)) / "run.json").read_text())
    assert str(tmp_path / "s") not in json.dumps(words)


def test_the_worse_one_is_stopped_early_and_the_last_look_is_no_decision(tmp_path: Path, toy_set: Path) -> None:
    plan = tiny_plan(tmp_path / "s", 4)
    training = tiny_training(plan, toy_set, {"epochs": 4}, look_every=1, halving=2)
    planted = {1: (50, 55, 60, 65), 2: (40, 90, 90, 90), 3: (60, 60, 60, 60), 4: (70, 60, 80, 10)}

    def score(settings: Settings) -> Look:
        values = iter(planted[int(settings.output[-4:])])
        return lambda net: {"ap": 1.0, "score": float(next(values))}

    assert run(plan, training, tmp_path / "said", score) == {"done": 3, "stopped": 1}
    found = {o.candidate.number: (o.state, o.epochs, o.score) for o in Store(plan).outcomes()}
    assert found == {
        1: ("done", 4, 65.0),
        2: ("stopped", 1, 40.0),
        3: ("done", 4, 60.0),
        4: ("done", 4, 10.0),  # the worst in the end, but it is trained
    }
    assert not (plan.run_folder(plan.candidate(2)) / "checkpoints").exists()


def test_a_look_that_a_kill_took_away_is_made_up_for(tmp_path: Path, toy_set: Path) -> None:
    """Successive halving compares scores after the same epochs, so none may be left out."""
    plan = tiny_plan(tmp_path / "s", 1)
    tiny_training(plan, toy_set, look_every=1)
    said = tmp_path / "said"
    for look in (1, 1, 2):  # killed in its first look, again in the same one, and in the next one but one
        assert end(start(train_here, plan.folder, said, in_score=look)) == -signal.SIGKILL
    assert end(start(train_here, plan.folder, said)) == 0
    (last,) = [t for t in Store(plan).trials() if t.state.name == "COMPLETE"]
    assert set(last.intermediate_values) == {1, 2, 3}
    assert [value for _, _, word, value in heard(said) if word == "begin"] == [0, 3, 3, 6]
    lines = log.read(plan.run_folder(plan.candidate(1)) / "log.jsonl")
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [3, 6, 9]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop(number: int, tmp_path: Path, toy_set: Path) -> None:
    plan = tiny_plan(tmp_path / "s", 2)
    tiny_training(plan, toy_set, {"epochs": 500})
    said = tmp_path / "said"
    with together([start(train_here, plan.folder, said)]) as (process,):
        wait_for(lambda: any(word == "saved" for _, _, word, _ in heard(said)))
        assert process.pid is not None
        os.kill(process.pid, number)
        assert end(process) == 130
    assert states(plan) == [("waiting", 1), ("waiting", 0)]
    saved = [value for _, _, word, value in heard(said) if word == "saved"][-1]
    newest = sorted((plan.run_folder(plan.candidate(1)) / "checkpoints").glob("*.safetensors"))[-1]
    assert newest.name == f"step-{saved:08d}.safetensors"
    assert Store(plan).outcomes()[0].epochs == saved // 3


def test_a_checkpoint_that_is_damaged(tmp_path: Path, toy_set: Path) -> None:
    """As after a power cut: it goes on from the one before."""
    plan = tiny_plan(tmp_path / "s", 1)
    training = tiny_training(plan, toy_set, look_every=2)
    said = tmp_path / "said"
    with pytest.raises(ScrfdError, match="stops everybody"):
        run(plan, training, said, failing(lambda settings, count: True, lambda: ScrfdError("stops everybody")))
    newest = plan.run_folder(plan.candidate(1)) / "checkpoints" / "step-00000006.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1000])
    assert run(plan, training, said) == {"done": 1}
    assert [value for _, _, word, value in heard(said) if word == "begin"] == [0, 3]


def test_machines_with_copies_of_a_folder_train_alike(tmp_path: Path, toy_set: Path) -> None:
    plan = tiny_plan(tmp_path / "s", 2, f"sqlite:///{tmp_path}/shared.db")
    copy = plans.load(Path(shutil.copytree(plan.folder, tmp_path / "copy")))
    training = tiny_training(plan, toy_set)
    other = tiny_training(copy, toy_set, {"epochs": 2})
    assert run(plan, training, tmp_path / "said") == {"done": 2}
    with pytest.raises(OptionError, match="other runners of this search have another recipe;"):
        run(copy, other, tmp_path / "said")


def test_asked_to_stop_while_it_scores_it_begins_with_no_other(tmp_path: Path, toy_set: Path) -> None:
    """The candidate at hand is done, as nothing is left to do for it."""
    plan = tiny_plan(tmp_path / "s", 2)
    training = tiny_training(plan, toy_set)

    def score(settings: Settings) -> Look:
        of = _score(settings)

        def look(net: SCRFD) -> Mapping[str, float]:
            os.kill(os.getpid(), signal.SIGTERM)
            found: Mapping[str, float] = of(net)
            return found

        return look

    assert run(plan, training, tmp_path / "said", score) == {"done": 1, "asked": 1}
    assert states(plan) == [("done", 1), ("waiting", 0)]


def test_asked_to_stop_before_the_training_begins(tmp_path: Path, toy_set: Path) -> None:
    """As while labels are read: it must not go on to the candidate's end."""
    plan = tiny_plan(tmp_path / "s", 2)
    training = tiny_training(plan, toy_set, {"epochs": 500})

    def score(settings: Settings) -> Look:
        os.kill(os.getpid(), signal.SIGINT)
        return lambda net: {"score": 1.0}

    assert run(plan, training, tmp_path / "said", score) == {"asked": 1}
    assert [state for state, _ in states(plan)] == ["waiting", "waiting"]


def test_asked_to_stop_while_it_waits_for_others(tmp_path: Path, toy_set: Path) -> None:
    plan = tiny_plan(tmp_path / "s", 1)
    tiny_training(plan, toy_set)
    assert Store(plan).claim() is not None
    said = tmp_path / "said"
    with together([start(train_here, plan.folder, said, words={"place": 2})]) as (process,):
        wait_for(lambda: any("waits to see whether" in str(value) for *_, value in heard(said)))
        assert process.pid is not None
        os.kill(process.pid, signal.SIGTERM)
        assert end(process) == 130


def wait_for(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_full_disk_is_told_and_loses_nothing(tmp_path: Path, toy_set: Path) -> None:
    plan = tiny_plan(tmp_path / "s", 1)
    tiny_training(plan, toy_set)
    said = tmp_path / "said"
    assert end(start(train_on_a_full_disk, plan.folder, said)) == 2
    assert any("cannot be written: File too large" in str(value) for *_, value in heard(said))
    assert states(plan) == [("waiting", 1)]
    assert end(start(train_here, plan.folder, said)) == 0
    assert states(plan) == [("done", 2)]


def train_on_a_full_disk(folder: Path, said: Path) -> None:
    """Checkpoints do not fit, the store does."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))
    patch({})
    train_here(folder, said)


def test_a_store_that_cannot_grow_is_told(tmp_path: Path, toy_set: Path) -> None:
    """What a candidate has come to is kept until it can be told again; until then it is not begun again."""
    plan = tiny_plan(tmp_path / "s", 1)
    tiny_training(plan, toy_set)
    said = tmp_path / "said"
    assert end(start(train_without_a_store, plan.folder, said)) == 2
    assert any("storage: " in str(value) for *_, value in heard(said))
    assert end(start(train_here, plan.folder, said)) == 0
    assert states(plan) == [("done", 2)]
    assert [value for _, _, word, value in heard(said) if word == "begin"] == [0, 9]


def train_without_a_store(folder: Path, said: Path) -> None:
    """After its first epoch, somebody has the database and does not let it go."""
    import sqlite3

    from scrfdkit.search import database

    database.PAUSES = (0.05,)
    database._SQLITE_WAIT = 0.05  # type: ignore[assignment]
    saved = Said.saved

    def stop(self: Said, step: int, epoch: int) -> None:
        saved(self, step, epoch)
        if epoch == 1:
            other = sqlite3.connect(folder / "store.db")
            other.execute("BEGIN EXCLUSIVE")
            self.kept = other  # type: ignore[attr-defined]

    Said.saved = stop  # type: ignore[method-assign]
    train_here(folder, said)


def test_who_lost_a_candidate_leaves_it_alone(tmp_path: Path, toy_set: Path) -> None:
    """A runner that was taken for gone finds out at its next sign of life, and goes on with another candidate."""
    plan = tiny_plan(tmp_path / "s", 2)
    training = tiny_training(plan, toy_set)
    state = Store(plan)

    def score(settings: Settings) -> Look:
        if is_first(settings) and len(state.trials()) == 2:
            trial = next(t for t in state.trials() if t.user_attrs["candidate"] == 1)
            state.study.tell(trial.number, state=_FAIL)
        return _score(settings)

    from optuna.trial import TrialState

    _FAIL = TrialState.FAIL
    assert run(plan, training, tmp_path / "said", score) == {"lost": 1, "done": 2}
    assert states(plan) == [("done", 2), ("done", 1)]
    words = [value for _, name, word, value in heard(tmp_path / "said") if (name, word) == ("0001", "say")]
    assert "0001: another runner has taken it over" in words
