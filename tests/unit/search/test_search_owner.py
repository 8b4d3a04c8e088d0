"""Who works on a candidate, and whether that process is still there."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from scrfdkit.search import owner
from scrfdkit.search.owner import Owner, this_process


def of(pid: int) -> Owner:
    return replace(this_process(), pid=pid, begun=owner._begun(pid) or "")


def test_this_process_is_there() -> None:
    me = this_process()
    assert me.pid == os.getpid()
    assert me.is_gone() is False
    assert Owner.from_dict(me.to_dict()) == me
    assert str(me) == f"{me.host} {me.pid}"


def test_a_process_is_there_until_it_ends() -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True)
    them = of(process.pid)
    assert them.begun
    assert them.is_gone() is False
    process.kill()
    with open(f"/proc/{process.pid}/stat") as stat:  # noqa: PTH123
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert ") Z " in stat.read()
    assert them.is_gone() is True, "its remains, which nobody has collected, are no process"
    process.communicate()
    assert them.is_gone() is True


def test_a_number_that_came_again_is_another_process() -> None:
    assert replace(this_process(), begun="1").is_gone() is True


def test_what_cannot_be_seen_is_not_known() -> None:
    assert replace(this_process(), place="another machine").is_gone() is None


def test_a_hidden_process_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Systems may hide other users' processes in /proc: only their numbers can be asked for then."""
    them = this_process()
    monkeypatch.setattr(owner.Path, "read_bytes", lambda path: (_ for _ in ()).throw(FileNotFoundError()))
    assert them.is_gone() is None
    assert replace(them, pid=2**22 + 1).is_gone() is True


@pytest.mark.parametrize("data", [None, {}, 3, "host 1", {"host": "a", "place": "b", "pid": "x", "begun": "1"}])
def test_anything_else_is_nobody(data: object) -> None:
    assert Owner.from_dict(data) is None
