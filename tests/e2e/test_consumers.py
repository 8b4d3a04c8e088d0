"""The programs of examples/ that use exported files without this package: in C++, compiled here, and in Python."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

from scrfdkit import Detections, Detector
from scrfdkit.export import onnx
from scrfdkit.export.contract import Contract
from scrfdkit.export.order import Order
from scrfdkit.export.source import open_source

LAYOUTS = {"maps": Contract("maps", size=(640, 640), batch=1), "end2end": Contract("end2end", batch=1)}


def headers() -> Path | None:
    """Where onnxruntime's C++ API is declared; scripts/onnxruntime_headers.sh fetches it."""
    named = os.environ.get("ONNXRUNTIME_INCLUDE")
    places = [Path(named)] if named else [Path("/usr/include/onnxruntime"), Path("/usr/local/include/onnxruntime")]
    return next((place for place in places if (place / "onnxruntime_cxx_api.h").is_file()), None)


def library() -> Path | None:
    """The library inside the Python package."""
    spec = find_spec("onnxruntime")
    assert spec is not None
    assert spec.origin is not None
    return next(iter(sorted((Path(spec.origin).parent / "capi").glob("libonnxruntime.so*"))), None)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory, examples: Path) -> Path:
    """The folder of both C++ programs. Skips where there is no compiler, no header or no library."""
    include, shared_object = headers(), library()
    for what, there in (("g++", shutil.which("g++")), ("header", include), ("library", shared_object)):
        if not there:
            pytest.skip(f"no {what} to compile onnxruntime's C++ programs with; see scripts/onnxruntime_headers.sh")
    assert shared_object is not None
    folder = tmp_path_factory.mktemp("cpp")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(shared_object)
    for name in LAYOUTS:
        words = ["g++", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", f"-isystem{include}"]
        words += [str(examples / f"cpp/{name}.cpp"), f"-L{folder}", "-lonnxruntime", f"-Wl,-rpath,{folder}"]
        subprocess.run([*words, "-o", str(folder / name)], check=True, timeout=120)
    return folder


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded network as maps.onnx and end2end.onnx."""
    folder = tmp_path_factory.mktemp("exported")
    return write(folder, "scrfd_500m_kps")


def write(folder: Path, model: str | Path) -> Path:
    for name, contract in LAYOUTS.items():
        onnx.write(open_source(model), folder / f"{name}.onnx", Order(contract))
    return folder


def run(*words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
    command = list(map(str, words))
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == code, done.stderr
    return done


def consume(layout: str, exported: Path, picture: Path, programs: Path | None) -> Detections:
    """What a program prints, the one in Python without `programs`."""
    model = exported / f"{layout}.onnx"
    if programs is None:
        text = run(sys.executable, picture.parent / "consume.py", model, picture).stdout
    else:
        pixels = programs / f"{picture.stem}.ppm"
        assert cv2.imwrite(str(pixels), cv2.imread(str(picture)))
        text = run(programs / layout, model, pixels).stdout
    rows = [list(map(float, line.split())) for line in text.splitlines()]
    assert len({len(row) for row in rows}) == 1
    table = np.array(rows, np.float32)
    points = table[:, 5:].reshape(len(rows), -1, 2) if table.shape[1] > 5 else None
    return Detections(table[:, :4], table[:, 4], points)


def same_faces(found: Detections, exported: Path, picture: Path) -> None:
    """As `Detector` finds them, but for how pixels are rounded when the picture is resized."""
    theirs = Detector.open(exported / "maps.onnx", device="cpu", threads=1).detect(picture)
    assert len(found) == len(theirs)
    assert (np.diff(found.scores) <= 0).all()
    near = np.abs(found.boxes[:, None] - theirs.boxes).max(axis=2)
    order = near.argmin(axis=1)
    assert sorted(order) == list(range(len(theirs)))
    assert near.min(axis=1).max() < 0.5
    assert np.abs(found.scores - theirs.scores[order]).max() < 0.02
    assert (found.keypoints is None) == (theirs.keypoints is None)
    if found.keypoints is not None and theirs.keypoints is not None:
        assert np.abs(found.keypoints - theirs.keypoints[order]).max() < 0.5


PICTURES = ["astronaut.jpg", "solvay_1927.jpg"]


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_cpp(layout: str, picture: str, compiled: Path, exported: Path, examples: Path) -> None:
    same_faces(consume(layout, exported, examples / picture, compiled), exported, examples / picture)


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_python(layout: str, picture: str, exported: Path, examples: Path) -> None:
    same_faces(consume(layout, exported, examples / picture, None), exported, examples / picture)


@pytest.fixture(scope="module")
def without_landmarks(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> Path:
    return write(tmp_path_factory.mktemp("plain"), shared / "weights/official/scrfd_500m.onnx")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_cpp_without_landmarks(layout: str, compiled: Path, without_landmarks: Path, examples: Path) -> None:
    picture = examples / "solvay_1927.jpg"
    same_faces(consume(layout, without_landmarks, picture, compiled), without_landmarks, picture)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_python_without_landmarks(layout: str, without_landmarks: Path, examples: Path) -> None:
    picture = examples / "solvay_1927.jpg"
    same_faces(consume(layout, without_landmarks, picture, None), without_landmarks, picture)


def test_tall_pictures_and_pictures_without_faces(compiled: Path, exported: Path, tmp_path: Path) -> None:
    blank = np.full((50, 20, 3), 90, np.uint8)
    assert cv2.imwrite(str(tmp_path / "blank.ppm"), blank)
    assert cv2.imwrite(str(tmp_path / "blank.png"), blank)
    for layout in LAYOUTS:
        assert run(compiled / layout, exported / f"{layout}.onnx", tmp_path / "blank.ppm").stdout == ""
        program = Path(__file__).parents[2] / "examples/consume.py"
        assert run(sys.executable, program, exported / f"{layout}.onnx", tmp_path / "blank.png").stdout == ""


def test_cpp_says_what_is_wrong(compiled: Path, exported: Path, tmp_path: Path) -> None:
    (tmp_path / "short.ppm").write_bytes(b"P6\n20 20\n255\nabc")
    (tmp_path / "text.ppm").write_text("no picture")
    (tmp_path / "broken.onnx").write_text("no network")
    assert cv2.imwrite(str(tmp_path / "good.ppm"), np.zeros((9, 9, 3), np.uint8))
    for layout, other in (("maps", "end2end"), ("end2end", "maps")):
        model = exported / f"{layout}.onnx"
        for words, reason in (
            ((), "usage: "),
            ((model, tmp_path / "short.ppm"), "short.ppm: is cut short"),
            ((model, tmp_path / "text.ppm"), "text.ppm: is no binary PPM"),
            ((tmp_path / "broken.onnx", tmp_path / "good.ppm"), "broken.onnx"),
            ((exported / f"{other}.onnx", tmp_path / "good.ppm"), "Invalid"),
        ):
            done = run(compiled / layout, *words, code=2)
            assert done.stderr.startswith("error: ")
            assert reason in done.stderr
