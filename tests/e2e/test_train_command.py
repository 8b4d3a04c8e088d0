"""`scrfd train` as users run it: it learns, survives being killed, refuses what cannot work, shares its work."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from scrfdkit import Detector
from scrfdkit.data import formats
from scrfdkit.model.checkpoint import read_header
from scrfdkit.train import log, state

SMALL = ("--size", "96", "--batch", "2", "--workers", "1", "--threads", "1", "--device", "cpu", "--val-every", "0")


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "scrfdkit", "train", *map(str, words)]


def scrfd_train(*words: object, code: int = 0, **how: object) -> str:
    """Both outputs of a run of the command."""
    done = subprocess.run(command(*words), check=False, capture_output=True, text=True, timeout=900, **how)  # type: ignore[call-overload]
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return str(done.stdout + done.stderr)


def newest(run: Path) -> int:
    steps = [int(path.stem.split("-")[1]) for path in (run / "checkpoints").glob("step-*.safetensors")]
    return max(steps, default=0)


def test_killed_in_mid_epoch_and_resumed_it_ends_on_the_same_bits(toy_set: Path, tmp_path: Path) -> None:
    options = ("--model", "scrfd_500m_kps", "--data", toy_set, "--recipe", "fast", *SMALL, "--steps", 14)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    scrfd_train(*options, "-o", whole)
    running = subprocess.Popen(
        command(*options, "-o", broken, "--save-every", "0.0001"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while newest(broken) < 5 and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    stopped = newest(broken)
    assert 5 <= stopped < 14
    said = scrfd_train("--resume", broken, "--device", "cpu", "--threads", "1")
    assert f"goes on after step {stopped} of 14" in said or f"goes on after step {stopped - 1} of 14" in said
    first, second = (state.load(run / "checkpoints" / "step-00000014.safetensors") for run in (whole, broken))
    assert set(first.tensors) == set(second.tensors)
    for name, tensor in first.tensors.items():
        assert torch.equal(tensor, second.tensors[name]), name
    one, other = (load_file(run / "last.safetensors") for run in (whole, broken))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert len(list((broken / "checkpoints").glob("*.safetensors"))) == 2
    steps = [line["step"] for line in log.read(broken / "log.jsonl") if line["kind"] == "train"]
    assert steps == sorted(set(steps))
    assert steps[-1] == 14


def test_ctrl_c_ends_with_a_checkpoint(toy_set: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ("--model", "scrfd_500m_kps", "--data", toy_set, *SMALL, "--epochs", 500, "-o", run)
    running = subprocess.Popen(command(*options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (run / "batches" / "step-00000002.jpg").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert "Traceback" not in err
    done = newest(run)
    assert 2 <= done < 2000
    assert f"stopped at step {done} of 2,000; go on with: scrfd train --resume {run}" in out
    assert Detector.open(run / "last.safetensors").detect(np.zeros((64, 64, 3), np.uint8)) is not None


def test_torchrun_with_two_processes(toy_set: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "scrfdkit", "train"]
    options = ("--model", "scrfd_500m_kps", "--data", toy_set, *SMALL, "--batch", 4, "--steps", 4, "-o", run)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words, *map(str, options), "--val", str(toy_set)],
        check=False, capture_output=True, text=True, timeout=200, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert newest(run) == 4
    assert done.stdout.count("weights after 4 steps") == 1
    assert {line["kind"] for line in log.read(run / "log.jsonl")} == {"train", "validation"}
    # A resumed run goes on with both processes too.
    (run / "checkpoints" / "step-00000004.safetensors").unlink()
    again = subprocess.run(
        [sys.executable, *words, "--resume", str(run), "--device", "cpu"],
        check=False, capture_output=True, text=True, timeout=200, env=environment,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr


def test_a_loss_that_is_not_finite_names_the_pictures(toy_set: Path, tmp_path: Path) -> None:
    said = scrfd_train(
        "--model", "scrfd_500m_kps", "--data", toy_set, *SMALL, "--lr", 1e20, "--steps", 30,
        "--set", "schedule.warmup=0", "-o", tmp_path / "run", code=2,
    )  # fmt: skip
    assert "the loss is not finite" in said
    assert "solvay_1927_" in said or "astronaut_" in said
    assert "lower optimiser.lr" in said
    assert [line["kind"] for line in log.read(tmp_path / "run" / "log.jsonl")][-1] == "event"


def test_missing_and_broken_pictures(toy_set: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(toy_set, tmp_path / "data"))
    (data / "images" / "solvay_1927_3.jpg").unlink()
    options = ("--model", "scrfd_500m_kps", "--data", data, *SMALL, "--steps", 8)
    said = scrfd_train(*options, "-o", tmp_path / "a", code=2)
    assert "solvay_1927_3.jpg: there is no such picture, and 1 of 8 are missing" in said
    (data / "images" / "solvay_1927_3.jpg").write_bytes(b"\xff\xd8\xff nothing")
    said = scrfd_train(*options, "-o", tmp_path / "b", code=2)
    assert "solvay_1927_3.jpg" in said
    # The step before it is not lost once there is a checkpoint.
    cv2.imwrite(str(data / "images" / "solvay_1927_3.jpg"), np.zeros((320, 319, 3), np.uint8))
    said = scrfd_train(*options, "-o", tmp_path / "c", "--save-every", "0.0001", code=2)
    assert "solvay_1927_3.jpg: is 319x320, its label says 320x320" in said


FULL = """
import resource, sys
from scrfdkit.cli import main
if sys.argv[1] == "full":
    import signal
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, resource.RLIM_INFINITY))
sys.argv[1:] = ["train", *sys.argv[2:]]
main()
"""


def test_a_full_disk_is_told_and_loses_nothing(toy_set: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = (
        "--model",
        "scrfd_500m_kps",
        "--data",
        toy_set,
        *SMALL,
        "--steps",
        4,
        "-o",
        run,
        "--save-every",
        "0.0001",
    )
    done = subprocess.run(
        [sys.executable, "-c", FULL, "full", *map(str, options)],
        check=False, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "warning: no checkpoint of step 1" in done.stderr
    assert not list((run / "checkpoints").glob("*")) if (run / "checkpoints").exists() else True
    assert scrfd_train("--resume", run, "--device", "cpu").count("weights after 4 steps") == 1


def test_a_run_goes_on_without_the_weights_that_it_began_with(toy_set: Path, tmp_path: Path) -> None:
    options = ("--model", "scrfd_500m_kps", "--data", toy_set, *SMALL, "--steps", 1, "--licence", "CC0")
    scrfd_train(*options, "-o", tmp_path / "first")
    weights = Path(shutil.copy(tmp_path / "first" / "last.safetensors", tmp_path / "w.safetensors"))
    second = tmp_path / "second"
    scrfd_train("--model", weights.name, "--data", toy_set, *SMALL, "--steps", 2, "-o", second, cwd=tmp_path)
    (second / "checkpoints" / "step-00000002.safetensors").rename(tmp_path / "kept")
    weights.unlink()
    (tmp_path / "kept").rename(second / "checkpoints" / "step-00000002.safetensors")
    said = scrfd_train("--resume", second)
    assert "goes on after step 2 of 2" in said
    assert "fresh" not in said
    info = read_header(second / "last.safetensors")
    assert (info.name, info.licence) == ("scrfd_500m_kps", "CC0")


def test_every_network_gets_its_own_reference_recipe(toy_set: Path, tmp_path: Path) -> None:
    """Names of networks have dots, as files have."""
    for name in ("scrfd_2.5g_kps", "base_2.5g"):
        options = ("--model", name, "--data", toy_set, *SMALL, "--steps", 1)
        assert f"run: runs/{name}-reference" in scrfd_train(*options, cwd=tmp_path)
        kept = json.loads((tmp_path / "runs" / f"{name}-reference" / "run.json").read_text())["recipe"]
        assert kept["crop"]["clip"] == (name == "base_2.5g")
        assert kept["optimiser"]["lr"] == (0.02 if name == "base_2.5g" else 0.01)


def test_minutes_outlast_a_stop(toy_set: Path, tmp_path: Path) -> None:
    """A run that is stopped before it knows its length learns it when it is resumed, from the time that is left."""
    run = tmp_path / "run"
    options = ("--model", "scrfd_500m_kps", "--data", toy_set, *SMALL, "--recipe", "fast", "--minutes", 0.25, "-o", run)
    running = subprocess.Popen(command(*options), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (run / "batches" / "step-00000002.jpg").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    assert running.wait(60) == 130
    words = json.loads((run / "checkpoints" / f"step-{newest(run):08d}.json").read_text())["settings"]
    assert words["spent"] > 0
    assert "steps" not in words
    said = scrfd_train("--resume", run, "--threads", 1)
    assert "steps fit into 0.25 minutes" in said


def test_a_run_is_not_overwritten(toy_set: Path, tmp_path: Path) -> None:
    options = ("--model", "scrfd_500m_kps", "--data", toy_set, *SMALL, "--steps", 1)
    scrfd_train(*options, "-o", tmp_path / "run")
    said = scrfd_train(*options, "-o", tmp_path / "run", code=2)
    assert "holds a training run already" in said
    said = scrfd_train(*options, cwd=tmp_path)
    assert "run: runs/scrfd_500m_kps-reference" in said
    assert "run: runs/scrfd_500m_kps-reference-2" in scrfd_train(*options, cwd=tmp_path)


def test_a_resumed_run_keeps_what_it_was_begun_with(toy_set: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ("--model", "scrfd_500m_kps", "--data", toy_set, *SMALL, "--steps", 2, "--no-compile", "--licence", "CC0")
    scrfd_train(*options, "-o", run)
    said = scrfd_train("--resume", run, "--lr", 3, "--set", "batch=4", code=2)
    assert "--resume: goes on with what the run was begun with; leave --lr, --set out" in said
    scrfd_train("--resume", run, "--workers", 2)
    kept = json.loads((run / "run.json").read_text())
    assert (kept["device"], kept["compile"], kept["workers"], kept["keep"]) == ("cpu", False, 2, 2)
    assert read_header(run / "last.safetensors").licence == "CC0"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--model and --data: both are needed"),
        (("--model", "scrfd_9g", "--data", "."), "scrfd_9g"),
        (("--model", "scrfd_500m_kps", "--data", "nowhere"), "nowhere: there is no such file"),
        (("--resume", "."), "is not the folder of a training run"),
        (("--resume", "{toy}", "--model", "scrfd_500m"), "is not the folder of a training run"),
        (
            ("--model", "scrfd_500m_kps", "--data", "{toy}", "--recipe", "slow"),
            "neither one of reference, fast, finetune",
        ),
        (("--model", "scrfd_500m_kps", "--data", "{toy}", "--set", "lr=3"), "no field 'lr'"),
        (("--model", "scrfd_500m_kps", "--data", "{toy}", "--set", "lr"), "is not FIELD=VALUE"),
        (("--model", "scrfd_500m_kps", "--data", "{toy}", "--size", "100"), "size: 100 is not a multiple of 32"),
        (("--model", "scrfd_500m_kps", "--data", "{toy}", "--device", "tpu"), "device: 'tpu'"),
        (("--model", "scrfd_500m_kps", "--data", "{toy}", "--freeze", "tail"), "freeze: 'tail'"),
        (("--model", "scrfd_500m_kps", "--data", "{toy}", "--keypoints", "68"), "--keypoints 5"),
        (("--model", "scrfd_500m_kps", "--data", "{toy}", "--weights", "scrfd_10g"), "scrfd_10g"),
        (("--model", "scrfd_500m_kps", "--data", "{toy}", "--val", "nowhere"), "nowhere"),
        (("--model", "scrfd_500m_kps", "--data", "{toy}", "--road", "device", "--device", "cpu"), "road: device"),
    ],
)
def test_mistakes_are_named(words: tuple[str, ...], message: str, toy_set: Path, tmp_path: Path) -> None:
    said = scrfd_train(*(word.replace("{toy}", str(toy_set)) for word in words), code=2, cwd=tmp_path)
    assert message in said
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").rglob("*.safetensors"))


def test_it_learns_eight_pictures_by_heart(toy_set: Path, tmp_path: Path) -> None:
    """From random weights to an AP above 0.9 on the pictures that it has seen, in 150 steps."""
    run = tmp_path / "run"
    said = scrfd_train(
        "--model", "scrfd_500m_kps", "--data", toy_set, "--val", toy_set, "--val-every", 0, "--recipe", "fast",
        "--size", 320, "--batch", 8, "--steps", 150, "--lr", 0.004, "--device", "cpu", "-o", run,
        "--set", "crop.ratios=1", "--set", "colour.chance=0", "--set", "colour.swap=0", "--set", "average=0.9",
        "--set", "schedule.warmup=10",
    )  # fmt: skip
    told = json.loads((run / "checkpoints" / "step-00000150.json").read_text())
    assert told["best"]["ap"] > 90, said
    found = log.read(run / "log.jsonl")
    assert found[-1]["kind"] == "validation"
    assert found[-1]["ap"] == pytest.approx(told["best"]["ap"], abs=1e-3)
    losses = [line["loss"] for line in found if line["kind"] == "train"]
    assert losses[-1] < 0.3 * losses[0]
    labels = {image.path: len(image.boxes) for image in formats.read(toy_set)}
    faces = Detector.open(run / "best.safetensors").detect(toy_set / "images" / "astronaut_1.jpg", score_threshold=0.3)
    assert len(faces.boxes) == labels["astronaut_1.jpg"] == 1
    assert faces.keypoints is not None
