"""Where networks are looked for: ranges of depths and widths and a budget, as data.

The two steps are those of the paper and of the reference's code: first backbones under a given neck and head, then
whole detectors whose backbone computes in the same places as the best one's. The reference publishes its ranges for 2.5
GFLOPs; those of the other budgets are this project's own, wide enough to hold the released networks.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, TypeAlias, get_args

from scrfdkit.errors import OptionError
from scrfdkit.model.cost import cost
from scrfdkit.search.candidate import BACKBONE
from scrfdkit.spec import Block, ModelSpec
from scrfdkit.zoo import ZOO

Family = Literal["residual", "separable"]
Whole: TypeAlias = tuple[int, int]
Real: TypeAlias = tuple[float, float]

FAMILIES: dict[Family, tuple[Block, ...]] = {"residual": ("basic", "bottleneck"), "separable": ("separable",)}

_TEMPLATES: dict[Family, tuple[str, ...]] = {
    "residual": ("base_1.3g", "base_2.5g", "base_10g", "base_34g"),
    "separable": ("base_500m", "base_1g"),
}
_SEPARABLE_BELOW = 1.2e9
LEAST, MOST = 1e6, 1e13
"""FLOPs of the smallest and the largest budget."""

_WIDEST = 65536
"""Bound of all ranges: beyond it, numbers would not be exact any more, and no network is as wide."""

_UNITS = {"": 1.0, "M": 1e6, "G": 1e9}


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise OptionError(message)


def _check(space: BackboneSpace | WholeSpace, whole: tuple[str, ...], real: tuple[str, ...]) -> None:
    """Ranges of whole and of real numbers, and what both kinds of spaces have."""
    _require(LEAST <= space.budget <= MOST, f"budget: {space.budget:g} FLOPs is not from 1M to 10000G")
    _require(0 < space.tolerance < 1, "tolerance: a share from 0 to 1 is needed")
    for name in (*whole, *real):
        low, high = getattr(space, name)
        _require(0 < low <= high <= _WIDEST, f"{name}: {low} to {high} is no range of numbers up to {_WIDEST}")
        _require(name in real or type(low) is type(high) is int, f"{name}: whole numbers are needed")
    for name, (low, high) in space.shares.items():
        _require(name in BACKBONE, f"shares.{name}: is none of {', '.join(BACKBONE)}")
        _require(0 <= low <= high <= 1, f"shares.{name}: {low} to {high} is no range of shares")


@dataclass(frozen=True)
class BackboneSpace:
    """Step 1: backbones under the template's neck and head. Every number is drawn by itself and evenly.

    budget: FLOPs at 640x480, as `cost` counts them; tolerance: share of it by which a network may differ.
    blocks: kinds of units. base: width of the stem and, in residual networks, of the first stage. depth: units of a
    stage. ratio: width of a stage over that of the one before; widths are cut down to multiples of 8. shares: by part
    (stem, C2 to C5), the share of the backbone's FLOPs that it must have, where the space was narrowed.
    """

    budget: float
    template: ModelSpec
    blocks: tuple[Block, ...]
    base: Whole = (8, 64)
    depth: Whole = (1, 10)
    ratio: Real = (1.0, 4.0)
    tolerance: float = 0.02
    shares: Mapping[str, Real] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self, ("base", "depth"), ("ratio",))
        _require(bool(self.blocks), "blocks: at least one kind is needed")
        _require(set(self.blocks) <= set(get_args(Block)), f"blocks: kinds of {', '.join(get_args(Block))} are needed")
        alone = "separable" not in self.blocks or len(self.blocks) == 1
        _require(alone, "blocks: separable units have another stem; search for them by themselves")


@dataclass(frozen=True)
class WholeSpace:
    """Step 2: whole detectors. The template's depths, and its widths, are multiplied by one ratio each; neck and head
    are drawn anew.

    likeness: how far C2 to C5's FLOPs, over the stem's, may lie from the template's, as a share; with `shares`
    these ranges hold instead. neck, tower: channels, cut down to multiples of 8. tower_depth: units of the head's
    tower. Others as in `BackboneSpace`.
    """

    budget: float
    template: ModelSpec
    depth_ratio: Real = (0.5, 3.0)
    width_ratio: Real = (0.5, 3.0)
    neck: Whole = (8, 128)
    tower: Whole = (8, 256)
    tower_depth: Whole = (1, 4)
    tolerance: float = 0.02
    likeness: float = 0.1
    shares: Mapping[str, Real] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check(self, ("neck", "tower", "tower_depth"), ("depth_ratio", "width_ratio"))
        _require(0 < self.likeness < 1, "likeness: a share from 0 to 1 is needed")


@dataclass(frozen=True)
class CropSpace:
    """Sample redistribution: windows of the training pictures, for one network (the template).

    A candidate's recipe has `slots` crop ratios between its smallest and its largest, drawn evenly from these ranges.
    At lean 0 they are evenly spaced on a logarithmic scale; below 0 they crowd at the largest, above 0 at the smallest.
    The paper searches scales and their probabilities; three numbers that mean something are what some dozens of
    candidates can tell apart. The reference's lists, 0.3 to 1.0 and 0.3 to 2.0, are close to members of this space.
    """

    template: ModelSpec
    smallest: Real = (0.2, 0.8)
    largest: Real = (0.9, 2.6)
    lean: Real = (-1.0, 1.0)
    slots: int = 10

    def __post_init__(self) -> None:
        for name in ("smallest", "largest"):
            low, high = getattr(self, name)
            _require(0.01 <= low <= high <= 20, f"{name}: {low} to {high} is no range within 0.01 to 20")
        _require(self.smallest[1] < self.largest[0], "smallest, largest: the ranges must not meet")
        _require(-3 <= self.lean[0] <= self.lean[1] <= 3, "lean: a range within -3 to 3 is needed")
        _require(type(self.slots) is int and 2 <= self.slots <= 100, "slots: 2 to 100 are needed")


Space: TypeAlias = BackboneSpace | WholeSpace | CropSpace

KINDS: dict[str, type[BackboneSpace] | type[WholeSpace] | type[CropSpace]] = {
    "backbone": BackboneSpace,
    "all": WholeSpace,
    "crops": CropSpace,
}


def kind_of(space: Space) -> str:
    """Its word of `KINDS`."""
    return next(name for name, kind in KINDS.items() if isinstance(space, kind))


def budget_of(text: str) -> float:
    """FLOPs from words like 2.5G, 500M or 3e9. Raises OptionError for others."""
    match = re.fullmatch(r"(\d+\.?\d*(?:e\d+)?)\s*([MG]?)(?:F|FLOPs)?", text.strip(), re.IGNORECASE)
    if match is None:
        raise OptionError(f"--budget {text}: FLOPs at 640x480 are needed, such as 500M or 2.5G")
    flops = float(match[1]) * _UNITS[match[2].upper()]
    _require(LEAST <= flops <= MOST, f"--budget {text}: is not from 1M to 10000G")
    return flops


def backbone_space(budget: float, family: Family | None = None, template: ModelSpec | None = None) -> BackboneSpace:
    """The space of step 1 for a budget. family: without it depth-wise networks below 1.2 GFLOPs, residual ones above.
    template: whose neck and head it has; without it that of the nearest baseline of the reference."""
    chosen: Family = family or ("separable" if budget < _SEPARABLE_BELOW else "residual")
    if template is None:
        near = [ZOO[name].spec for name in _TEMPLATES[chosen]]
        template = min(near, key=lambda spec: abs(math.log(cost(spec).flops / budget)))
    space = BackboneSpace(budget, template, FAMILIES[chosen])
    # Bottlenecks of 34 GFLOPs have up to 17 units in a stage.
    return replace(space, depth=(1, 20)) if budget > 2e10 else space


def to_dict(space: Space) -> dict[str, Any]:
    """Plain values, ready for JSON, with their "kind"; `from_dict` gives back an equal value."""
    return {"kind": kind_of(space), **asdict(space), "template": json.loads(space.template.to_json())}


def from_dict(data: Any) -> Space:
    """Raises OptionError for anything but a space, naming the field."""
    _require(isinstance(data, dict), "a space is a JSON object")
    words = dict(data)
    kind = words.pop("kind", None)
    _require(isinstance(kind, str) and kind in KINDS, f"space: kind: {kind!r} is none of {', '.join(KINDS)}")
    known = {f.name for f in fields(KINDS[kind])}
    unknown = set(words) - known
    _require(not unknown, f"space: unknown fields {sorted(unknown)}")
    try:
        words["template"] = ModelSpec.from_json(json.dumps(words["template"]))
        shares = {name: (float(low), float(high)) for name, (low, high) in words.pop("shares", {}).items()}
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in words.items()
        }
        return KINDS[kind](**(values | ({"shares": shares} if shares else {})))
    except OptionError:
        raise
    except KeyError as error:
        raise OptionError(f"space: {error} is missing") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise OptionError(f"space: {error}") from None
