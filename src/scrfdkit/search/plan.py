"""A search as it was planned, in its folder: the space, the seed, and every candidate. Nothing in it ever changes."""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from scrfdkit import atomic
from scrfdkit.errors import OptionError, ScrfdError
from scrfdkit.search import space as spaces
from scrfdkit.search.candidate import Candidate
from scrfdkit.search.space import Space
from scrfdkit.spec import ModelSpec

FILE = "search.json"
FORMAT = "scrfdkit-search-1"
STORE = "store.db"
"""SQLite file of the study, where the plan names no other database."""


@dataclass(frozen=True)
class Plan:
    """space, seed, candidates: what is compared; drawn, accepted: as in `draw.Sample`. study: its name in the store.
    storage: a database's URL, as SQLAlchemy has them, or None for `STORE` in the folder. origin: where the template
    comes from, in words. folder: where it was read from."""

    space: Space
    seed: int
    candidates: tuple[Candidate, ...]
    drawn: int
    accepted: int
    study: str
    storage: str | None = None
    origin: str = ""
    folder: Path = Path()

    def candidate(self, number: int) -> Candidate:
        """Raises OptionError for a number that is not there."""
        if not 1 <= number <= len(self.candidates):
            raise OptionError(f"candidate {number}: there are 1 to {len(self.candidates)} in {self.folder}")
        return self.candidates[number - 1]

    def url(self) -> str:
        """Of the database, for SQLAlchemy."""
        return self.storage or f"sqlite:///{(self.folder / STORE).absolute()}"

    def place(self) -> str:
        """The same for messages, without a password."""
        if not self.storage:
            return str(self.folder / STORE)
        return re.sub(r"(?<=password=)[^&]*", "***", re.sub(r"(://[^:@/]*):[^@]*@", r"\1:***@", self.storage))

    def run_folder(self, candidate: Candidate) -> Path:
        """Where a candidate is trained: a folder of `scrfd train`."""
        return self.folder / "candidates" / candidate.name

    def to_json(self) -> str:
        """Readable JSON; `load` gives back an equal value but for the folder."""
        words = {name: getattr(self, name) for name in ("seed", "drawn", "accepted", "study", "storage", "origin")}
        rows = [
            {**asdict(candidate), "spec": json.loads(candidate.spec.to_json())}
            for candidate in self.candidates  # one a line, to be read and compared
        ]
        lines = ",\n  ".join(json.dumps(row, separators=(",", ":")) for row in rows)
        head = json.dumps({"format": FORMAT, **words}, indent=1)[:-2]
        space = json.dumps(spaces.to_dict(self.space))
        return f'{head},\n "space": {space},\n "candidates": [\n  {lines}\n ]\n}}\n'


def make(
    space: Space,
    candidates: tuple[Candidate, ...],
    seed: int,
    drawn: int,
    accepted: int,
    storage: str | None = None,
    origin: str = "",
) -> Plan:
    """A plan with a study name that no other has. Raises OptionError for a storage that would not last."""
    study = f"scrfd-{uuid.uuid4().hex[:12]}"
    return Plan(space, seed, candidates, drawn, accepted, study, storage and _lasting(storage), origin)


def _lasting(storage: str) -> str:
    """The same database, also for a run that is begun in another folder."""
    if not storage.startswith("sqlite"):
        return storage
    kind, _, rest = storage.partition(":///")
    if not rest or rest.startswith(":memory:"):
        raise OptionError(
            f"--storage {storage}: is gone when this command ends; name a file, as in sqlite:////DIR/FILE"
        )
    return storage if rest.startswith("file:") else f"{kind}:///{Path(rest).absolute()}"


def save(plan: Plan, folder: Path, fill: Callable[[Plan], None]) -> Plan:
    """Makes the folder of a search, all of it or nothing. fill: puts the candidates into the plan's store, which is
    in the folder while that still has another name.

    Raises OptionError where there is something in the folder already, ScrfdError where it cannot be written.
    """
    if (folder / FILE).exists():
        raise OptionError(f"--output: {folder} holds a search already; go on with `scrfd search run {folder}`")
    if folder.resolve() == Path.cwd():
        raise OptionError(f"--output: {folder} is the folder that you are in; name another one, which is made")
    aside = folder.absolute().with_name(f".{plan.study}.partial")
    try:
        if folder.exists() and any(folder.iterdir()):
            raise OptionError(f"--output: {folder} is not empty; name another folder")
        aside.mkdir(parents=True)
        fill(replace(plan, folder=aside))
        atomic.save(aside / FILE, plan.to_json().encode())
        aside.replace(folder)
    except OSError as error:
        raise atomic.write_error(folder, error) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return replace(plan, folder=folder)


def load(folder: Path) -> Plan:
    """The plan of a search's folder. Raises OptionError where there is none, ScrfdError where it is damaged."""
    path = folder / FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise OptionError(
            f"{folder}: is no folder of a search; begin one with `scrfd search plan -o {folder}`"
        ) from None
    except OSError as error:
        raise ScrfdError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise ScrfdError(f"{path}: damaged: {error}") from None
    try:
        if not isinstance(data, dict):
            raise ValueError("a search is a JSON object")
        if data["format"] != FORMAT:
            raise ValueError(f"its format is {data['format']!r}, not {FORMAT!r}")
        words = {name: data[name] for name in ("seed", "drawn", "accepted", "study", "storage", "origin")}
        _check_types(words)
        candidates = tuple(_candidate(row) for row in data["candidates"])
        if [c.number for c in candidates] != list(range(1, len(candidates) + 1)):
            raise ValueError("its candidates are not numbered from 1 on")
        return Plan(spaces.from_dict(data["space"]), candidates=candidates, folder=folder, **words)
    except KeyError as error:
        raise ScrfdError(f"{path}: damaged: {error} is missing") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ScrfdError(f"{path}: damaged: {error}") from None


def _check_types(words: dict[str, Any]) -> None:
    for name, value in words.items():
        kind = int if name in ("seed", "drawn", "accepted") else str
        if type(value) is not kind and not (name == "storage" and value is None):
            raise ValueError(f"{name}: {value!r:.100} is no {kind.__name__}")


def _candidate(row: dict[str, Any]) -> Candidate:
    recipe = {name: tuple(value) if isinstance(value, list) else value for name, value in row["recipe"].items()}
    traits = {name: float(value) for name, value in row["traits"].items()}
    return Candidate(int(row["number"]), ModelSpec.from_json(json.dumps(row["spec"])), recipe, traits)
