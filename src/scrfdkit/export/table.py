"""Certificates as lines of a table, for terminals and for documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scrfdkit.certificate import Certificate
from scrfdkit.spec import ModelSpec

COLUMNS = (
    "file", "format", "MB", "sha256", "raw", "boxes", "key points", "faces", "batch", "AP", "ms",
)  # fmt: skip
"""raw: largest difference of a probability or of a distance in strides. boxes, key points: in pixels of the pictures.
faces: found of those that PyTorch finds. batch: difference between a picture in a batch and alone. AP: in percent, and
how much less than PyTorch's. ms: a run."""
_NONE = "-"


def row(name: str, made: Certificate) -> tuple[str, ...]:
    """The cells of a file's line, "-" for what was not measured."""
    measured = made.measured
    faces: Mapping[str, Any] | None = measured.get("faces")
    digest = made.files.get(name) or next(iter(made.files.values()), "")
    return (
        name,
        f"{made.target} {made.precision}",
        f"{made.num_bytes / 1e6:.2f}",
        digest[:12],
        _small(measured["parity"]["largest"]) if "parity" in measured else "not run",
        _small(faces["boxes"]) if faces else _NONE,
        _small(faces["keypoints"]) if faces and _has_points(made) else _NONE,
        f"{faces['faces'] - faces['missing']} of {faces['faces']}" if faces else _NONE,
        _small(measured.get("batch_difference")),
        _ap(measured),
        f"{measured['latency']['milliseconds']['median']:.1f}" if "latency" in measured else _NONE,
    )


def _has_points(made: Certificate) -> bool:
    return bool(ModelSpec.from_json(made.metadata["spec"]).head.num_keypoints)


def markdown(rows: Sequence[Sequence[str]], columns: Sequence[str] = COLUMNS) -> str:
    """The lines as a table of a Markdown document."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _small(value: float | None) -> str:
    return _NONE if value is None else "0" if value == 0 else f"{value:.1e}" if value < 0.01 else f"{value:.2f}"


def _ap(measured: Mapping[str, Any]) -> str:
    if "ap" not in measured:
        return _NONE
    name = list(measured["ap"])[-1]
    values = " / ".join(f"{value:.2f}" for value in measured["ap"].values())
    change = measured["ap"][name] - measured["ap_pytorch"][name]
    return f"{values} ({change:+.2f})"
