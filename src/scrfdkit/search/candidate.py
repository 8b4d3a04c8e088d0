"""What a search compares: a network and how it learns, with the numbers that the analysis looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from scrfdkit.model.cost import cost
from scrfdkit.spec import ModelSpec

BACKBONE = ("stem", "C2", "C3", "C4", "C5")
PARTS = ("backbone", "neck", "head")

State = Literal["waiting", "running", "done", "stopped", "failed"]
"""stopped: given up on the way, by successive halving. failed: every try ended with an error."""


@dataclass(frozen=True)
class Candidate:
    """number: from 1 on, its name in the search. spec: the network. recipe: fields of the recipe that it changes, like
    {"crop.ratios": (0.3, 0.6, 1.0)}. traits: what it was drawn with, by name, as the analysis shows it."""

    number: int
    spec: ModelSpec
    recipe: Mapping[str, Any] = field(default_factory=dict)
    traits: Mapping[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.number:04d}"


@dataclass(frozen=True)
class Outcome:
    """How a candidate stands.

    epochs: that were finished. tries: runs that were begun. scores: AP in percent by setting, {} before the end, or of
    the last look where it was stopped. score: the one that candidates are compared by. seconds: of training and
    scoring, over all tries. error: of the last try that failed. owner: who trains it now, "host 1234".
    """

    candidate: Candidate
    state: State = "waiting"
    epochs: int = 0
    tries: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)
    score: float | None = None
    seconds: float = 0.0
    error: str = ""
    owner: str = ""


def shares(spec: ModelSpec) -> dict[str, float]:
    """Where a network computes, at 640x480: stem and C2 to C5 as shares of the backbone's FLOPs without the max-pool,
    as in the paper; backbone, neck and head as shares of all FLOPs."""
    total = cost(spec)
    flops = {part.name: part.flops for part in total.parts}
    body = sum(flops[name] for name in BACKBONE)
    found = {name: flops[name] / body for name in BACKBONE}
    whole = total.flops
    found["backbone"] = (whole - flops["neck"] - flops["head"]) / whole
    return found | {name: flops[name] / whole for name in ("neck", "head")}
