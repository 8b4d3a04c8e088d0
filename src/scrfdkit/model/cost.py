"""What a network costs, part by part, from its spec alone and without torch: parameters, operations, memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from dataclasses import fields as dataclass_fields
from types import SimpleNamespace
from typing import Any, TypeAlias, cast

from scrfdkit.model.plan import PARTS, Plan, plan
from scrfdkit.spec import Block, Head, ModelSpec

Numbers: TypeAlias = Any
"""A whole number, or an int64 array of them, one a network."""

FLOAT_BYTES = 4


@dataclass(frozen=True)
class PartCost:
    """name: one of `plan.PARTS`. params: trained numbers. macs, flops: for one picture."""

    name: str
    params: int
    macs: int
    flops: int


@dataclass(frozen=True)
class Cost:
    """Cost of one picture of width x height pixels.

    parts: stem, maxpool (residual backbones only), C2 to C5 (the four stages), neck, head.
    macs: multiply-adds of convolutions. flops: as mmcv counts them, which is what papers on SCRFD quote: a
        convolution's multiply-adds once, plus its bias; norms 2, ReLU 1 an element; pools 1 an input element.
    weight_bytes: every trained number as float32; running statistics, which `net.fuse` folds away, are not in it.
    peak_activation_bytes: float32 maps of one picture that are alive at once in the worst moment, when operations
        run in order, a map is freed after its last reader, and norms, ReLU and additions write over their (first)
        input. The input picture is counted until the stem has read it, outputs until the end; weights and the
        scratch memory of convolution kernels are not counted.
    """

    width: int
    height: int
    parts: tuple[PartCost, ...]
    params: int
    macs: int
    flops: int
    weight_bytes: int
    peak_activation_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def cost(spec: ModelSpec, width: int = 640, height: int = 480) -> Cost:
    """Cost at width x height pixels. Raises ModelError for a size below one pixel."""
    walked = plan(spec, width, height)
    parts = {name: [0, 0, 0] for name in PARTS}
    seen: set[str] = set()
    for op in walked.ops:
        part = parts[op.part]
        if op.name not in seen:  # a head shared by the levels owns its parameters once
            seen.add(op.name)
            part[0] += sum(_product(shape) for _, shape in op.params)
        part[1] += op.macs
        part[2] += op.flops
    used = {op.part for op in walked.ops}
    costs = tuple(PartCost(name, *counts) for name, counts in parts.items() if name in used)
    params = sum(part.params for part in costs)
    return Cost(
        width,
        height,
        costs,
        params,
        sum(part.macs for part in costs),
        sum(part.flops for part in costs),
        params * FLOAT_BYTES,
        peak(walked) * FLOAT_BYTES,
    )


def flops_of_many(
    block: Block,
    stem: Iterable[Numbers],
    blocks: Iterable[Numbers],
    widths: Iterable[Numbers],
    neck: Numbers,
    tower: tuple[Numbers, Numbers],
    head: Head,
    width: int = 640,
    height: int = 480,
) -> dict[str, Numbers]:
    """FLOPs by part, as in `Cost.parts`, of many networks at once: whole numbers or int64 arrays of one length N.

    stem, blocks, widths: as in `Backbone`, an array for each of their places. neck: its channels. tower: its depth and
    channels. head: everything else about the head. Either all or none of the networks may widen in the first stage.

    Every unit of a stage, and of the tower, but the first costs the same. So the walk through networks of one unit, and
    of two, gives those of any depth.
    """
    one, two = (_walked(block, stem, units, widths, neck, tower[1], head, (width, height)) for units in (1, 2))
    depths = dict(zip(PARTS[2:6], blocks, strict=True)) | {"head": tower[0]}
    return {part: flops + (depths.get(part, 1) - 1) * (two[part] - flops) for part, flops in one.items()}


def _walked(
    block: Block,
    stem: Iterable[Numbers],
    units: int,
    widths: Iterable[Numbers],
    neck: Numbers,
    channels: Numbers,
    head: Head,
    size: tuple[int, int],
) -> dict[str, Numbers]:
    """FLOPs by part, with that many units in every stage and in the tower. A real spec takes no arrays."""
    fields = {field.name: getattr(head, field.name) for field in dataclass_fields(head)}
    fields |= {"depth": units, "channels": channels, "num_anchors": head.num_anchors}
    body = SimpleNamespace(block=block, stem=stem, blocks=(units,) * 4, widths=widths)
    spec = SimpleNamespace(backbone=body, neck=SimpleNamespace(channels=neck), head=SimpleNamespace(**fields))
    flops: dict[str, Numbers] = {}
    for op in plan(cast(ModelSpec, spec), *size).ops:
        flops[op.part] = flops.get(op.part, 0) + op.flops
    return flops


def peak(walked: Plan) -> int:
    """The most numbers alive at once; see `Cost.peak_activation_bytes`."""
    last = {index: step for step, op in enumerate(walked.ops) for index in op.inputs}
    last |= dict.fromkeys(walked.outputs, len(walked.ops))
    alive = {0}
    most = 0
    for step, op in enumerate(walked.ops):
        alive.add(op.output)
        most = max(most, sum(walked.maps[index].size for index in alive))
        alive -= {index for index in op.inputs if last[index] == step}
    return most


def _product(shape: tuple[int, ...]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total
