"""Fixtures that many tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _take_one_core() -> None:
    """With pytest-xdist every worker stays on a core of its own, and so do the commands that it starts.

    Two processes with a thread a core each, on all cores, wait for each other at every loop of every network: training
    then took ten times as long as on one core.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker.startswith("gw") and hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(worker[2:]) % len(cores)]})


_take_one_core()  # before torch and onnxruntime count the cores


def shared_folder() -> Path | None:
    """The folder of official weights and WIDER FACE pictures, which cannot be part of this project, if it is here."""
    path = Path(os.environ.get("SCRFDKIT_SHARED", ROOT.parent / "shared"))
    return path if path.is_dir() else None


@pytest.fixture(scope="session")
def shared() -> Path:
    """Skips the test where the folder is absent."""
    path = shared_folder()
    if path is None:
        pytest.skip("needs official weights and WIDER FACE pictures: set SCRFDKIT_SHARED to their folder")
    return path


@pytest.fixture(scope="session")
def examples() -> Path:
    """The photographs that ship with the project: astronaut.jpg (one face) and solvay_1927.jpg (29 faces)."""
    return ROOT / "examples"


@pytest.fixture(scope="session")
def toy_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight labelled pictures of 320 pixels; tests must not write into the folder."""
    from toy_set import make

    return make(tmp_path_factory.mktemp("toy"))
