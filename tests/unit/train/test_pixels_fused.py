"""The kernel that makes samples: in Triton's interpreter equal to plain torch, and compiled for GPUs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")


def run(script: str, folder: Path, **environment: str) -> dict[str, Any]:
    """The JSON object on the last line of what a script beside this file prints."""
    with_cache = os.environ | {"TRITON_CACHE_DIR": str(folder / "cache"), "OMP_NUM_THREADS": "1"} | environment
    command = [sys.executable, str(HERE / script), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, env=with_cache, check=False)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@needs_triton
def test_equals_plain_torch(tmp_path: Path) -> None:
    result = run("fused_in_interpreter.py", tmp_path, TRITON_INTERPRET="1")
    narrow = result.pop("narrow")
    assert narrow["torch.float16"] < 2**-10
    assert narrow["torch.bfloat16"] < 2**-7  # the interpreter cuts off where a GPU rounds
    assert result.pop("format") is True
    assert set(result) == {"check", "random", "windows", "orders", "far", "exact"}
    assert max(result.values()) < 1e-3, result


@needs_triton
def test_compiles_for_gpus_that_are_not_here(tmp_path: Path) -> None:
    """With exact divisions and without fused multiply-adds, which would round otherwise than plain torch."""
    environment = {"TRITON_INTERPRET": "0"}
    result = run("fused_for_gpus.py", tmp_path, **environment)
    assert len(result) == 6
    for name, made in result.items():
        assert made["machine code"] > 0 and made["loose"] == [], name
        assert made["rounds to"] == {"*fp32": [], "*bf16": ["bf16"], "*fp16": ["f16"]}[name.split()[1]]


def test_the_rest_needs_no_triton() -> None:
    code = "import sys; sys.modules['triton'] = None; from scrfdkit.train.pixels import opencv, plain, store"
    subprocess.run([sys.executable, "-c", code], check=True)
