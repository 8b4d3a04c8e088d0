"""Block sizes of the kernels: measured for the widths of scrfd_500m_kps, a rule for every other width."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch

_ACCUMULATORS = 16384
"""Largest tile of sums a program keeps in registers: 64 float32 a thread for 8 warps."""

# Fastest of a search on one H200 at batch 64, 640x640, bf16.
# Depth-wise, by channels and stride: elements of a block, warps, programs a multiprocessor.
_DEPTHWISE_FORWARD = {
    (16, 1): (1024, 2, 16),
    (16, 2): (1024, 2, 16),
    (40, 1): (1024, 2, 16),
    (40, 2): (1024, 2, 16),
    (64, 1): (1024, 2, 16),
    (72, 1): (2048, 4, 12),
}
_DEPTHWISE_BACKWARD = {
    (16, 1): (1024, 8, 4),
    (16, 2): (1024, 4, 8),
    (40, 1): (1024, 4, 8),
    (40, 2): (1024, 4, 8),
    (64, 1): (1024, 8, 4),
    (72, 1): (1024, 4, 8),
}
# Point-wise, by channels in and out: pixels of a block, warps, programs a multiprocessor, stages of the pipeline.
_POINTWISE_FORWARD = {
    (16, 16): (64, 4, 16, 1),
    (16, 40): (128, 4, 8, 2),
    (16, 64): (64, 4, 8, 2),
    (40, 40): (64, 4, 16, 1),
    (40, 72): (128, 4, 8, 2),
    (64, 64): (64, 4, 8, 2),
    (72, 72): (64, 4, 8, 2),
}
_POINTWISE_BACKWARD = {
    (16, 16): (32, 4, 8, 1),
    (16, 40): (32, 4, 8, 1),
    (16, 64): (32, 4, 8, 1),
    (40, 40): (32, 4, 8, 1),
    (40, 72): (128, 8, 2, 1),
    (64, 64): (32, 4, 8, 1),
    (72, 72): (32, 4, 8, 1),
}


@dataclass(frozen=True)
class Blocks:
    """How a kernel is cut up.

    rows: pixels a program looks at together. tile: channels a program looks after, a power of two; wider layers are
    several programs. warps, stages: Triton's. per_sm: programs for each multiprocessor of the device.
    """

    rows: int
    tile: int
    warps: int
    per_sm: int
    stages: int = 3

    def grid(self, pixels: int, channels: int, device: torch.device) -> tuple[int, int]:
        """Programs for the pixels, each going through several blocks, and for the channels."""
        return min(self.count(pixels), _most_programs(device, self.per_sm)), -(-channels // self.tile)

    def count(self, pixels: int) -> int:
        """Blocks that hold all pixels."""
        return -(-pixels // self.rows)


def padded(width: int) -> int:
    """The power of two, 16 or more, that holds so many channels: blocks have no other sizes."""
    return max(16, 1 << (width - 1).bit_length())


def depthwise_forward(channels: int, stride: int) -> Blocks:
    elements, warps, per_sm = _DEPTHWISE_FORWARD.get((channels, stride), (1024, 4, 12))
    return Blocks(elements // _tile(channels), _tile(channels), warps, per_sm)


def depthwise_backward(channels: int, stride: int) -> Blocks:
    elements, warps, per_sm = _DEPTHWISE_BACKWARD.get((channels, stride), (1024, 4, 8))
    return Blocks(elements // _tile(channels), _tile(channels), warps, per_sm)


def pointwise_forward(source: int, out: int) -> Blocks:
    """Tiles are of output channels; a program reads every input channel."""
    rows, warps, per_sm, stages = _POINTWISE_FORWARD.get((source, out), _wide(source, out))
    return Blocks(rows, _tile(out, padded(source)), warps, per_sm, stages)


def pointwise_backward(source: int, out: int) -> Blocks:
    """Tiles are of input channels; a program reads the gradient of every output channel."""
    rows, warps, per_sm, stages = _POINTWISE_BACKWARD.get((source, out), _wide(source, out))
    return Blocks(rows, _tile(source, padded(out)), warps, per_sm, stages)


def stem_forward(out: int) -> Blocks:
    return Blocks(128, padded(out), 4, 8)


def stem_backward(out: int) -> Blocks:
    return Blocks(128, padded(out), 4, 4)


def elementwise(channels: int, elements: int = 4096) -> Blocks:
    return Blocks(max(1, elements // padded(channels)), padded(channels), 4, 12)


def _wide(source: int, out: int) -> tuple[int, int, int, int]:
    return (32, 8, 4, 1) if max(source, out) > 64 else (32, 4, 8, 1)


def _tile(width: int, other: int = 1) -> int:
    """Up to 128 channels in one piece; 64 at a time beyond, which wastes less than the next power of two."""
    return min(padded(width) if width <= 128 else 64, max(16, _ACCUMULATORS // other))


@lru_cache
def _most_programs(device: torch.device, per_sm: int) -> int:
    """2 for the CPU, where the interpreter runs one program after another."""
    if device.type != "cuda":
        return 2
    return int(torch.cuda.get_device_properties(device).multi_processor_count) * per_sm
