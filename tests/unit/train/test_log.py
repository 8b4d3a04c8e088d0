"""A run's log: every line whole, nothing told twice after a resume, and no trouble with it stops a run."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import IMAGES, TENSORS, EventAccumulator

from scrfdkit.errors import ScrfdError
from scrfdkit.train.log import BOARD, NAME, RunLog, read


@pytest.fixture
def no_board(monkeypatch: pytest.MonkeyPatch) -> None:
    """As though TensorBoard were not installed."""
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)


def board(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder / BOARD), size_guidance={IMAGES: 0, TENSORS: 0})
    found.Reload()
    return found


def told(folder: Path) -> list[tuple[Any, ...]]:
    return [(line["kind"], line["step"]) for line in read(folder / NAME)]


def test_what_is_told_can_be_read(tmp_path: Path, no_board: None) -> None:
    notes: list[str] = []
    with RunLog(tmp_path / "run", say=notes.append) as log:
        log.train(10, 1, {"scores": torch.tensor(0.5), "lr": 1e-5 / 3, "boxes": math.nan, "gradient": math.inf})
        log.validation(10, 1, {"ap": np.float32(0.25), "unknown": None})
        log.event(11, 2, "Gänse\nweg")
        log.picture(11, "batch", np.zeros((4, 4, 3), np.uint8))
        log.recipe("{}")
        # Whole lines are there at once, for those who look on and for runs that are killed.
        train, validation, event = read(tmp_path / "run" / NAME)
    assert notes == ["note: no TensorBoard files are written: pip install 'scrfdkit[train]' for them"]
    assert abs(train.pop("time") - event.pop("time")) < 60
    assert train == {
        "kind": "train", "step": 10, "epoch": 1, "scores": 0.5, "lr": 3.333333e-06, "boxes": None, "gradient": None,
    }  # fmt: skip
    assert (validation["ap"], validation["unknown"]) == (0.25, None)
    assert event == {"kind": "event", "step": 11, "epoch": 2, "text": "Gänse\nweg"}
    assert [path.name for path in (tmp_path / "run").iterdir()] == [NAME]


def test_names_of_the_line_itself(tmp_path: Path, no_board: None) -> None:
    with RunLog(tmp_path, say=lambda text: None) as log, pytest.raises(ValueError, match="cannot be called step"):
        log.train(1, 1, {"step": 3.0})
    assert read(tmp_path / NAME) == []


def test_resume_drops_what_comes_later(tmp_path: Path, no_board: None) -> None:
    with RunLog(tmp_path, say=lambda text: None) as log:
        for step in (1, 2, 3, 4):
            log.train(step, 1, {"scores": step})
        log.validation(2, 1, {"ap": 0.5})
    with (tmp_path / NAME).open("ab") as file:
        file.write(b'{"kind": "train", "step": 2, "ep')
    assert told(tmp_path) == [("train", 1), ("train", 2), ("train", 3), ("train", 4), ("validation", 2)]
    with RunLog(tmp_path, 2, say=lambda text: None) as log:
        log.train(3, 1, {"scores": 30})
    assert told(tmp_path) == [("train", 1), ("train", 2), ("validation", 2), ("train", 3)]
    assert read(tmp_path / NAME)[-1]["scores"] == 30
    with RunLog(tmp_path, 0, say=lambda text: None):
        assert told(tmp_path) == []


def test_resume_without_a_log_and_a_new_run_over_one(tmp_path: Path, no_board: None) -> None:
    with RunLog(tmp_path, 5, say=lambda text: None) as log:
        log.event(6, 1, "on")
    assert told(tmp_path) == [("event", 6)]
    with RunLog(tmp_path, say=lambda text: None) as log:
        log.event(1, 1, "new")
    assert told(tmp_path) == [("event", 1)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"kind": "train", "step": 1}\nhello\n', f"{NAME}:2: not a line of a training log"),
        (b'[1]\n{"kind": "train", "step": 1}\n', f"{NAME}:1: not a line"),
        (b"\xff\xfe\n", f"{NAME}:1: not a line"),
        (None, "No such file"),
    ],
)
def test_no_log(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / NAME).write_bytes(content)
    with pytest.raises(ScrfdError, match=message):
        read(tmp_path / NAME)


def test_a_cut_that_only_took_the_end_of_the_line(tmp_path: Path, no_board: None) -> None:
    (tmp_path / NAME).write_bytes(b'{"kind": "train", "step": 1}')
    assert told(tmp_path) == [("train", 1)]
    with RunLog(tmp_path, 1, say=lambda text: None) as log:
        log.train(2, 1, {})
    assert told(tmp_path) == [("train", 1), ("train", 2)]


def test_where_no_log_can_be_begun(tmp_path: Path, no_board: None) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ScrfdError, match="cannot be written"):
        RunLog(tmp_path / "file" / "run")


def test_a_full_disk_is_told_once(tmp_path: Path, no_board: None) -> None:
    (tmp_path / NAME).symlink_to("/dev/full")
    notes: list[str] = []
    with RunLog(tmp_path, say=notes.append) as log:
        log.train(1, 1, {"scores": 1})
        log.train(2, 1, {"scores": 1})
    assert notes[1:] == [
        f"warning: {tmp_path / NAME}: cannot be written: No space left on device; the training goes on"
    ]


FULL = """
import resource, sys
from pathlib import Path
from scrfdkit.train.log import RunLog
with RunLog(Path(sys.argv[1]), say=print) as log:
    log.train(1, 1, {"scores": 1})
    size = (Path(sys.argv[1]) / "log.jsonl").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, resource.RLIM_INFINITY))
    for step in (2, 3):
        log.train(step, 1, {"scores": 1})
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    log.train(4, 1, {"scores": 1})
print("done")
"""


def test_a_disk_that_fills_up_and_gets_room_again(tmp_path: Path) -> None:
    """The operating system takes a part of a line, then nothing; TensorBoard's files meet the same fate."""
    result = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "done"
    assert result.stdout.count(f"warning: {tmp_path / NAME}: cannot be written: File too large") == 1
    assert told(tmp_path) == [("train", 1), ("train", 4)]
    assert all(json.loads(line) for line in (tmp_path / NAME).read_bytes().splitlines())


