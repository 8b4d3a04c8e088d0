"""Processes: who they are, what they tell one another, and what is wrong with how they were started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from worlds import together

from scrfdkit.errors import DeviceError, OptionError, ScrfdError
from scrfdkit.train.processes import Processes, start

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def talk(folder: Path) -> dict[str, Any]:
    """In each of two processes."""
    me = start("cpu")
    said: dict[str, Any] = {"me": (me.rank, me.world, me.local_rank, str(me.device), me.is_first)}
    own = torch.tensor([1.0, 10.0 * me.rank], requires_grad=True)
    said["total"] = me.total(own)
    said["own"] = own.detach()
    said["heard"] = me.gather("é" * me.rank)
    if not me.is_first:
        (folder / "second was here").touch()
    me.wait()
    said["met"] = (folder / "second was here").exists()
    me.agree({"recipe": "{}", "pictures": "abc"})
    try:
        me.agree({"recipe": f"{me.rank}", "pictures": "abc", "version": "1"} | ({"device": "x"} if me.rank else {}))
    except OptionError as error:
        said["error"] = str(error)
    said["still"] = float(me.total(torch.ones(())))
    me.stop()
    return said


def test_two_processes(tmp_path: Path) -> None:
    first, second = together(talk, tmp_path)
    assert first["me"] == (0, 2, 0, "cpu", True)
    assert second["me"] == (1, 2, 1, "cpu", False)
    for said in (first, second):
        assert said["total"].tolist() == [2.0, 10.0]
        assert not said["total"].requires_grad
        assert said["heard"] == ["", "é"]
        assert said["met"]
        assert "recipe of rank 1; device of rank 1 is not that of rank 0" in said["error"]
        assert "pictures" not in said["error"]
        assert said["still"] == 2
    assert first["own"].tolist() == [1.0, 0.0]


def test_one_process_needs_no_others() -> None:
    me = start("cpu")
    assert me == Processes(0, 1, 0, torch.device("cpu"))
    tensor = torch.ones(2)
    assert me.total(tensor) is tensor
    me.wait()
    me.agree({"recipe": "{}"})
    assert me.gather("x") == ["x"]
    me.stop()
    assert not torch.distributed.is_initialized()


def test_torchrun_with_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(NAMES, ("0", "1", "0", "localhost", "1"), strict=True):
        monkeypatch.setenv(name, value)
    assert start("cpu").world == 1
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(("batch", "accumulate", "share"), [(32, 1, 8), (32, 2, 4), (8, 2, 1)])
def test_a_batch_is_dealt_out(batch: int, accumulate: int, share: int) -> None:
    assert Processes(0, 4, 0, torch.device("cpu")).share(batch, accumulate) == share


@pytest.mark.parametrize(("batch", "near"), [(30, "24 or 32"), (7, "like 8")])
def test_a_batch_that_cannot_be_dealt_out_is_refused(batch: int, near: str) -> None:
    with pytest.raises(
        OptionError, match=rf"batch: {batch} pictures .* 4 processes in 2 parts .*multiple of 8.*{near}"
    ):
        Processes(3, 4, 3, torch.device("cpu")).share(batch, 2)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "0"}, "WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set"),
        ({"WORLD_SIZE": "2"}, "RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not set"),
        (dict.fromkeys(NAMES, "x"), "must be whole numbers"),
        (dict.fromkeys(NAMES, "2"), "RANK 2 and LOCAL_RANK 2 do not fit WORLD_SIZE 2"),
    ],
)
def test_a_half_set_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], message: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(OptionError, match=message):
        start("cpu")


def test_processes_that_cannot_meet_say_where(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(NAMES, ("0", "2", "0", "127.0.0.1", "not a port"), strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(ScrfdError, match=r"the 2 processes do not meet at 127.0.0.1:not a port"):
        start("cpu")


@pytest.mark.parametrize("word", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "auto:1", ""])
def test_other_words_for_a_device_are_refused(word: str) -> None:
    with pytest.raises(OptionError, match="is none of auto, cpu, cuda, cuda:N"):
        start(word)


def test_a_gpu_that_is_not_there_is_not_replaced() -> None:
    with pytest.raises(DeviceError, match=r"device: cuda:99: GPU 99 is needed, "):
        start("cuda:99")


def test_one_gpu_is_not_for_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(NAMES, ("0", "2", "0", "localhost", "1"), strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(OptionError, match="2 processes need one each; use cuda"):
        start("cuda:0")


@pytest.mark.gpu
def test_auto_takes_the_gpu() -> None:
    assert start("auto").device == torch.device("cuda", 0)
