"""The plan of docs/architecture.md, held by reading every import: downward only, heavy packages in their rooms."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parent.parent / "src" / "scrfdkit"

# Lowest first. A room may import rooms of lower floors, and itself.
FLOORS = (
    ("types", "errors", "spec", "machine"),
    ("atomic",),
    ("zoo", "image", "letterbox", "decode", "certificate"),
    ("weights", "layout", "options"),
    ("views", "model", "data"),
    ("steps", "runtime", "network"),
    ("draw",),
    ("detector", "sheet", "assets"),
    ("benchmark",),
    ("video", "evaluate", "train", "export"),
    ("files", "vastai", "search"),
    ("cli",),
)
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}
FREE = {"", "__main__", "py.typed"}  # the package itself

# Packages of extras, and the rooms that may ask for them.
OPTIONAL = {
    "torch": {"model", "runtime", "train", "export", "search", "cli"},
    "optuna": {"search"},
    "ray": {"search"},
    "safetensors": {"model", "train"},
    "triton": {"train"},
    "onnx": {"model", "export"},
    "ncnn": {"runtime"},
    "pnnx": {"export"},
    "av": {"video"},
    "trackforge": {"video"},
    "pillow_heif": {"image"},
    "scipy": {"evaluate"},
    "faster_coco_eval": {"evaluate"},
    "onnxruntime": {"runtime", "assets"},
    "openvino": {"runtime"},
    "nncf": {"export"},
    "tritonclient": {"runtime"},
    "triton_python_backend_utils": {"assets"},
    "tensorrt": {"runtime"},
    "tensorrt_rtx": {"runtime"},
    "ai_edge_litert": {"runtime", "export"},
    "ai_edge_quantizer": {"export"},
    "litert_torch": {"export"},
}


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def room_of(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0]
    return "" if first == "__init__.py" else first.removesuffix(".py")


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Every imported module's full name, wherever in the file it stands, with its line."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            if module == "scrfdkit":
                yield from ((f"scrfdkit.{alias.name}", node.lineno) for alias in node.names)
            else:
                yield module, node.lineno


def test_every_room_has_a_floor() -> None:
    assert {room_of(p) for p in modules()} - FREE == set(FLOOR)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_down(path: Path) -> None:
    room = room_of(path)
    if room in FREE:
        return
    for name, line in imports(path):
        if not name.startswith("scrfdkit."):
            continue
        other = name.split(".")[1]
        if other in FLOOR and other != room:
            assert FLOOR[other] < FLOOR[room], f"{path.name}:{line}: {room} imports {other}, which is not below it"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_optional_packages_stay_in_their_rooms(path: Path) -> None:
    for name, line in imports(path):
        allowed = OPTIONAL.get(name.split(".")[0])
        assert allowed is None or room_of(path) in allowed, f"{path.name}:{line} imports {name}"


def loaded_by(code: str) -> set[str]:
    """Top-level packages in memory after running code in a fresh interpreter."""
    program = f"{code}\nimport sys\nprint(' '.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in result.stdout.splitlines()[-1].split()}


HELP = """
import contextlib, io
from scrfdkit.cli import app
for words in (["--help"], ["detect", "--help"]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        app(words)
"""


@pytest.mark.parametrize(
    "code", ["import scrfdkit", "import scrfdkit; dir(scrfdkit)", HELP], ids=["import", "dir", "help"]
)
def test_light_start(code: str) -> None:
    assert not loaded_by(code) & {"torch", "onnxruntime", "cv2", "numpy", "av", "PIL"}


def test_default_detector_loads_no_torch() -> None:
    code = "from scrfdkit import Detector; Detector.open(device='cpu')"
    assert not loaded_by(code) & {"torch", "safetensors", "onnx", "av", "trackforge"}


def test_files_stay_readable() -> None:
    """A file fits a head; the zoo is a table."""
    long = {str(p.relative_to(SOURCE)): n for p in modules() if (n := len(p.read_text().splitlines())) > 300}
    assert set(long) <= {"zoo.py"}, f"split by noun: {long}"
