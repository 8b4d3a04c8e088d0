"""What exported files are held against: the network in PyTorch, run as exactly as float32 goes."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch

from scrfdkit.model.net import SCRFD
from scrfdkit.types import Floats


class Reference:
    """A runtime on the CPU with its maps stored as NCHW.

    `PyTorchRuntime` stores them channels last, which is faster, but PyTorch's group norm then sums less exactly: with a
    random network and 640x640 pixels it was up to 1.6e-3 away from float64, and this way 2e-5.
    """

    device = "cpu"
    input_size: tuple[int, int] | None = None
    batch_size: int | None = None

    def __init__(self, net: SCRFD, metadata: Mapping[str, str] | None = None) -> None:
        """net: fused, in eval mode; a copy is kept."""
        self.metadata: Mapping[str, str] = metadata or {}
        self._net = copy.deepcopy(net).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

    def run(self, blob: Floats) -> list[Floats]:
        """blob: (B, 3, H, W) float32. Returns the maps of `SCRFD.forward`."""
        with torch.inference_mode():
            return [output.numpy() for output in self._net(torch.from_numpy(blob))]
