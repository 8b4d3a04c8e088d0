"""What a network costs, part by part, from its spec alone and without torch: parameters, operations, memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from scrfdkit.model.plan import PARTS, Plan, plan
from scrfdkit.spec import ModelSpec

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
