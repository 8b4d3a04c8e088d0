"""Measured latencies as a value and as a file, and which candidates lack one; nothing here runs a network."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scrfdkit import atomic
from scrfdkit.data.words import plural
from scrfdkit.errors import ScrfdError
from scrfdkit.search.candidate import Candidate
from scrfdkit.spec import ModelSpec

FORMAT = "scrfdkit-latency-1"


@dataclass(frozen=True)
class Latencies:
    """Milliseconds a picture, by the candidates' numbers, and what they were measured with.

    networks: the `digest` of each spec that was measured. failed: why a candidate's network could not be run.
    reference: milliseconds of the reference network. runtime: with its version. machine: as `scrfdkit.machine` says.
    """

    milliseconds: Mapping[int, float]
    networks: Mapping[int, str]
    failed: Mapping[int, str]
    reference: float
    rounds: int
    width: int
    height: int
    threads: int
    runtime: str
    machine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def setting(self) -> tuple[Any, ...]:
        """What two results must share for their times to be compared."""
        return self.width, self.height, self.threads, self.runtime, dict(self.machine)

    def words(self) -> str:
        """How and where it was measured, in one line."""
        place = f"{self.machine.get('cpu', 'a processor')} ({plural(self.machine.get('cores', 1), 'core')})"
        how = f"{self.width}x{self.height}, {self.runtime}, {plural(self.threads, 'thread')}"
        failed = f"; {plural(len(self.failed), 'network')} could not be run" if self.failed else ""
        return f"{how}, {place}: median of {plural(self.rounds, 'run')}, all networks in turn{failed}"

    def to_json(self) -> str:
        """Readable JSON; `from_json` gives back an equal value."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Latencies:
        """Raises ScrfdError for anything else."""
        try:
            data = json.loads(text)
            if data.pop("format") != FORMAT:
                raise ValueError(f"the format is not {FORMAT}")
            for name in ("milliseconds", "networks", "failed"):
                data[name] = {int(number): value for number, value in data[name].items()}
            found = cls(**data)
            times = [found.reference, *found.milliseconds.values()]
            if not all(type(ms) in (int, float) and 0 < ms < math.inf for ms in times):
                raise ValueError("a time is not a number above 0")
            if found.milliseconds.keys() != found.networks.keys():
                raise ValueError("milliseconds and networks are not of the same candidates")
            whole = (found.rounds, found.width, found.height, found.threads)
            if not all(type(value) is int for value in whole) or type(found.machine) is not dict:
                raise ValueError("the setting is not complete")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ScrfdError(f"these are not measured latencies: {error}") from None
        return found


def save(path: Path, latencies: Latencies) -> None:
    """Writes them. Raises ScrfdError where the file cannot be written."""
    atomic.save(path, latencies.to_json().encode())


def load(path: Path) -> Latencies | None:
    """Reads them, None where there is no such file. Raises ScrfdError for one that is damaged."""
    try:
        return Latencies.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ScrfdError(f"{path}: cannot be read: {error}") from None
    except ScrfdError as error:
        raise ScrfdError(f"{path}: damaged: {error}; remove it to measure again") from None


def missing(candidates: Sequence[Candidate], latencies: Latencies | None) -> list[Candidate]:
    """Those that have no time there, or that of another network."""
    known = {} if latencies is None else latencies.networks
    return [candidate for candidate in candidates if known.get(candidate.number) != digest(candidate.spec)]


def digest(spec: ModelSpec) -> str:
    """Of a network's spec: equal ones have the same."""
    return hashlib.sha256(spec.to_json().encode()).hexdigest()[:16]
