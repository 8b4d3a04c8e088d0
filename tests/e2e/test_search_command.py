"""`scrfd search` as users run it: a small search from its plan to a network of one's own, stopped, moved, refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("optuna")

from search_processes import quick_disk, tiny_plan, tiny_space

from scrfdkit import Detector, cli
from scrfdkit.model.checkpoint import read_header
from scrfdkit.search import plan as plans
from scrfdkit.search import training
from scrfdkit.search.plan import Plan
from scrfdkit.search.space import to_dict
from scrfdkit.search.store import Store
from scrfdkit.train import log

__all__ = ["quick_disk"]

SMALL = ("--size", "96", "--batch", "2", "--holdout", "0.3")
HERE = ("--device", "cpu", "--threads", "1", "--workers", "1")


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "scrfdkit", *map(str, words)]


def scrfd(*words: object, code: int = 0, cwd: Path | None = None) -> str:
    """Both outputs of the real command."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command(*words), check=False, capture_output=True, text=True, timeout=300, env=environment, cwd=cwd
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The same without a new process, for what trains nothing."""

    def run(*words: object, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["scrfd", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert (ended.value.code or 0) == code, said
        if code == 2:
            *_, last = said.err.splitlines()
            assert last.startswith("error: ")
            assert said.err.count("error") == 1, "a mistake is one line"
        return said.out + said.err

    return run


def states(plan: Plan) -> list[str]:
    return [outcome.state for outcome in Store(plan).outcomes()]


def test_a_small_search(toy_set: Path, tmp_path: Path, quick: Callable[..., str]) -> None:
    space, folder = tmp_path / "space.json", tmp_path / "search"
    space.write_text(json.dumps(to_dict(tiny_space())))
    said = scrfd("search", "plan", "--space", space, "--num", 2, "--seed", 3, "-o", folder)
    assert "2 candidates of the space backbone, 0.05 GFLOPs, seed 3" in said
    assert f"train them with: scrfd search run {folder} --data LABELS" in said
    assert "2 waiting" in quick("search", "status", folder)

    said = scrfd("search", "run", folder, "--data", toy_set, "--epochs", 1, *SMALL, *HERE)
    assert "candidate 1 of 2: stem 0." in said
    assert "2 done" in said
    assert f"look at it with: scrfd search report {folder}" in said
    assert {path.name for path in folder.iterdir()} == {
        *("search.json", "training.json", "store.db", "lock", "data", "candidates"),
    }
    told = json.loads(quick("search", "status", folder, "--json"))["candidates"]
    assert [(one["state"], one["epochs"], one["tries"]) for one in told] == [("done", 1, 1)] * 2
    assert set(told[0]["scores"]) == {"easy", "medium", "hard"}
    assert "2 done" in quick("search", "run", folder, *HERE), "run again, there is nothing to do"

    said = quick("search", "report", folder)
    assert f"page: {folder / 'report.html'}" in said
    winner = folder / "winner.json"
    assert str(winner) in said
    number = int(said.split("winner.json: ")[1].split()[0])
    weights = folder / "candidates" / f"{number:04d}" / "last.safetensors"
    assert (folder / "winner.safetensors").read_bytes() == weights.read_bytes()
    assert (folder / "report.html").read_text().lower().startswith("<!doctype html>")

    run = tmp_path / "run"
    small = ("--size", 96, "--batch", 2, "--steps", 1, "--val-every", 0, *HERE)
    scrfd("train", "--model", winner, "--data", toy_set, *small, "-o", run)
    assert read_header(run / "last.safetensors").spec == plans.load(folder).candidate(number).spec
    scrfd("export", winner, "-o", tmp_path / "winner.onnx")
    Detector.open(tmp_path / "winner.onnx").detect(toy_set / "images" / "astronaut_0.jpg")


def test_the_same_options_plan_the_same_candidates(tmp_path: Path, quick: Callable[..., str]) -> None:
    space = tmp_path / "space.json"
    space.write_text(json.dumps(to_dict(tiny_space())))
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        quick("search", "plan", "--space", space, "--num", 3, "--seed", seed, "-o", tmp_path / name)
    one, same, other = (plans.load(tmp_path / name) for name in "abc")
    assert one.candidates == same.candidates != other.candidates
    assert one.study != same.study, "searches that share a database are told apart"


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_two_runners_are_asked_to_stop(number: int, toy_set: Path, tmp_path: Path) -> None:
    """Ctrl-C goes to all processes of a terminal, SIGTERM only to the one that was started."""
    plan = tiny_plan(tmp_path / "s", 3)
    words = ("--data", toy_set, "--epochs", 500, *SMALL, "--runners", 2, *HERE)
    running = subprocess.Popen(
        command("search", "run", plan.folder, *words),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 120
        while sum(o.epochs > 0 for o in Store(plan).outcomes()) < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        if number == signal.SIGINT:
            os.killpg(running.pid, number)
        else:
            running.send_signal(number)
        out, err = running.communicate(timeout=60)
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == 130, out + err
    assert "Traceback" not in err
    assert states(plan) == ["waiting"] * 3
    for candidate in plan.candidates[:2]:
        assert list((plan.run_folder(candidate) / "checkpoints").glob("*.safetensors"))


def test_what_cannot_go_on_is_one_line(
    toy_set: Path, tmp_path: Path, quick: Callable[..., str], quick_disk: None
) -> None:
    plan = tiny_plan(tmp_path / "s", 1)
    folder, run = plan.folder, ("search", "run", plan.folder)
    assert "no run has settled what candidates learn from" in quick(*run, code=2)
    assert "no face counts" in quick(*run, "--data", toy_set, "--holdout", 0.0001, code=2)
    assert "nowhere" in quick(*run, "--data", tmp_path / "nowhere", code=2)
    assert "needs scores on the way" in quick(*run, "--data", toy_set, "--halving", 2, code=2)
    assert not (folder / "training.json").exists()
    said = quick(*run, "--data", toy_set, "--epochs", 1, *SMALL, "--device", "cuda:7", code=2)
    assert "cuda:7" in said
    assert states(plan) == ["waiting"]
    assert "--lr, --epochs: the first run settled that" in _sorted(quick(*run, "--lr", 1, "--epochs", 1, code=2))
    # As long as nothing was trained, it may be settled anew.
    assert "cuda:7" in quick(*run, "--data", toy_set, "--epochs", 2, *SMALL, "--device", "cuda:7", code=2)
    settled = training.load(plan)
    assert settled is not None
    assert settled.recipe.epochs == 2
    claim = Store(plan).claim()
    assert claim is not None
    claim.epoch(1, 3)
    claim.put_back()
    said = quick(*run, "--data", toy_set, "--epochs", 1, *SMALL, code=2)
    assert "this search was begun with another recipe;" in said
    for verb in ("run", "status", "report"):
        assert "is no folder of a search" in quick("search", verb, tmp_path, code=2)
    (folder / "store.db").rename(tmp_path / "kept.db")
    for verb in ("run", "status", "report"):
        assert "store.db: is missing" in quick("search", verb, folder, code=2)
    (folder / "store.db").write_text("what is this?")
    for verb in ("run", "status", "report"):
        assert "file is not a database" in quick("search", verb, folder, code=2)
    (tmp_path / "kept.db").replace(folder / "store.db")
    (folder / "training.json").write_text("{")
    assert "training.json: damaged" in quick(*run, code=2)
    assert "training.json: damaged" in quick("search", "status", folder, code=2)
    (folder / "search.json").write_text("{")
    for verb in ("run", "status", "report"):
        assert "search.json: damaged" in quick("search", verb, folder, code=2)


def _sorted(said: str) -> str:
    return said.replace("--epochs, --lr", "--lr, --epochs")


def test_a_folder_that_may_not_be_written(toy_set: Path, tmp_path: Path, quick_disk: None) -> None:
    """Root may write anywhere, so it is taken its powers; reading is still possible."""
    plan = tiny_plan(tmp_path / "s", 1)
    plan.folder.chmod(0o555)
    without = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.getuid() == 0 else []
    try:
        for words, code, text in (
            (("status", plan.folder), 0, "1 waiting"),
            (("run", plan.folder, "--data", toy_set), 2, "lock: cannot be written: Permission denied"),
        ):
            done = subprocess.run(
                [*without, *command("search", *words)], check=False, capture_output=True, text=True, timeout=100
            )
            assert done.returncode == code, done.stderr
            assert text in done.stdout + done.stderr
            assert "Traceback" not in done.stderr
    finally:
        plan.folder.chmod(0o755)
    assert states(plan) == ["waiting"]


@pytest.mark.slow
def test_a_killed_search_goes_on_and_its_log_is_whole(toy_set: Path, tmp_path: Path) -> None:
    """With the real command, killed between two epochs."""
    plan = tiny_plan(tmp_path / "s", 1)
    words = ("search", "run", plan.folder, "--data", toy_set, "--epochs", 12, *SMALL, *HERE)
    running = subprocess.Popen(command(*words), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while Store(plan).outcomes()[0].epochs < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    running.kill()
    running.wait()
    told = Store(plan).outcomes()[0].epochs
    assert 3 <= told < 12
    said = scrfd(*words)
    step = int(said.split("goes on after step ")[1].split()[0])
    assert step in (3 * told, 3 * told + 3)
    assert states(plan) == ["done"]
    steps = [line["step"] for line in log.read(plan.run_folder(plan.candidate(1)) / "log.jsonl")]
    assert steps == sorted(steps)
