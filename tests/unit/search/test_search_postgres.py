"""The state of a search in a server's database: machines whose folders are copies have no lock in common."""

from __future__ import annotations

import shutil
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from postgres_server import Postgres, postgres
from search_processes import (
    FORK,
    claim_all,
    claim_and_end,
    end,
    heard,
    plan_of_many,
    start,
    tiny_plan,
    tiny_training,
    together,
    train_here,
)

from scrfdkit.errors import OptionError
from scrfdkit.search import database, store
from scrfdkit.search import plan as plans
from scrfdkit.search.agreement import agree, facts
from scrfdkit.search.plan import Plan
from scrfdkit.search.store import Store

__all__ = ["postgres"]


def copies(plan: Plan, number: int) -> list[Path]:
    """Folders as machines without a common one have them."""
    return [Path(shutil.copytree(plan.folder, plan.folder.with_name(f"copy {n}"))) for n in range(number)]


def complete(plan: Plan) -> dict[int, int]:
    trials = Store(plan).trials()
    assert all(trial.state.is_finished() for trial in trials)
    return dict(Counter(t.user_attrs["candidate"] for t in trials if t.state == TrialState.COMPLETE))


@pytest.mark.parametrize("number", [60, pytest.param(300, marks=pytest.mark.slow)])
def test_four_machines_share_many_candidates(number: int, postgres: Postgres, tmp_path: Path) -> None:
    plan = plan_of_many(tmp_path / "s", number, postgres.url)
    assert not (plan.folder / "store.db").exists()
    places = [tmp_path / f"said {n}" for n in range(4)]
    folders = copies(plan, 4)
    words = [{"place": n} for n in range(4)]
    with together([start(claim_and_end, *each) for each in zip(folders, places, words, strict=True)]) as processes:
        assert [end(process) for process in processes] == [0] * 4
    shares = [[int(line) for line in said.read_text().split()] for said in places]
    assert sorted(number for share in shares for number in share) == list(range(1, number + 1))
    assert all(shares), "every machine had some"
    assert complete(plan) == dict.fromkeys(range(1, number + 1), 1)


def test_killed_at_any_write(postgres: Postgres, tmp_path: Path) -> None:
    """Seen from another machine, which waits until the first one has been silent for long enough."""
    words = {"place": 1, "store.PATIENCE": 0.2, "store.BEAT": 0.1}
    for death in (2, 3, 4, 12, 99):
        plan = plan_of_many(tmp_path / f"killed {death}", 1, postgres.url)
        said = tmp_path / f"said {death}"
        assert end(start(claim_all, plan.folder, said, death)) == (-signal.SIGKILL if death < 99 else 0)
        assert end(start(wait_and_claim, plan.folder, said, words)) == 0
        assert complete(plan) == {1: 1}, f"killed before write {death}"


def wait_and_claim(folder: Path, said: Path, words: dict[str, float]) -> None:
    state = Store(plans.load(folder))
    claim_all(folder, said, 0, words)
    while state.others():
        time.sleep(0.05)
        claim_all_with(state, said)


def claim_all_with(state: Store, said: Path) -> None:
    while claim := state.claim():
        with said.open("a") as file:
            file.write(f"{claim.candidate.number}\n")
        claim.done({}, 1.0)


