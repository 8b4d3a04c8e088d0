"""The record beside an exported file: what it is, where it came from, its hashes, and how it compares with PyTorch.

Formats that have no place for a description of their own are described by it; whoever opens a file that has one gets
the hashes checked first.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from scrfdkit import atomic
from scrfdkit.errors import ModelError

FORMAT = "scrfdkit-certificate-1"
SUFFIX = ".certificate.json"
_MOST_BYTES = 16 << 20
"""A record has some kilobytes; what is larger is none."""


@dataclass(frozen=True)
class Certificate:
    """What is known of an exported file.

    target: its format, a word of `scrfd export --to`. precision: fp32, fp16 or int8. contract: layout, size, batch and
    so on, as plain data. files: sha256 of each file by its name, which is beside the record. num_bytes: of all of them.
    metadata: what the weights say of themselves, "spec" among them. source: name or path of the weights, as given.
    source_sha256: of that file. measured: comparison with PyTorch, as plain data; without "parity" where the file could
    not be run. passed: whether what was measured is good enough; None where it could not be run.
    """

    target: str
    precision: str
    contract: Mapping[str, Any]
    files: Mapping[str, str]
    num_bytes: int
    metadata: Mapping[str, str]
    source: str
    source_sha256: str
    measured: Mapping[str, Any] = field(default_factory=dict)
    passed: bool | None = None

    def to_json(self) -> str:
        """An object with the fields and the format's name."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n"

    @staticmethod
    def from_json(text: str) -> Certificate:
        """Reads what `to_json` writes. Raises ValueError for anything else."""
        data = json.loads(text)
        if not isinstance(data, dict) or data.pop("format", None) != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        kinds: dict[str, Any] = {
            "target": str, "precision": str, "contract": dict, "files": dict, "num_bytes": int, "metadata": dict,
            "source": str, "source_sha256": str, "measured": dict, "passed": bool | None,
        }  # fmt: skip
        for name in (f.name for f in fields(Certificate)):
            if name not in data or not isinstance(data[name], kinds[name]):
                raise ValueError(f"{name} is missing or of the wrong kind")
        for name in ("files", "metadata"):
            if not all(isinstance(value, str) for value in data[name].values()):
                raise ValueError(f"{name} must hold text only")
        for name in data["files"]:
            if Path(name).is_absolute() or ".." in Path(name).parts or not name.isprintable():
                raise ValueError("files must be beside the record")
        return Certificate(**{f.name: data[f.name] for f in fields(Certificate)})


def beside(path: Path) -> Path:
    """Where the record of a file is."""
    path = _named(path)
    return path.with_name(path.name + SUFFIX)


def _named(path: Path) -> Path:
    """The path with its last part, which "." and ".." lack."""
    return path if path.name not in ("", "..") else Path(os.path.abspath(path))  # noqa: PTH100


def read(path: Path) -> Certificate | None:
    """The record of an exported file, or None. Raises ModelError if the record is damaged."""
    record = beside(path)
    if not atomic.is_file(record):
        return None
    try:
        if record.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES} bytes")
        return Certificate.from_json(record.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{record}: is no certificate: {error}; remove it, or export {path.name} again") from None


def check(path: Path) -> Certificate | None:
    """The record of an exported file, after comparing every file with its hash; None where there is no record.

    Raises ModelError, naming the file that is missing or was changed.
    """
    found = read(path)
    if found is None:
        return None
    path = _named(path)
    if atomic.is_folder(path):
        _check_members(path, found)
    elif path.name not in found.files:
        raise ModelError(f"{beside(path)}: is of {', '.join(found.files)}, not of {path.name}; remove it")
    for name, wanted in found.files.items():
        member = path.parent / name
        if atomic.is_special(member):
            raise ModelError(f"{member}: is no regular file")
        try:
            digest = atomic.sha256(member)
        except OSError as error:
            raise ModelError(f"{member}: cannot be read: {error.strerror or error}") from None
        if digest != wanted:
            raise ModelError(
                f"{member}: its sha256 is not the {wanted[:12]}... of its certificate: the file was changed. Export it"
                f" again, or remove {beside(path).name} if the change is yours"
            )
    return found


def _check_members(folder: Path, found: Certificate) -> None:
    """Raises ModelError where a folder has other files than its record: a server would load them too."""
    there = {f.relative_to(folder.parent).as_posix() for f in folder.rglob("*") if f.is_file() and f.suffix != ".pyc"}
    for name in sorted(there ^ set(found.files)):
        fault = "is not in its certificate" if name in there else "is missing"
        record = beside(folder).name
        raise ModelError(f"{folder.parent / name}: {fault}; export {folder.name} again, or remove {record}")
    if not there:
        raise ModelError(f"{folder}: is empty; remove {beside(folder).name}")
