"""The table of docs/pictures.md through the entry points: the detector, its batch, and the command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from bad_pictures import files

from scrfdkit import Detector
from scrfdkit.errors import ImageError

NAMES = sorted(files(Path(__file__).resolve().parents[2] / "examples" / "astronaut.jpg"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, examples: Path) -> Path:
    place = tmp_path_factory.mktemp("bad")
    for name, (data, _) in files(examples / "astronaut.jpg").items():
        (place / name).write_bytes(data)
    return place


@pytest.fixture(scope="module")
def expected(examples: Path) -> dict[str, int | None]:
    return {name: faces for name, (_, faces) in files(examples / "astronaut.jpg").items()}


@pytest.mark.parametrize("form", ["path", "bytes", "fixed"])
def test_detector(folder: Path, expected: dict[str, int | None], form: str) -> None:
    detector = Detector.open(device="cpu", input_size=(640, 640) if form == "fixed" else "auto")
    for name, faces in expected.items():
        source = (folder / name).read_bytes() if form == "bytes" else folder / name
        if faces is None:
            with pytest.raises(ImageError, match="bytes" if form == "bytes" else name):
                detector.detect(source)
        else:
            found = detector.detect(source)
            assert len(found) == faces, name
            assert found.keypoints.shape == (faces, 5, 2)


def test_batch_names_the_bad_one(folder: Path, expected: dict[str, int | None]) -> None:
    detector = Detector.open(device="cpu")
    good = [folder / name for name, faces in expected.items() if faces is not None]
    assert [len(f) for f in detector.detect_batch(good)] == [expected[p.name] for p in good]
    with pytest.raises(ImageError, match=r"truncated\.jpg"):
        detector.detect_batch([*good[:3], folder / "truncated.jpg"])


@pytest.mark.parametrize("extra", [[], ["--save-dir", "out", "--crops", "crops"]], ids=["records", "pictures"])
def test_command_goes_on(folder: Path, expected: dict[str, int | None], extra: list[str], tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "scrfdkit", "detect", str(folder), "--json", "-", *extra],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert result.returncode == 3
    assert "Traceback" not in result.stderr
    records = {Path(r["file"]).name: r for r in map(json.loads, result.stdout.splitlines())}
    assert sorted(records) == NAMES
    for name, faces in expected.items():
        if faces is None:
            assert name in records[name]["error"]
            assert name in result.stderr
        else:
            assert len(records[name]["faces"]) == faces, name
    if extra:
        written = [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()]
        assert len(written) == sum(faces is not None for faces in expected.values())
        assert len(list((tmp_path / "crops").rglob("*.png"))) == sum(faces or 0 for faces in expected.values())
