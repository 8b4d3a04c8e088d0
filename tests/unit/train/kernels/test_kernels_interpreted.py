"""Kernels against their plain twins, and chains and networks against ordinary modules, in triton's interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton")

EXACT, HALF = 1e-4, 2e-2  # a chain's ReLU may turn over at a rounding of float16


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """By case; triton has to be told of its interpreter before it is imported, hence another process."""
    program = Path(__file__).with_name("interpreted.py")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_everything_agrees(results: dict[str, Any]) -> None:
    distances = {name: found for name, found in results.items() if isinstance(found, dict)}
    assert len(distances) == 23
    limits = {name: HALF if name == "chain half" else EXACT for name in distances}
    wrong = {
        f"{name}: {what}": distance
        for name, found in distances.items()
        for what, distance in found.items()
        if not distance < limits[name]
    }
    assert not wrong


def test_a_check_looks_at_both_ways_and_at_statistics(results: dict[str, Any]) -> None:
    assert set(results["check"]) == {
        *("output", "weight gradient", "gamma gradient", "beta gradient", "input gradient"),
        *("running mean", "running variance"),
    }
    assert results["usable"] is None


def test_a_wrong_kernel_is_found(results: dict[str, Any]) -> None:
    assert "gradient is 0.2" in results["broken"]
