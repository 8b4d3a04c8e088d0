"""Runners of a search that are killed at random, like kill -9: nothing is lost but the epoch at hand, nothing is done
twice, and the weights are those of a search that nobody disturbed."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections import Counter
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from search_processes import Said, end, heard, quick_disk, start, tiny_plan, tiny_training, together, train_here

from scrfdkit.search import plan as plans
from scrfdkit.search.plan import Plan
from scrfdkit.search.store import Store
from scrfdkit.train import log

__all__ = ["quick_disk"]

pytestmark = pytest.mark.usefixtures("quick_disk")

WEIGHTS = ("last.safetensors", "best.safetensors")


def weights(plan: Plan) -> dict[str, bytes]:
    folders = [plan.run_folder(candidate) for candidate in plan.candidates]
    return {f"{folder.name}/{name}": (folder / name).read_bytes() for folder in folders for name in WEIGHTS}


def check_trials(plan: Plan) -> None:
    trials = Store(plan).trials()
    assert all(trial.state.is_finished() for trial in trials)
    complete = Counter(t.user_attrs["candidate"] for t in trials if t.state == TrialState.COMPLETE)
    assert complete == {candidate.number: 1 for candidate in plan.candidates}
    assert {outcome.state for outcome in Store(plan).outcomes()} == {"done"}


def check_logs(plan: Plan, epochs: int) -> None:
    for candidate in plan.candidates:
        lines = log.read(plan.run_folder(candidate) / "log.jsonl")
        steps = [line["step"] for line in lines if line["kind"] == "train"]
        assert steps == sorted(set(steps)), candidate.name
        assert steps[-1] == 3 * epochs
        looks = [line["step"] for line in lines if line["kind"] == "validation"]
        assert looks == [*range(6, 3 * epochs, 6), 3 * epochs], candidate.name


def check_heard(said: list[list[Any]]) -> None:
    """What was told as saved is never trained again, and no two processes have a candidate at the same time."""
    saved: Counter[str] = Counter()
    owners: dict[str, list[int]] = {}
    for process, name, word, value in said:
        if word == "begin":
            assert value >= saved[name], f"{name} went back to step {value} after {saved[name]}"
            own = owners.setdefault(name, [])
            if not own or own[-1] != process:
                own.append(process)
        elif word == "saved":
            saved[name] = max(saved[name], value)
            assert owners[name][-1] == process, f"two processes train {name}"
    for name, own in owners.items():
        assert len(own) == len(set(own)), f"{name} was given up and had again by one that was not asked to"


@dataclass(frozen=True)
class Whole:
    """A search that is planned, and one like it that nobody disturbed: its folder, and the weights it ends with."""

    planned: Path
    epochs: int
    weights: dict[str, bytes]

    def copy(self, folder: Path) -> Plan:
        return plans.load(Path(shutil.copytree(self.planned, folder)))


def undisturbed(folder: Path, toy_set: Path, candidates: int, epochs: int) -> Whole:
    """Scored after every other epoch."""
    plan = tiny_plan(folder / "planned", candidates)
    tiny_training(plan, toy_set, {"epochs": epochs}, look_every=2)
    whole = plans.load(Path(shutil.copytree(plan.folder, folder / "whole")))
    assert end(start(train_here, whole.folder, folder / "said")) == 0
    return Whole(plan.folder, epochs, weights(whole))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, toy_set: Path) -> Whole:
    return undisturbed(tmp_path_factory.mktemp("small"), toy_set, 2, 3)


def check(plan: Plan, whole: Whole, said: Path) -> None:
    check_trials(plan)
    check_logs(plan, whole.epochs)
    check_heard(heard(said))
    assert weights(plan) == whole.weights


def test_killed_again_and_again(tmp_path: Path, small: Whole) -> None:
    """One runner, killed before a random write or in its scoring, and begun again until it comes through."""
    chance = random.Random(5)
    plan, said = small.copy(tmp_path / "broken"), tmp_path / "said"
    killed = 0
    for death, look in [(chance.randint(1, 70), 0) for _ in range(8)] + [(0, 1), (0, 2), (0, 0)]:
        code = end(start(train_here, plan.folder, said, death, in_score=look))
        assert code in (0, -signal.SIGKILL)
        killed += code != 0
    assert killed >= 4
    assert code == 0
    check(plan, small, said)


def test_three_runners_killed_at_random(tmp_path: Path, small: Whole) -> None:
    kill_at_random(small, tmp_path, 1, 8)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3])
def test_many_candidates_killed_at_random(seed: int, tmp_path: Path, toy_set: Path) -> None:
    kill_at_random(undisturbed(tmp_path, toy_set, 5, 5), tmp_path, seed, 80)


def kill_at_random(whole: Whole, folder: Path, seed: int, kills: int) -> None:
    """Three runners share a search; whoever is killed, at any time or before a random write, is begun again."""
    chance = random.Random(seed)
    plan, said = whole.copy(folder / "broken"), folder / "killed.said"

    def begin(death: int = 0) -> BaseProcess:
        return start(train_here, plan.folder, said, death if kills else 0)

    running = [begin(chance.randint(20, 40)) for _ in range(3)]
    ended: list[int] = []
    deadline = time.monotonic() + 120 + 10 * kills
    with together(running):
        while running and time.monotonic() < deadline:
            time.sleep(chance.uniform(0, 0.5))
            if kills and chance.random() < 0.3:
                chance.choice(running).kill()
            for process in [p for p in running if p.exitcode is not None]:
                running.remove(process)
                ended.append(end(process))
                if ended[-1]:
                    kills = max(0, kills - 1)
                    running.append(begin(chance.choice((0, chance.randint(1, 120)))))
    assert not running
    assert set(ended) <= {0, -signal.SIGKILL}
    assert len(ended) > 3, "some were killed"
    if any(outcome.state != "done" for outcome in Store(plan).outcomes()):
        # The last one to be killed left its candidate to nobody.
        assert end(start(train_here, plan.folder, said)) == 0
    check(plan, whole, said)


def test_a_suspended_runner_writes_nothing_more(tmp_path: Path, small: Whole) -> None:
    """It was taken for gone, as on another machine it would be; then it wakes up, in a folder that is another's."""
    plan, said, other = small.copy(tmp_path / "broken"), tmp_path / "said", tmp_path / "other"
    with together([start(train_and_fall_asleep, plan.folder, said)]) as (process,):
        deadline = time.monotonic() + 60
        state = Path(f"/proc/{process.pid}/stat")
        while ") T " not in state.read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert [value for _, _, word, value in heard(said) if word == "saved"] == [3], "its second epoch is next"
        assert process.pid is not None
        words = {"place": 2, "store.PATIENCE": 0.5, "store.BEAT": 0.5, "runner._LOOK_AGAIN": 0.1}
        assert end(start(train_here, plan.folder, other, words=words)) == 0
        assert weights(plan) == small.weights
        os.kill(process.pid, signal.SIGCONT)
        assert end(process) == 0
    assert [value for _, _, word, value in heard(said) if word == "say"][-1] == "0001: another runner has taken it over"
    check_trials(plan)
    check_logs(plan, 3)
    assert weights(plan) == small.weights
    assert not (plan.run_folder(plan.candidate(1)) / "checkpoints").exists()


def train_and_fall_asleep(folder: Path, said: Path) -> None:
    saved = Said.saved

    def fall_asleep(self: Said, step: int, epoch: int) -> None:
        saved(self, step, epoch)
        if epoch == 1:
            os.kill(os.getpid(), signal.SIGSTOP)

    Said.saved = fall_asleep  # type: ignore[method-assign]
    train_here(folder, said)
