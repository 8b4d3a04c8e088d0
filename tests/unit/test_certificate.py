"""The record beside an exported file: whole round trips, and every way in which record and file can part."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scrfdkit import atomic, certificate
from scrfdkit.certificate import Certificate
from scrfdkit.errors import ModelError


def record(folder: Path, **changes: Any) -> Certificate:
    files = {name: atomic.sha256(folder / name) for name in ("face.xml", "face.bin")}
    plain = Certificate(
        "openvino", "fp32", {"layout": "maps"}, files, 7, {"name": "small"}, "small", "", {"n": 1}, True
    )
    return replace(plain, **changes)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "face.xml").write_text("net")
    (tmp_path / "face.bin").write_bytes(b"data")
    path = tmp_path / "face.xml"
    certificate.beside(path).write_text(record(tmp_path).to_json())
    return path


def test_round_trip(model: Path) -> None:
    assert certificate.beside(model).name == "face.xml.certificate.json"
    assert certificate.check(model) == certificate.read(model) == record(model.parent)


def test_no_record_is_no_fault(tmp_path: Path) -> None:
    assert certificate.check(tmp_path / "face.xml") is None


def test_a_changed_file_is_named(model: Path) -> None:
    model.with_suffix(".bin").write_bytes(b"dat4")
    with pytest.raises(ModelError, match=r"face\.bin: its sha256 is not the [0-9a-f]{12}.*was changed"):
        certificate.check(model)


def test_a_missing_companion_is_named(model: Path) -> None:
    model.with_suffix(".bin").unlink()
    with pytest.raises(ModelError, match=r"face\.bin: cannot be read: No such file"):
        certificate.check(model)


def test_a_record_of_another_file_is_refused(model: Path) -> None:
    other = model.with_name("other.xml")
    other.write_text("net")
    certificate.beside(model).rename(certificate.beside(other))
    with pytest.raises(ModelError, match=r"is of face\.xml, face\.bin, not of other\.xml"):
        certificate.check(other)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "other"},
        {"files": {"face.xml": 3}},
        {"files": ["face.xml"]},
        {"files": {"/etc/passwd": "0"}},
        {"files": {"../face.xml": "0"}},
        {"metadata": {"spec": {}}},
        {"passed": "yes"},
        {"num_bytes": None},
    ],
)
def test_damaged_records_are_refused(change: dict[str, Any], model: Path) -> None:
    path = certificate.beside(model)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match=r"face\.xml\.certificate\.json: is no certificate: "):
        certificate.check(model)


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "[" * 100_000, "\xff"])
def test_what_is_no_record_at_all(text: str, model: Path) -> None:
    certificate.beside(model).write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match="is no certificate"):
        certificate.check(model)
