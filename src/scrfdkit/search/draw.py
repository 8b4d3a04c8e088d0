"""Candidates from a space: drawn with a seed, thousands at a time, kept where they meet the budget.

About 7 in 1,000 backbones do, and 2 in 10,000 whole detectors, so that networks are not built but counted: depths and
widths are arrays, and so are their FLOPs.

Shapes: N draws at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scrfdkit.errors import OptionError
from scrfdkit.model.cost import cost, flops_of_many
from scrfdkit.search.candidate import BACKBONE, Candidate, shares
from scrfdkit.search.space import BackboneSpace, CropSpace, Space, WholeSpace
from scrfdkit.spec import Backbone, Block, ModelSpec, Neck

Whole: TypeAlias = NDArray[np.int64]

_AT_ONCE = {BackboneSpace: 8192, WholeSpace: 65536}
"""Draws at a time. Changing a number changes what a seed gives."""

PATIENCE_DRAWS = 3_000_000
"""Draws without a new network, of which even the emptiest of the usual spaces has one in 20,000, until it counts as
exhausted."""

PATIENCE_ACCEPTED = 5_000
"""The same for draws that were accepted, but are known already."""

_STAGES = BACKBONE[1:]


class Draws(NamedTuple):
    """N networks: place among all draws of their time (N), stem (units, N), blocks and widths (4, N), neck, depth and
    channels of the tower, groups (N)."""

    block: Block
    place: Whole
    stem: Whole
    blocks: Whole
    widths: Whole
    neck: Whole
    depth: Whole
    tower: Whole
    groups: Whole

    def take(self, rows: NDArray[np.bool_]) -> Draws:
        return Draws(self.block, *(values[..., rows] for values in self[1:]))


@dataclass(frozen=True)
class Sample:
    """candidates: in the order in which they were drawn. drawn, accepted: how many draws that took, and how many of
    them met the budget, repeated ones too."""

    candidates: tuple[Candidate, ...]
    drawn: int
    accepted: int


def sample(space: Space, num: int, seed: int = 0) -> Sample:
    """`num` different candidates. The first ones of a longer sample with the same seed are those of a shorter one.

    Raises OptionError where the space does not hold that many.
    """
    if num < 1:
        raise OptionError(f"--num {num}: at least 1 is needed")
    random = np.random.default_rng(seed)
    if isinstance(space, CropSpace):
        return _crops(space, num, random)
    found: dict[ModelSpec, None] = {}
    drawn = accepted = 0
    since = [0, 0]  # draws, and accepted ones, since the last new network
    while len(found) < num:
        if since[0] > PATIENCE_DRAWS or since[1] > PATIENCE_ACCEPTED:
            raise OptionError(
                f"--num {num}: only {len(found)} networks of this space were found in {drawn:,} draws; take fewer, or"
                " another budget or template"
            )
        count = _AT_ONCE[type(space)]
        drawn, since[0] = drawn + count, since[0] + count
        for spec in accept(space, count, random):
            accepted, since[1] = accepted + 1, since[1] + 1
            if spec not in found:
                found[spec] = None
                since = [0, 0]
    chosen = list(found)[:num]
    return Sample(
        tuple(Candidate(number, spec, {}, shares(spec)) for number, spec in enumerate(chosen, 1)), drawn, accepted
    )


def accept(space: BackboneSpace | WholeSpace, count: int, random: np.random.Generator) -> Iterator[ModelSpec]:
    """Those of `count` draws that meet the budget, and compute where they should, in the order of the draws; repeated
    ones too."""
    found: list[tuple[int, ModelSpec]] = []
    parts = _backbones(space, count, random) if isinstance(space, BackboneSpace) else _wholes(space, count, random)
    for draws in parts:
        flops = flops_of(draws, space.template)
        total = sum(flops.values())
        good = np.abs(total - space.budget) <= space.tolerance * space.budget
        if space.shares:
            body = sum(flops[name] for name in BACKBONE)
            for name, (low, high) in space.shares.items():
                good &= (flops[name] >= low * body) & (flops[name] <= high * body)
        elif isinstance(space, WholeSpace):
            good &= _alike(flops, space)
        found += [(int(draws.place[row]), _spec(draws, int(row), space.template)) for row in np.flatnonzero(good)]
    for _, spec in sorted(found, key=lambda pair: pair[0]):
        yield spec


def flops_of(draws: Draws, template: ModelSpec) -> dict[str, Any]:
    """FLOPs by part, (N,) int64 each, exactly those of `cost`."""
    return flops_of_many(
        draws.block, draws.stem, draws.blocks, draws.widths, draws.neck, (draws.depth, draws.tower), template.head
    )


def _alike(flops: dict[str, Any], space: WholeSpace) -> NDArray[np.bool_]:
    """Whether C2 to C5, over the stem, compute what they do in the template."""
    own = {part.name: part.flops for part in cost(space.template).parts}
    good = np.ones(len(flops["stem"]), bool)
    for name in _STAGES:
        ratio = flops[name] / flops["stem"]
        good &= np.abs(own[name] / own["stem"] - ratio) <= space.likeness * ratio
    return good


def _backbones(space: BackboneSpace, count: int, random: np.random.Generator) -> Iterator[Draws]:
    """One `Draws` a kind of unit, together `count`."""
    kind = random.integers(0, len(space.blocks), count)
    base = _eights(random.integers(space.base[0], space.base[1] + 1, count))
    depths = random.integers(space.depth[0], space.depth[1] + 1, (4, count))
    steps = 4 if "separable" in space.blocks else 3
    ratios = random.uniform(*space.ratio, (steps + 1, count))
    head, neck = space.template.head, space.template.neck.channels
    for number, block in enumerate(space.blocks):
        rows = kind == number
        widths = [base[rows]]
        for ratio in ratios[: 5 if block == "separable" else 3, rows]:
            widths.append(_eights((widths[-1] * ratio).astype(np.int64)))
        stem = np.array(widths[:2] if block == "separable" else [base[rows] // 2, base[rows] // 2, base[rows]])
        same = (np.full(int(rows.sum()), value) for value in (neck, head.depth, head.channels, head.groups))
        yield Draws(block, np.flatnonzero(rows), stem, depths[:, rows], np.array(widths[-4:]), *same)


def _wholes(space: WholeSpace, count: int, random: np.random.Generator) -> Iterator[Draws]:
    """The template's backbone scaled, with another neck and head."""
    body, head = space.template.backbone, space.template.head
    deeper = random.uniform(*space.depth_ratio, count)
    wider = random.uniform(*space.width_ratio, count)
    neck = _eights(random.integers(space.neck[0], space.neck[1] + 1, count))
    tower = _eights(random.integers(space.tower[0], space.tower[1] + 1, count))
    depth = random.integers(space.tower_depth[0], space.tower_depth[1] + 1, count)
    blocks = np.maximum(np.rint(np.array(body.blocks)[:, None] * deeper).astype(np.int64), 1)
    widths = _eights(np.rint(np.array(body.widths)[:, None] * wider).astype(np.int64))
    if body.block == "separable":
        stem = _eights(np.rint(np.array(body.stem)[:, None] * wider).astype(np.int64))
    else:
        base = _eights(np.rint(body.stem[-1] * wider).astype(np.int64))
        stem = np.array([base // 2, base // 2, base])
    groups = _groups(tower, neck if head.depthwise else tower) if head.norm == "gn" else np.zeros_like(tower)
    every = Draws(body.block, np.arange(count), stem, blocks, widths, neck, depth, tower, groups)
    widens = stem[-1] != widths[0]  # which only some of the networks may do, where rounding makes it so
    for rows in (widens, ~widens):
        if rows.any():
            yield every.take(rows)


def _eights(values: Whole) -> Whole:
    """Cut down to multiples of 8, at least 8."""
    return np.maximum(values // 8 * 8, 8)


def _groups(tower: Whole, also: Whole) -> Whole:
    """Of 8, 16, 32 and 64 the last before the first that does not divide the channels."""
    groups = np.full_like(tower, 8)
    fits = np.ones(len(tower), bool)
    for number in (16, 32, 64):
        fits &= (tower % number == 0) & (also % number == 0)
        groups[fits] = number
    return groups


def _spec(draws: Draws, row: int, template: ModelSpec) -> ModelSpec:
    def four(values: Whole) -> tuple[int, int, int, int]:
        a, b, c, d = values[:, row].tolist()
        return a, b, c, d

    stem = tuple(draws.stem[:, row].tolist())
    depth, tower, groups, neck = (int(v[row]) for v in (draws.depth, draws.tower, draws.groups, draws.neck))
    head = replace(template.head, depth=depth, channels=tower, groups=groups)
    body = Backbone(draws.block, stem, four(draws.blocks), four(draws.widths))
    return replace(template, backbone=body, neck=Neck(neck), head=head)


def _crops(space: CropSpace, num: int, random: np.random.Generator) -> Sample:
    """Every draw is a candidate; two are never the same list, as their numbers are real."""
    candidates: list[Candidate] = []
    seen: set[Sequence[float]] = set()
    drawn = 0
    while len(candidates) < num and drawn < 20 * num + 100:
        drawn += 1
        smallest, largest, lean = (float(random.uniform(*r)) for r in (space.smallest, space.largest, space.lean))
        place = np.linspace(0, 1, space.slots) ** np.exp(lean)
        ratios = tuple(np.round(smallest * (largest / smallest) ** place, 3).tolist())
        if ratios not in seen:
            seen.add(ratios)
            traits = {"smallest": ratios[0], "largest": ratios[-1], "lean": round(lean, 3)}
            candidates.append(Candidate(len(candidates) + 1, space.template, {"crop.ratios": ratios}, traits))
    if len(candidates) < num:
        raise OptionError(f"--num {num}: this space holds only {len(candidates)} lists of crop ratios")
    return Sample(tuple(candidates), drawn, drawn)
