"""`scrfd search run --engine ray` on real local clusters: whole, killed, interrupted, beside a runner without Ray."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import tiny_search
from optuna.trial import TrialState

from scrfdkit.search.candidate import Outcome
from scrfdkit.search.plan import Plan
from scrfdkit.search.store import Store

pytest.importorskip("ray")

# A cluster of two cores and a GPU that is not there. It lasts until its input ends.
CLUSTER = """
import sys
import ray
made = ray.init("local", num_cpus=2, num_gpus=1, include_dashboard=False, object_store_memory=80 * 2**20,
                log_to_driver=False, logging_level="error", _temp_dir=sys.argv[1], _node_ip_address="127.0.0.1")
print("at", made.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""

TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


def processes(session: int) -> list[int]:
    """Of a session, those that have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            words = path.read_text().rpartition(")")[2].split()
            if int(words[3]) == session and words[0] not in "ZX":
                found.append(int(path.parent.name))
    return found


def end(session: int) -> None:
    """Kills what is left of a session."""
    for pid in processes(session):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def until(what: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Waits for it, as long as the process runs that is to bring it about."""
    deadline = time.monotonic() + 120
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def sessions() -> Iterator[list[subprocess.Popen[str]]]:
    """Commands that were begun; what is left of them is killed."""
    begun: list[subprocess.Popen[str]] = []
    yield begun
    for process in begun:
        end(process.pid)
        process.communicate()


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Ray's folder; a short path, as the names of sockets in it may have a hundred letters."""
    path = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def address(place: Path) -> Iterator[str]:
    """Of a cluster."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLUSTER, str(place / "shared")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **TOKEN, "RAY_USAGE_STATS_ENABLED": "0"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("at "), line
        yield line.split()[1]
        process.stdin.close()
        process.wait(30)
    finally:
        end(process.pid)
        process.wait()
        process.stdin.close()
        process.stdout.close()


@pytest.fixture
def scrfd(sessions: list[subprocess.Popen[str]], place: Path) -> Callable[..., subprocess.Popen[str]]:
    """Begins `scrfd search run`."""

    def begin(folder: Path, *words: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "scrfdkit", "search", "run", str(folder), *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "RAY_TMPDIR": str(place), **(TOKEN if "--address" in words else {})},
        )
        sessions.append(process)
        return process

    return begin


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    """Both outputs."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, out + err
    assert "Traceback" not in err, err
    return out + err


def ended(plan: Plan) -> list[tuple[str, int]]:
    """How every candidate stands, and how often it was brought to an end."""
    store = Store(plan)
    over = [t.user_attrs["candidate"] for t in store.trials() if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    return [(o.state, over.count(o.candidate.number)) for o in store.outcomes()]


def outcome(store: Store, number: int) -> Outcome:
    return store.outcomes()[number - 1]


def test_a_cluster_of_its_own_and_the_worse_ones_stopped(
    scrfd: Callable[..., subprocess.Popen[str]], toy_set: Path, tmp_path: Path
) -> None:
    plan = tiny_search.make(tmp_path / "search", 4)
    store = Store(plan)
    for score in (50.0, 60.0):  # others were here before, and had better scores after the first epoch
        claim = store.claim()
        assert claim is not None
        assert not claim.look(1, {"hard": score}, score)
        claim.done({"hard": score}, score)
    process = scrfd(
        *(plan.folder, "--data", toy_set, *tiny_search.OPTIONS, "--epochs", 2, "--look-every", 1, "--halving", 2),
        *("--engine", "ray"),
    )
    said = finish(process)
    assert ended(plan) == [("done", 1), ("done", 1), ("stopped", 1), ("stopped", 1)]
    assert [outcome(store, number).epochs for number in (3, 4)] == [1, 1]
    assert "4/4: 000" in said
    assert "2 done, 2 stopped early" in said
    assert processes(process.pid) == []
    assert "error" not in said.lower()


def test_killed_workers_are_replaced_and_a_runner_without_ray_may_help(
    scrfd: Callable[..., subprocess.Popen[str]], address: str, place: Path, toy_set: Path, tmp_path: Path
) -> None:
    plan = tiny_search.make(tmp_path / "search", 3)
    store, epochs = Store(plan), 15
    how = ("--data", toy_set, *tiny_search.OPTIONS, "--epochs", epochs)
    driver = scrfd(plan.folder, *how, "--engine", "ray", "--address", address, "--gpus", 0)
    until(lambda: any(o.epochs >= 2 for o in store.outcomes()), driver)
    victim = next(o for o in store.outcomes() if o.epochs >= 2)
    assert victim.state == "running", "the training was too short for this test"
    helper = scrfd(plan.folder, "--threads", 1, "--workers", 1, "--device", "cpu")
    os.kill(int(victim.owner.split()[1]), signal.SIGKILL)
    said = finish(driver)
    shown = finish(helper)
    assert ended(plan) == [("done", 1)] * 3
    assert "a worker is gone" in said
    after = outcome(store, victim.candidate.number)
    assert (after.tries, after.epochs) == (2, epochs)
    assert [outcome(store, n).tries for n in (1, 2, 3) if n != victim.candidate.number] == [1] * 2
    # Either of them may have gone on with it.
    logs = shown + "".join(path.read_text() for path in place.glob("shared/session_2*/logs/worker-*.out"))
    went_on = re.findall(rf"{victim.candidate.name}: goes on after step (\d+) of {3 * epochs}", logs)
    assert [int(step) >= 2 * 3 for step in went_on] == [True], logs


def test_interrupted_it_stops_with_checkpoints_and_goes_on_without_ray(
    scrfd: Callable[..., subprocess.Popen[str]], address: str, toy_set: Path, tmp_path: Path
) -> None:
    plan = tiny_search.make(tmp_path / "search", 2)
    store, epochs = Store(plan), 20
    ray = ("--engine", "ray", "--address", address, "--gpus", 0, "--cpus", 2)  # one at a time
    first = scrfd(plan.folder, "--data", toy_set, *tiny_search.OPTIONS, "--epochs", epochs, *ray)
    until(lambda: outcome(store, 1).epochs >= 2, first)
    first.send_signal(signal.SIGINT)
    said = finish(first, 130)
    assert "stops after this step" in said
    assert "2 waiting" in said
    assert [(o.state, o.tries) for o in store.outcomes()] == [("waiting", 1), ("waiting", 0)]
    saved = outcome(store, 1).epochs
    said = finish(scrfd(plan.folder, "--threads", 1, "--workers", 1, "--device", "cpu"))
    step = int(re.findall(rf"0001: goes on after step (\d+) of {3 * epochs}", said)[0])
    assert step >= 3 * saved >= 6
    assert ended(plan) == [("done", 1)] * 2


@pytest.mark.slow
def test_what_is_wrong_for_all_is_said_once(
    scrfd: Callable[..., subprocess.Popen[str]], address: str, toy_set: Path, tmp_path: Path
) -> None:
    plan = tiny_search.make(tmp_path / "search", 3)
    how = ("--data", toy_set, *tiny_search.OPTIONS, "--engine", "ray", "--address", address)
    # Ray believes in the cluster's GPU, of which two workers have a half each.
    said = finish(scrfd(plan.folder, *how, "--gpus", 0.5), 2)
    assert said.count("error:") == 1
    assert "cuda" in said
    assert ended(plan) == [("waiting", 0)] * 3
