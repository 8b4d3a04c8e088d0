"""docs/train.md does what it says: its commands run in their order on a toy set, from labels to a file that detects."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

import wider_files  # noqa: E402

from scrfdkit import Detector  # noqa: E402
from scrfdkit.cli import app  # noqa: E402
from scrfdkit.data import formats  # noqa: E402
from scrfdkit.model.checkpoint import load  # noqa: E402
from scrfdkit.spec import ModelSpec  # noqa: E402
from scrfdkit.train import log  # noqa: E402
from scrfdkit.train.recipes import RECIPES  # noqa: E402
from scrfdkit.weights import find  # noqa: E402

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "train.md").read_text()
SMALL = ("--size", "96", "--batch", "2", "--steps", "3", "--workers", "1")
LENGTHS = {
    "runs/first": (),  # as the guide has it
    "runs/two": (),
    "runs/faces": ("--size", "320", "--batch", "4", "--steps", "16"),  # long enough to be stopped, and to stay good
}
"""What is added to a training of the guide, by its folder; SMALL to any other."""


def blocks(language: str) -> list[str]:
    """Fenced blocks in a language; "" for commands that one machine without a GPU can run."""
    return [body for name, body in re.findall(r"^```(\w*)\n(.*?)^```$", GUIDE, re.M | re.S) if name == language]


def arguments(line: str) -> list[str]:
    """The words of a line of the guide, with what makes a training short."""
    words = shlex.split(line)
    if "train" in words and "--resume" not in words:
        words += LENGTHS.get(words[words.index("-o") + 1], SMALL)
    return words


def program(words: list[str]) -> list[str]:
    modules = {"scrfd": "scrfdkit", "torchrun": "torch.distributed.run"}
    return [sys.executable, "-m", modules[words[0]], *words[1:]]


def run(words: list[str]) -> str:
    """What a program prints."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr
    return done.stdout


def call(words: list[str]) -> str:
    """The same within this process, where torch is there already."""
    done = CliRunner().invoke(app, words[1:], catch_exceptions=False)
    assert done.exit_code == 0, f"{shlex.join(words)}\n{done.output}"
    return done.stdout


