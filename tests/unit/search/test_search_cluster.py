"""What a cluster's driver checks before it connects, and what a worker does, in this process."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import tiny_search
import torch

from scrfdkit.errors import MissingExtraError, OptionError
from scrfdkit.search import cluster, training
from scrfdkit.search.owner import this_process
from scrfdkit.search.plan import Plan
from scrfdkit.search.store import Store
from scrfdkit.search.training import Training
from scrfdkit.search.turn import Turn, turn
from scrfdkit.train.recipe import Recipe
from scrfdkit.train.settings import Settings

WHERE = {"device": "cpu", "workers": 1}


def score(settings: Settings) -> Callable[[object], Mapping[str, float]]:
    return lambda net: {"hard": 12.5, "score": 12.5}


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return tiny_search.make(tmp_path / "search", 2)


@pytest.fixture
def settled(plan: Plan, toy_set: Path) -> Training:
    recipe = Recipe().change({"size": 96, "batch": 2, "epochs": 1})
    return training.settle(plan, Training(str(toy_set), recipe, holdout=0.3))


@pytest.mark.parametrize(
    ("device", "gpus", "any_gpu", "found"),
    [
        ("auto", None, False, ("cpu", 0)),
        ("auto", None, True, ("cuda", 1)),
        ("auto", 0.5, True, ("cuda", 0.5)),
        ("auto", 0, True, ("cpu", 0)),
        ("cpu", None, True, ("cpu", 0)),
        ("cuda", None, False, ("cuda", 1)),  # none of the machines there now has one, but another may come
        ("cuda", 2, True, ("cuda", 2)),
    ],
)
def test_what_a_candidate_gets(device: str, gpus: float | None, any_gpu: bool, found: tuple[str, float]) -> None:
    assert cluster.place_of(device, gpus, any_gpu) == found


@pytest.mark.parametrize(
    ("device", "gpus", "says"),
    [
        ("cuda:1", None, "deals out"),
        ("auto", 1.5, "--gpus 1.5"),
        ("cuda", 0, "--device cuda"),
        ("cpu", 0.5, "--device cpu"),
    ],
)
def test_what_does_not_go_together(device: str, gpus: float | None, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        cluster.place_of(device, gpus, True)


def test_ray_is_loaded_only_when_it_is_asked_for() -> None:
    code = "import sys, scrfdkit.search.cluster, scrfdkit.search.turn; print('ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_without_ray_it_says_what_to_install(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError, match=r"scrfdkit\[ray\]"):
        cluster.run(plan, Training("."), score, print)


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_an_address_where_nothing_is(plan: Plan, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    pytest.importorskip("ray")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        address = form.format(taken.getsockname()[1])
        with pytest.raises(OptionError, match=f"--address {address}: no cluster answers"):
            cluster.run(plan, Training("."), score, print, address)
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(OptionError, match="no cluster answers"):
            cluster.run(plan, Training("."), score, print)


def one(plan: Plan, settled: Training, *, study: str | None = None, place: str | None = None) -> Turn:
    threads = torch.get_num_threads()
    try:
        return turn(plan.folder, study or plan.study, place or this_process().place, settled, score, 1, WHERE)
    finally:
        torch.set_num_threads(threads)


def test_a_worker_takes_a_candidate_at_a_time(plan: Plan, settled: Training) -> None:
    turns = [one(plan, settled) for _ in range(3)]
    assert [(t.number, t.end, t.error) for t in turns] == [(1, "done", ""), (2, "done", ""), (0, None, "")]
    assert [o.scores for o in Store(plan).outcomes()] == [{"hard": 12.5}] * 2


def test_asked_before_its_training_begins_a_worker_puts_its_candidate_back(plan: Plan, settled: Training) -> None:
    def interrupted(settings: Settings) -> Callable[[object], Mapping[str, float]]:
        signal.raise_signal(signal.SIGINT)
        return score(settings)

    place = this_process().place
    done = turn(plan.folder, plan.study, place, settled, interrupted, torch.get_num_threads(), WHERE)
    assert (done.number, done.end) == (1, "asked")
    assert [(o.state, o.tries) for o in Store(plan).outcomes()] == [("waiting", 1), ("waiting", 0)]


def test_a_worker_finds_another_search_in_the_folder(plan: Plan, settled: Training) -> None:
    assert "another search" in one(plan, settled, study="another").error


def test_a_worker_on_another_machine_uses_no_file(plan: Plan, settled: Training) -> None:
    assert "--storage" in one(plan, settled, place="elsewhere").error
    assert [o.tries for o in Store(plan).outcomes()] == [0, 0]


def test_what_is_wrong_for_all_comes_back_as_text(plan: Plan, settled: Training) -> None:
    (plan.folder / "data" / "train.txt").unlink()
    done = one(plan, settled)
    assert "train.txt" in done.error
    assert done.number == 0
