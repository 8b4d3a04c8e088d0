"""`scrfd bench` of a file, and of the network alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from export_files import SPECS, export, source
from typer.testing import CliRunner

from scrfdkit.benchmark.latency import network
from scrfdkit.cli import bench
from scrfdkit.detector import Detector
from scrfdkit.errors import ModelError, OptionError
from scrfdkit.export.contract import Contract
from scrfdkit.types import Floats
from scrfdkit.weights import embedded

app = typer.Typer()
app.command("bench")(bench.command)


def run(*words: object) -> str:
    """What is printed; an error is raised."""
    return str(CliRunner().invoke(app, [str(w) for w in words], catch_exceptions=False).stdout)


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network for two pictures of 128x96."""
    place = tmp_path_factory.mktemp("bench") / "small.onnx"
    return export(source(SPECS["basic, bn"]), place, Contract(size=(128, 96), batch=2)).path


def test_sizes_and_batch_of_a_file(tmp_path: Path) -> None:
    words = (embedded(".onnx"), "--iterations", 4, "--warmup", 1, "--batch", 3, "--size", "96x64", "--size", 160)
    record = json.loads(run(*words, "--json", "-"))
    assert (record["batch"], record["iterations"], record["threads"]) == (3, 4, 1)
    assert record["model"] == str(embedded(".onnx"))
    assert [row["input_size"] for row in record["rows"]] == [[96, 64], [160, 160]]
    for row in record["rows"]:
        times = row["milliseconds"]
        assert 0 < times["min"] <= times["median"] <= times["p95"]
        assert row["pictures_per_second"] == pytest.approx(3000 / times["median"], rel=0.01)
        assert record["machine"]["cores"] > 0
    table = run(*words, "--json", tmp_path / "out.json")
    assert "4 runs of the network alone" in table and "pictures a second" in table and "96x64" in table
    assert json.loads((tmp_path / "out.json").read_text())["rows"][0]["input_size"] == [96, 64]


def test_the_only_size_and_batch_of_a_network_are_taken(fixed: Path) -> None:
    record = json.loads(run(fixed, "--iterations", 2, "--json", "-"))
    assert (record["batch"], record["rows"][0]["input_size"]) == (2, [128, 96])
    with pytest.raises(OptionError, match=r"--batch: .*small\.onnx takes 2 picture\(s\) a run, not 1"):
        run(fixed, "--iterations", 2, "--batch", 1)
    with pytest.raises(OptionError, match=r"--size: .* takes\s+128x96 only"):
        run(fixed, "--iterations", 2, "--size", "64x64")


def test_a_file_may_be_named_beside_pictures(fixed: Path, examples: Path) -> None:
    record = json.loads(run(examples / "astronaut.jpg", fixed, "--repeat", 1, "--warmup", 0, "--json", "-"))
    assert (record["model"], record["pictures"]) == (str(fixed), 1)
    assert "decode" in record["rows"][0]["milliseconds"]


def test_mistakes(fixed: Path, examples: Path) -> None:
    with pytest.raises(OptionError, match="--model: one network at a time is measured"):
        run(fixed, "--model", "scrfd_500m_kps")
    with pytest.raises(OptionError, match="--iterations: the network alone needs no pictures"):
        run(fixed, examples / "astronaut.jpg", "--iterations", 2)
    with pytest.raises(ModelError, match=r"gone\.onnx: there is no such file"):
        run("gone.onnx", "--iterations", 2)


def test_only_runs_after_the_warm_up_are_told() -> None:
    runtime: Any = Detector.open(device="cpu", threads=1).runtime
    blobs: list[tuple[int, ...]] = []
    seen: list[int] = []

    class Counted:
        def run(self, blob: Floats) -> Any:
            blobs.append(blob.shape)
            return runtime.run(blob)

    blob = bench._blob(Detector.open(device="cpu", threads=1), (64, 32), 2)
    assert (blob.shape, blob.dtype) == ((2, 3, 32, 64), "float32")
    assert (blob[0] == blob[1]).all() and blob.std() > 0.1
    network(Counted(), blob, repeat=3, warmup=2, progress=seen.append)  # type: ignore[arg-type]
    assert (blobs, seen) == ([(2, 3, 32, 64)] * 5, [1, 2, 3])