def start(words: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")


def stop(words: list[str], folder: Path) -> None:
    """Starts a training and presses Ctrl-C in its third step."""
    running = start(words)
    deadline = time.monotonic() + 120
    while not (folder / "batches" / "step-00000002.jpg").exists() and time.monotonic() < deadline:
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, out + err
    assert f"go on with: scrfd train --resume {folder}" in out


@pytest.fixture
def place(tmp_path: Path, toy_set: Path, examples: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with everything that the guide names."""
    for name in ("faces", "val", "widerface/train"):
        shutil.copytree(toy_set, tmp_path / name)
        labels = formats.read(tmp_path / name)
        for image in labels:
            np.clip(image.boxes, 0, 320, out=image.boxes)  # `scrfd data check` minds those that reach over the edge
        formats.write(labels, tmp_path / name / "labelv2.txt", "labelv2")
    wider_files.write_pictures(tmp_path / "widerface" / "val" / "images")
    wider_files.write_ground_truth(tmp_path / "widerface" / "gt")
    shutil.copytree(toy_set / "images", tmp_path / "cats")
    with (tmp_path / "cats.csv").open("w") as file:
        table = csv.writer(file)
        table.writerow(["file", "x1", "y1", "x2", "y2", *(f"{name}_{axis}" for name in "abc" for axis in "xy")])
        for image in formats.read(tmp_path / "faces"):
            for box, points in zip(image.boxes, image.keypoints, strict=True):  # type: ignore[arg-type]
                table.writerow([image.path, *box.tolist(), *points[:3, :2].reshape(-1).tolist()])
    shutil.copy(examples / "astronaut.jpg", tmp_path / "photo.jpg")
    (tmp_path / "mine.json").write_text(next(block for block in blocks("json") if '"mine"' in block))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SCRFDKIT_WEIGHTS", str(tmp_path / "weights"))
    # Threads that share a core with other tests spend their time waiting for each other.
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


def steps(folder: str) -> list[int]:
    """Steps that the log of a run tells of."""
    return [line["step"] for line in log.read(Path(folder) / "log.jsonl") if line["kind"] == "train"]


def spec(folder: str) -> ModelSpec:
    return load(Path(folder) / "last.safetensors")[1].spec


def told(folder: str) -> Any:
    return json.loads((Path(folder) / "run.json").read_text())


def it_is_resumed_to_its_end() -> None:
    found = steps("runs/faces")
    assert found == sorted(set(found))
    assert found[-1] == 16
    scored = [line for line in log.read(Path("runs/faces/log.jsonl")) if line["kind"] == "validation"]
    assert [line["step"] for line in scored] == [2, 4, 6, 8, 10, 12, 14, 16]  # every epoch of so few
    best = max(scored, key=lambda line: line["score"])
    assert load(Path("runs/faces/best.safetensors"))[1].metrics["step"] == best["step"]


def the_exported_file_finds_the_same_faces() -> None:
    ours, theirs = (Detector.open(file).detect("photo.jpg") for file in ("runs/faces/best.safetensors", "face.onnx"))
    assert len(ours) == len(theirs) == 1
    assert ours.keypoints is not None
    assert theirs.keypoints is not None
    assert np.allclose(ours.boxes, theirs.boxes, atol=0.02)
    assert np.allclose(ours.keypoints, theirs.keypoints, atol=0.02)
    assert np.allclose(ours.scores, theirs.scores, atol=1e-4)


def the_stem_is_frozen() -> None:
    files = find("scrfd_500m_kps", (".safetensors",)), Path("runs/frozen/last.safetensors")
    before, after = (load(path)[0].state_dict() for path in files)
    same = {name for name, value in before.items() if torch.equal(value, after[name])}
    assert {name for name in before if name.startswith(("backbone.stem.", "backbone.layer1."))} <= same
    assert "neck.fpn_convs.0.conv.weight" not in same


CHECKS: dict[str, Callable[[], None]] = {
    "runs/first": lambda: ensure(steps("runs/first")[-1] == 20 and Path("runs/first/last.safetensors").is_file()),
    "--resume": it_is_resumed_to_its_end,
    "runs/cats": lambda: ensure(spec("runs/cats").head.num_keypoints == 3),
    "runs/boxes": lambda: ensure(spec("runs/boxes").head.num_keypoints == 0),
    "runs/gn": lambda: ensure(spec("runs/gn").head.norm == "gn"),
    "runs/frozen": the_stem_is_frozen,
    "runs/mine": lambda: ensure(told("runs/mine")["recipe"]["schedule"]["shape"] == "cosine"),
    "runs/set": lambda: ensure(told("runs/set")["recipe"]["crop"]["ratios"] == [0.6, 1, 1.4]),
    "runs/close": lambda: ensure(told("runs/close")["recipe"]["crop"]["close_ups"] == 0.2),
    "runs/wider": lambda: ensure("hard" in log.read(Path("runs/wider/log.jsonl"))[-1]),
    "runs/two": lambda: ensure(steps("runs/two")[-1] == 10),
    "export": the_exported_file_finds_the_same_faces,
}
"""What must be so after a command, by a word of it."""


def ensure(truth: bool) -> None:
    assert truth


def test_its_commands_in_their_order(place: Path) -> None:
    checked = set()
    for line in "".join(blocks("")).splitlines():
        words = arguments(line)
        if "runs/faces" in words and "--resume" not in words:
            stop(program(words), Path("runs/faces"))
            continue
        alone = words[0] == "torchrun" or words[1] != "train" or {"runs/first", "--resume"} & set(words)
        out = run(program(words)) if alone else call(words)
        if "detect" in words:
            assert len(json.loads(out)["faces"]) == 1
        for word in set(CHECKS) & set(shlex.split(line)) - checked:
            CHECKS[word]()
            checked.add(word)
    assert checked == set(CHECKS)
    assert (place / "sheet.jpg").is_file()


def test_two_machines(place: Path) -> None:
    """The guide's line, with one process a machine, both of which are this one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = next(line for block in blocks("sh") for line in block.splitlines() if "--nnodes" in line)
    line = line.replace("machine1:29500", f"127.0.0.1:{port}").replace("--nproc-per-node 8", "--nproc-per-node 1")
    words = [*arguments(line), "--model", "scrfd_500m_kps", "--device", "cpu", "--steps", "2"]
    first = start(program(words))
    try:
        wait_for_port(port)  # on one machine both would offer the meeting place
        second = start(program(words))
        try:
            heard = [machine.communicate(timeout=120) for machine in (first, second)]
        finally:
            second.kill()
    finally:
        first.kill()
    assert [first.returncode, second.returncode] == [0, 0], heard
    assert "".join(out for out, _ in heard).count("weights after 2 steps") == 1
    assert steps("runs/cluster") == [2]


def test_python(place: Path) -> None:
    (block,) = blocks("python")
    last = run([sys.executable, "-c", block]).split("5 runs/python/last.safetensors ")[1]
    loss, boxes = last.split(maxsplit=1)
    assert 0 < float(loss) < 3
    assert boxes.count("[[") == 1


def leaves(value: Any, above: str = "") -> Iterator[tuple[str, str]]:
    """Every field of a recipe, as the guide writes it."""
    for field in fields(value):
        found = getattr(value, field.name)
        if is_dataclass(found):
            yield from leaves(found, f"{above}{field.name}.")
        else:
            yield above + field.name, written(found)


def written(value: Any) -> str:
    if isinstance(value, tuple):
        return (" to " if len(value) == 2 and value[1] > 1 else ", ").join(f"{v:g}" for v in value) or "none"
    return f"{value:g}" if type(value) is float else str(value).lower()


def test_its_table_of_fields() -> None:
    table = GUIDE.split("| field |")[1].split("\n\n")[0].splitlines()[2:]
    recipes = [dict(leaves(recipe)) for recipe in RECIPES.values()]
    names: list[str] = []
    for line in table:
        named, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        own = re.findall(r"`([\w.]+)`", named)
        names += own
        for recipe, cell in zip(recipes, cells[:3], strict=True):
            values = [recipe[name] for name in own]
            right = {", ".join(values), *(values if len(set(values)) == 1 else ())}
            assert (cells[0] if cell == "same" else cell) in right, line
    assert ["name", *names] == sorted(["name", *names], key=list(recipes[0]).index)
    assert {"name", *names} == set(recipes[0])
    assert GUIDE.split("| field | ")[1].startswith(" | ".join(RECIPES))