def test_killed_between_its_claim_and_its_name(
    postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has a lock that would tell, so it gets the usual patience."""
    monkeypatch.setattr(store, "PATIENCE", 0.3)
    monkeypatch.setattr(store, "BEAT", 0.1)
    plan = plan_of_many(tmp_path / "s", 1, postgres.url)
    state = Store(plan)
    state.study.ask()
    assert state.claim() is None
    assert [str(other) for other in state.others()] == ["a runner that has not said who it is"]
    looks = 1
    while (claim := state.claim()) is None:
        time.sleep(0.05)
        looks += 1
        assert looks < 100
    assert looks > 3
    claim.done({}, 1.0)
    assert complete(plan) == {1: 1}


def test_put_back_by_all_at_once(postgres: Postgres, tmp_path: Path) -> None:
    """Four machines find the same six candidates abandoned at the same moment."""
    plan = plan_of_many(tmp_path / "s", 6, postgres.url)
    state = Store(plan)
    claims = [state.claim() for _ in range(6)]
    assert all(claims)
    gate = FORK.Barrier(4)
    folders, places = copies(plan, 4), [tmp_path / f"said {n}" for n in range(4)]
    with together([start(rush, *each, gate) for each in zip(folders, places, strict=True)]) as processes:
        for claim in claims:
            assert claim is not None
            state.study.tell(claim._trial.number, state=TrialState.FAIL)  # taken over, and not yet put back
        assert [end(process) for process in processes] == [0] * 4
    shares = [said.read_text().split() for said in places]
    assert sorted(int(number) for share in shares for number in share) == list(range(1, 7))
    assert complete(plan) == dict.fromkeys(range(1, 7), 1)
    assert [o.tries for o in state.outcomes()] == [2] * 6


def rush(folder: Path, said: Path, gate: threading.Barrier) -> None:
    said.touch()
    state = Store(plans.load(folder))
    gate.wait(60)
    deadline = time.monotonic() + 60
    while any(o.state not in ("done", "failed") for o in state.outcomes()) and time.monotonic() < deadline:
        claim_all_with(state, said)


def test_plans_in_a_new_database_at_the_same_moment(postgres: Postgres, tmp_path: Path) -> None:
    import psycopg

    with psycopg.connect(postgres.url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("CREATE DATABASE fresh")
    url = postgres.url.replace("/postgres", "/fresh")
    gate = FORK.Barrier(4)
    with together([start(plan_at, tmp_path / str(n), url, gate) for n in range(4)]) as processes:
        assert [end(process) for process in processes] == [0] * 4
    assert [len(Store(plans.load(tmp_path / str(n))).outcomes()) for n in range(4)] == [2] * 4


def plan_at(folder: Path, url: str, gate: threading.Barrier) -> None:
    gate.wait(60)
    plan_of_many(folder, 2, url)


def test_the_server_goes_away_while_a_runner_trains(
    postgres: Postgres, tmp_path: Path, toy_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan(tmp_path / "s", 1, postgres.url)
    tiny_training(plan, toy_set, {"epochs": 9}, look_every=3)
    said = tmp_path / "said"
    with together([start(train_here, plan.folder, said)]) as (process,):
        deadline = time.monotonic() + 60
        while not any(word == "saved" for _, _, word, _ in heard(said)) and time.monotonic() < deadline:
            time.sleep(0.02)
        postgres.stop()
        before = sum(word == "saved" for _, _, word, _ in heard(said))
        while sum(word == "saved" for _, _, word, _ in heard(said)) == before and time.monotonic() < deadline:
            time.sleep(0.02)
        postgres.start()
        assert 0 < before < 9, "it was in the middle"
        assert end(process) == 0
    assert complete(plan) == {1: 1}
    assert [(o.tries, o.epochs) for o in Store(plan).outcomes()] == [(1, 9)]
    assert [value for _, _, word, value in heard(said) if word == "begin"] == [0], "nothing was begun again"


def test_a_restart_between_two_words_of_a_claim(postgres: Postgres, tmp_path: Path) -> None:
    plan = plan_of_many(tmp_path / "s", 1, postgres.url)
    state = Store(plan)
    postgres.stop()
    postgres.start()
    claim = state.claim()
    assert claim is not None
    for act in (claim.beat, lambda: claim.epoch(1, 3), lambda: claim.look(1, {}, 1.0), lambda: claim.done({}, 1.0)):
        postgres.stop()
        postgres.start()
        act()
    assert complete(plan) == {1: 1}
    assert [(o.score, o.epochs) for o in state.outcomes()] == [(1.0, 1)]


def test_a_server_that_does_not_come_back(postgres: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PAUSES", (0.05,) * 2)
    plan = plan_of_many(tmp_path / "s", 1, postgres.url)
    state = Store(plan)
    claim = state.claim()
    assert claim is not None
    postgres.stop()
    try:
        claim.beat()
        claim.epoch(1, 3)
        for act in (lambda: claim.done({}, 1.0), state.claim, state.outcomes, lambda: Store(plan)):
            with pytest.raises(OptionError, match=r"storage: postgresql.*refused"):
                act()
    finally:
        postgres.start()
    claim.done({}, 1.0)
    assert complete(plan) == {1: 1}


def test_machines_must_train_alike(postgres: Postgres, tmp_path: Path, toy_set: Path) -> None:
    plan = plan_of_many(tmp_path / "s", 1, postgres.url)
    one, two, three = (plans.load(folder) for folder in copies(plan, 3))
    first = facts(one, tiny_training(one, toy_set))
    agree(Store(one), first)
    agree(Store(one), first)
    elsewhere = Path(shutil.copytree(toy_set, tmp_path / "toy"))
    agree(Store(two), facts(two, tiny_training(two, elsewhere)))
    with pytest.raises(OptionError, match=r"another recipe, seed, train\.txt, heldout\.txt; "):
        agree(Store(three), facts(three, tiny_training(three, toy_set, {"epochs": 4}, seed=1)))


def test_a_study_that_is_gone(postgres: Postgres, tmp_path: Path) -> None:
    plan = plan_of_many(tmp_path / "s", 1, postgres.url)
    storage = database.connect(plan)
    optuna.delete_study(study_name=plan.study, storage=storage)
    database.close(storage, plan)
    with pytest.raises(store.ScrfdError, match="has no study"):
        Store(plan)
