"""`scrfd export` as its users run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from export_files import noise, outputs_of
from typer.testing import CliRunner

from scrfdkit.cli import app
from scrfdkit.cli.export import TARGETS
from scrfdkit.errors import ScrfdError
from scrfdkit.export import targets


def scrfd(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200"}
    command = [sys.executable, "-m", "scrfdkit", *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, env=environment, check=False)


def test_export_and_use(tmp_path: Path, examples: Path) -> None:
    result = scrfd("export", "scrfd_500m_kps", "-o", "sub/face.onnx", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "scrfd_500m_kps for onnx, fp32: reference layout, any size, any batch"
    assert [line.split(":")[0] for line in lines[2:5]] == ["  1 x 640x640", "  2 x 320x256", "  3 x 192x320"]
    assert "licence: non-commercial research only (WIDER FACE is CC BY-NC-ND 4.0)" in lines
    found = scrfd("detect", "--model", "sub/face.onnx", examples / "astronaut.jpg", cwd=tmp_path)
    assert len(json.loads(found.stdout)["faces"]) == 1
    assert sorted(path.name for path in (tmp_path / "sub").iterdir()) == ["face.onnx", "face.onnx.certificate.json"]
    told = json.loads(scrfd("info", "sub/face.onnx", "--json", cwd=tmp_path).stdout)
    assert told["name"] == "scrfd_500m_kps"

    again = scrfd("export", "sub/face.onnx", "-o", "sub/face.onnx", cwd=tmp_path)
    assert (again.returncode, again.stderr) == (2, "error: sub/face.onnx: is there already; --force overwrites it\n")
    again = scrfd("export", "sub/face.onnx", "-o", "sub/face.onnx", "--force", cwd=tmp_path)
    assert again.stderr == "error: sub/face.onnx: is the network that is exported; name another file\n"
    words = ("--layout", "end2end", "--size", "128x96", "--batch", 2, "--score", 0, "--max-faces", 7, "--force")
    assert scrfd("export", "scrfd_500m_kps", "-o", "faces.onnx", cwd=tmp_path).returncode == 0
    again = scrfd("export", "sub/face.onnx", "-o", "faces.onnx", *words, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "  2 x 128x96: " in again.stdout
    outputs = outputs_of(tmp_path / "faces.onnx", noise(2, 128, 96))
    assert outputs["boxes"].shape == (2, 7, 4)
    assert outputs["counts"].tolist() == [7, 7]
    assert scrfd("verify", "faces.onnx", cwd=tmp_path).stdout.endswith("passed\n")
    refused = scrfd("detect", "--model", "faces.onnx", examples / "astronaut.jpg", cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: faces.onnx: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--to", "onx"), f"--to: 'onx' is not one of {TARGETS}"),
        (("--layout", "rows"), "--layout: 'rows' is not one of ('reference', 'maps', 'end2end')"),
        (("--raw",), "--raw: the reference layout always has its sigmoid; only maps can do without"),
        (("--size", "640"), "--size: '640' is neither WIDTHxHEIGHT, such as 640x480, nor 'dynamic'"),
        (("--size", "640x481"), "--size: 640x481: width and height must be multiples of 32, up to 16384"),
        (("--batch", "some"), "--batch: 'some' is neither a number nor 'dynamic'"),
        (("--batch", "0"), "--batch: 0 is not a number from 1 to 1024"),
        (("--opset", "9"), "--opset: 9 is not a number from 11 to 26"),
        (("--nms", "0.3"), "--nms: is part of an end2end file only; the reference layout leaves it to who reads it"),
        (("--layout", "end2end", "--score", "2"), "--score: 2.0 is not between 0 and 1"),
        (("--layout", "end2end", "--max-faces", "0"), "--max-faces: 0 is not a number from 1 to 10000"),
    ],
)
def test_mistakes_name_their_flag(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(ScrfdError) as found:
        CliRunner().invoke(
            app, ["export", "scrfd_500m_kps", "-o", str(tmp_path / "x.onnx"), *words], catch_exceptions=False
        )
    assert str(found.value) == message
    assert not list(tmp_path.iterdir())


def test_missing_networks(tmp_path: Path) -> None:
    for model, start in (("gone.onnx", "gone.onnx: there is no such file"), ("scrfd_5g", "no network is called")):
        result = scrfd("export", model, "-o", "out.onnx", cwd=tmp_path)
        assert result.returncode == 2
        assert result.stderr.startswith(f"error: {start}")
    assert not list(tmp_path.iterdir())


def test_every_target_can_be_asked_for() -> None:
    """The command lists them without loading what they need."""
    assert sorted(TARGETS) == sorted(targets.TARGETS)


@pytest.mark.parametrize("package", ["onnx", "torch"])
def test_a_missing_package_is_named_with_its_extra(package: str, tmp_path: Path) -> None:
    code = f"import sys; sys.modules[{package!r}] = None; from scrfdkit.cli import main; main()"
    command = [sys.executable, "-c", code, "export", "scrfd_500m_kps", "-o", "out.onnx"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr == f"error: exporting needs the package {package}: pip install 'scrfdkit[export]'\n"