def test_tensorboard_has_the_same(tmp_path: Path) -> None:
    picture = np.zeros((6, 8, 3), np.uint8)
    picture[:, :, 0] = 255  # blue
    with RunLog(tmp_path) as log:
        for step in (1, 2, 3):
            log.train(step, 1, {"scores": step / 2, "lr": 0.01})
        log.validation(2, 1, {"ap": 0.75})
        log.event(3, 1, "stopped at \udc80.jpg")
        log.recipe('{\n  "size": 640\n}')
        log.picture(1, "batch", picture)
    found = board(tmp_path)
    assert sorted(found.Tags()["scalars"]) == ["train/lr", "train/scores", "validation/ap"]
    assert [(s.step, s.value) for s in found.Scalars("train/scores")] == [(1, 0.5), (2, 1.0), (3, 1.5)]
    (image,) = found.Images("batch")
    assert (image.width, image.height) == (8, 6)
    texts = {name: found.Tensors(name)[0].tensor_proto.string_val[0].decode() for name in found.Tags()["tensors"]}
    assert texts["events/text_summary"] == r"stopped at \udc80.jpg"
    assert '  "size": 640' in texts["recipe/text_summary"]


def test_tensorboard_forgets_what_comes_later(tmp_path: Path) -> None:
    with RunLog(tmp_path) as log:
        for step in (1, 2, 3):
            log.train(step, 1, {"scores": step})
    with RunLog(tmp_path, 1) as log:
        log.train(2, 1, {"scores": 20})
    assert [(s.step, s.value) for s in board(tmp_path).Scalars("train/scores")] == [(1, 1.0), (2, 20.0)]
