"""What a network is, as plain data: backbone, neck, head and input, and their JSON form."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

Block = Literal["separable", "basic", "bottleneck"]
Norm = Literal["bn", "gn"]


MAX_WIDTH = 65536
"""Widest layer and longest tower allowed: more is a damaged file, and would exhaust the memory."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _require_whole(name: str, values: Iterable[Any], least: int = 1) -> None:
    good = all(type(value) is int and least <= value <= MAX_WIDTH for value in values)
    _require(good, f"{name}: whole numbers from {least} to {MAX_WIDTH} are needed")


@dataclass(frozen=True)
class Backbone:
    """Stem and four stages, with strides 4, 8, 16 and 32 after the stages.

    block: "separable" (depth-wise 3x3 then point-wise 1x1, no shortcut), "basic" (two 3x3 with a shortcut) or
        "bottleneck" (1x1, 3x3, 1x1 to four times the width, with a shortcut).
    stem: output channels of the stem's units: (p0, p1) for separable, (b/2, b/2, b) for the residual kinds.
    blocks: units in each of the four stages.
    widths: width of each stage; a bottleneck stage puts out four times as much.
    """

    block: Block
    stem: tuple[int, ...]
    blocks: tuple[int, int, int, int]
    widths: tuple[int, int, int, int]

    def __post_init__(self) -> None:
        _require(self.block in get_args(Block), f"backbone.block: {self.block!r} is not one of {get_args(Block)}")
        units = 2 if self.block == "separable" else 3
        _require(len(self.stem) == units, f"backbone.stem: {self.block} needs {units} widths, got {self.stem}")
        for name in ("blocks", "widths"):
            _require(len(getattr(self, name)) == 4, f"backbone.{name}: four numbers are needed")
        _require_whole("backbone", (*self.stem, *self.blocks, *self.widths))

    @property
    def expansion(self) -> int:
        """Output channels of a stage divided by its width."""
        return 4 if self.block == "bottleneck" else 1

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Output channels of the four stages."""
        return tuple(w * self.expansion for w in self.widths)


@dataclass(frozen=True)
class Neck:
    """PAFPN with `channels` at every level; its input is the last three stages of the backbone."""

    channels: int

    def __post_init__(self) -> None:
        _require_whole("neck.channels", [self.channels])


@dataclass(frozen=True)
class Head:
    """Tower and output convolutions, applied to every level.

    depth, channels: units of the tower and their width.
    norm, groups: "bn", or "gn" with that many groups (0 for "bn").
    shared: one tower for all levels, or one a level. depthwise: separable units instead of plain 3x3 ones.
    scale: a learnt factor a level on the box output.
    num_keypoints: landmarks a face, 0 for none.
    anchor_sizes: sides in pixels of the anchors of a cell, a tuple a level; only training looks at the sizes.
    anchor_ratio: height / width of the anchors.
    """

    depth: int
    channels: int
    norm: Norm
    groups: int
    shared: bool
    depthwise: bool
    scale: bool
    num_keypoints: int = 0
    strides: tuple[int, ...] = (8, 16, 32)
    anchor_sizes: tuple[tuple[int, ...], ...] = ((16, 32), (64, 128), (256, 512))
    anchor_ratio: float = 1.0

    def __post_init__(self) -> None:
        _require(self.norm in get_args(Norm), f"head.norm: {self.norm!r} is not one of {get_args(Norm)}")
        _require_whole("head.depth, head.channels", (self.depth, self.channels))
        _require_whole("head.groups, head.num_keypoints", (self.groups, self.num_keypoints), least=0)
        if self.norm == "gn":
            _require(
                self.groups > 0 and self.channels % self.groups == 0,
                f"head.groups: {self.groups} does not divide {self.channels} channels",
            )
        doubling = tuple(8 << level for level in range(len(self.strides)))
        _require(
            len(self.strides) >= 3 and self.strides == doubling,
            "head.strides: (8, 16, 32) or longer, doubling, is needed",
        )
        _require(
            len(self.anchor_sizes) == len(self.strides) and len({len(a) for a in self.anchor_sizes}) == 1,
            "head.anchor_sizes: one tuple of equal length a level is needed",
        )

    @property
    def num_anchors(self) -> int:
        """Anchors a cell."""
        return len(self.anchor_sizes[0])


@dataclass(frozen=True)
class Input:
    """What the network eats: RGB planes, (pixel - mean) / std."""

    mean: float = 127.5
    std: float = 128.0

    def __post_init__(self) -> None:
        numbers = all(type(value) in (int, float) and math.isfinite(value) for value in (self.mean, self.std))
        _require(numbers and self.std > 0, "input: mean and std must be numbers, std positive")


@dataclass(frozen=True)
class ModelSpec:
    """A whole network. Raises ValueError, naming the field, if it could not be built."""

    backbone: Backbone
    neck: Neck
    head: Head
    input: Input = field(default_factory=Input)

    def __post_init__(self) -> None:
        head, channels = self.head, self.neck.channels
        if head.norm == "gn" and head.depthwise:
            _require(
                channels % head.groups == 0,
                f"head.groups: {head.groups} does not divide the neck's {channels} channels (depth-wise tower)",
            )

    def to_json(self) -> str:
        """A compact JSON object; `from_json` gives back an equal value."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Raises ValueError for JSON that is not a spec, naming the field."""
        data = json.loads(text)
        _require(isinstance(data, dict), "a model spec is a JSON object")
        parts = {"backbone": Backbone, "neck": Neck, "head": Head, "input": Input}
        unknown = set(data) - set(parts)
        _require(not unknown, f"model spec: unknown fields {sorted(unknown)}")
        missing = {"backbone", "neck", "head"} - set(data)
        _require(not missing, f"model spec: missing fields {sorted(missing)}")
        return cls(**{name: _build(parts[name], name, value) for name, value in data.items()})


def _build(kind: Any, name: str, data: Mapping[str, Any]) -> Any:
    _require(isinstance(data, Mapping), f"model spec: {name} must be an object")
    known = {f.name for f in fields(kind)}
    unknown = set(data) - known
    _require(not unknown, f"model spec: {name} has unknown fields {sorted(unknown)}")
    try:
        return kind(**{key: _tuples(value) for key, value in data.items()})
    except TypeError as error:
        raise ValueError(f"model spec: {name}: {error}") from None


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value
