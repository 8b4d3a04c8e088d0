"""What runs are called after their files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

_SUFFIXES = frozenset({".onnx", ".safetensors", ".pth", ".json", ".npz", ".txt"})


def run_name(source: str | Path) -> str:
    """The last part of a path without the suffix of a file of networks or results: "scrfd_2.5g_kps" stays whole."""
    path = Path(source)
    name = path.name or str(path)
    return name[: -len(path.suffix)] if path.suffix.lower() in _SUFFIXES else name


def distinct(names: Sequence[str]) -> list[str]:
    """The same names, those that occurred before with " (2)", " (3)" ... behind them."""
    taken: set[str] = set()
    result = []
    for name in names:
        chosen, number = name, 1
        while chosen in taken or (number > 1 and chosen in names):
            number += 1
            chosen = f"{name} ({number})"
        taken.add(chosen)
        result.append(chosen)
    return result
