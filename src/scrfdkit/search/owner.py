"""Who works on a candidate, and whether that process is still there."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HIDDEN = ""
"""Start of a process that is there, but of which no more can be seen."""


@dataclass(frozen=True)
class Owner:
    """A process. host, place: its machine by name, and exactly: start of the system and space of process numbers, so
    that containers are told apart. begun: when the process was started, as its number may come again."""

    host: str
    place: str
    pid: int
    begun: str

    def __str__(self) -> str:
        return f"{self.host} {self.pid}" if self.pid else self.host

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"host": self.host, "place": self.place, "pid": self.pid, "begun": self.begun}

    @classmethod
    def from_dict(cls, data: Any) -> Owner | None:
        """None for anything else."""
        try:
            return cls(str(data["host"]), str(data["place"]), int(data["pid"]), str(data["begun"]))
        except (KeyError, TypeError, ValueError):
            return None

    def is_gone(self) -> bool | None:
        """Whether the process has ended; None where that cannot be seen from here, as it ran in another place, or as
        the system hides the processes of other users."""
        if self.place != _place():
            return None
        begun = _begun(self.pid)
        if begun is None:
            return True
        if begun == _HIDDEN != self.begun:
            return None
        return begun != self.begun


UNKNOWN = Owner("a runner that has not said who it is", "", 0, "")


def this_process() -> Owner:
    """The process that asks."""
    return Owner(socket.gethostname(), _place(), os.getpid(), _begun(os.getpid()) or _HIDDEN)


def _place() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115
    except OSError:
        return socket.gethostname()


def _begun(pid: int) -> str | None:
    """Start of a process in ticks of its system; None where there is none, or only its remains."""
    try:
        # After the name, which may hold anything, come the state and, nineteen fields on, the start.
        words = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return None if words[0] in (b"Z", b"X") else words[19].decode()
    except OSError:  # ended, hidden, or on a system without /proc
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except (PermissionError, OverflowError):
        pass
    return _HIDDEN
