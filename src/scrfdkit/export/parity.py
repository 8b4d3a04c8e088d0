"""Does an exported file compute what the PyTorch network computes? Measured on real pixels, not asserted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfdkit.decode import Level
from scrfdkit.errors import ModelError
from scrfdkit.export.contract import Contract
from scrfdkit.layout import identify, levels_of
from scrfdkit.letterbox import place_fixed
from scrfdkit.runtime.base import Runtime, within
from scrfdkit.spec import Input
from scrfdkit.types import Floats, Image

TOLERANCE = 1e-3
"""Largest difference allowed, of a face probability, of a distance in strides, of a pixel."""

SIZES = ((640, 640), (320, 256), (192, 320))
"""(width, height) of the pictures that a file of open size is tried on."""

_SEED = 20210504


@dataclass(frozen=True)
class Case:
    """One run of both networks, and their largest absolute differences.

    scores: of face probabilities. boxes, keypoints: of distances and offsets, in strides. faces: of boxes, scores and
    key points of an end-to-end file's faces, in pixels; 0.0 where a file has none of a kind.
    """

    width: int
    height: int
    batch: int
    scores: float
    boxes: float
    keypoints: float = 0.0
    faces: float = 0.0

    @property
    def largest(self) -> float:
        """NaN where there is one."""
        return float(np.max([self.scores, self.boxes, self.keypoints, self.faces]))


@dataclass(frozen=True)
class Parity:
    """What was compared, and how it came out. reference, candidate: runtimes with their versions.
    tolerance: largest difference allowed, None for any that is a number."""

    reference: str
    candidate: str
    cases: tuple[Case, ...]
    tolerance: float | None = TOLERANCE

    @property
    def largest(self) -> float:
        """Of all cases; NaN where there is one."""
        return float(np.max([case.largest for case in self.cases]))

    @property
    def passed(self) -> bool:
        """Whether no difference is above the tolerance; without one, whether all are numbers."""
        return math.isfinite(self.largest) and (self.tolerance is None or self.largest <= self.tolerance)

    def complaint(self) -> str:
        """What is wrong with the file, "" if it passed."""
        if self.passed:
            return ""
        least = "only numbers are" if self.tolerance is None else f"at most {self.tolerance:g} is"
        return f"{self.candidate} differs from {self.reference} by up to {self.largest:.3g}, and {least} allowed"

    def to_dict(self) -> dict[str, Any]:
        """The fields, `largest` and `passed` as plain data."""
        return {**asdict(self), "largest": self.largest, "passed": self.passed}


def cases(contract: Contract) -> list[tuple[tuple[int, int], int]]:
    """(width, height) and number of pictures of the runs that a file of this contract is tried with."""
    sizes = [contract.size] * len(SIZES) if contract.size else list(SIZES)
    chosen = [(size, contract.batch or number) for number, size in enumerate(sizes, 1)]
    return list(dict.fromkeys(chosen))


def pictures(size: tuple[int, int], batch: int) -> Image:
    """(batch, height, width, 3) uint8 BGR: a portrait fitted into the canvas, its mirror image, then noise."""
    width, height = size
    data = (files("scrfdkit") / "assets" / "astronaut.jpg").read_bytes()
    portrait = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert portrait is not None
    across, down = place_fixed(portrait.shape[1], portrait.shape[0], size).size
    canvases = np.zeros((batch, height, width, 3), np.uint8)
    canvases[0, :down, :across] = cv2.resize(portrait, (across, down))
    canvases[1:2] = canvases[0, :, ::-1]
    canvases[2:] = np.random.default_rng(_SEED).integers(0, 256, canvases[2:].shape, np.uint8)
    return canvases


def blob_of(canvases: Image, spec: Input) -> Floats:
    """(B, H, W, 3) uint8 BGR to (B, 3, H, W) float32, RGB, (pixel - mean) / std."""
    planes = canvases[..., ::-1].transpose(0, 3, 1, 2).astype(np.float32)
    return np.ascontiguousarray((planes - np.float32(spec.mean)) / np.float32(spec.std))


def compare_heads(reference: Runtime, candidate: Runtime, contract: Contract, spec: Input) -> tuple[Case, ...]:
    """Runs both on the cases of a contract. reference: gives logits, as PyTorch does. candidate: gives what the
    contract says; order and layout of its outputs are found out.

    Raises ModelError where one of them cannot run, or gives what is no SCRFD head.
    """
    found = []
    for wanted, batch in cases(contract):
        found.append(compare_run(reference, candidate, within(candidate, wanted), batch, spec, logits=contract.logits))
    return tuple(found)


def compare_run(
    reference: Runtime, candidate: Runtime, size: tuple[int, int], batch: int, spec: Input, *, logits: bool
) -> Case:
    """Runs both once, on pictures of (width, height). logits: the candidate's scores lack their sigmoid."""
    blob = blob_of(pictures(size, batch), spec)
    ours = levels(reference.run(blob), size, batch, logits=True)
    theirs = levels(candidate.run(blob), size, batch, logits=logits)
    return replace(difference(ours, theirs), width=size[0], height=size[1], batch=batch)


def levels(outputs: Sequence[NDArray[Any]], size: tuple[int, int], batch: int, *, logits: bool) -> list[Level]:
    """All levels of all pictures of a run, picture by picture, scores as probabilities.

    Raises ModelError where these are not the outputs of an SCRFD head for (width, height).
    """
    layout = identify(outputs, size)
    found = [level for i in range(batch) for level in levels_of(outputs, layout, size, i)]
    return [replace(level, scores=_sigmoid(level.scores)) for level in found] if logits else found


def difference(first: Sequence[Level], second: Sequence[Level]) -> Case:
    """The largest differences, in a case that is still without size and batch. Raises ModelError for other shapes."""

    def gap(name: str) -> float:
        pairs = [(getattr(a, name), getattr(b, name)) for a, b in zip(first, second, strict=True)]
        return worst(largest_gap(a, b) for a, b in pairs if a is not None)

    shapes = [[(v.stride, v.shape, v.scores.shape, v.offsets is None) for v in side] for side in (first, second)]
    if shapes[0] != shapes[1]:
        raise ModelError(f"the two networks have different outputs: {shapes[0]} and {shapes[1]}")
    return Case(0, 0, 0, gap("scores"), gap("distances"), gap("offsets"))


def largest_gap(first: NDArray[Any], second: NDArray[Any]) -> float:
    """Largest absolute difference of two arrays of one shape, 0 for empty ones, NaN where one of them is."""
    return float(np.abs(first.astype(np.float64) - second).max(initial=0))


def worst(gaps: Iterable[float]) -> float:
    """The largest, 0 without any, NaN where there is one: Python's own `max` would lose it."""
    return float(np.max([*gaps], initial=0))


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(0.5 + 0.5 * np.tanh(0.5 * logits.astype(np.float64)), np.float32)
