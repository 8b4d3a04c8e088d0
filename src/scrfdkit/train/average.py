"""The running average of a network's weights, which is what gets validated and published."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


def make(net: nn.Module, decay: float) -> AveragedModel:
    """An average of parameters and buffers; `update_parameters(net)` adds the network as it is now."""

    def add(averaged: Any, current: Any, _: Any) -> None:
        # The count is read where it lives, on the CPU, and not on the device that it would be copied to.
        blend(averaged, current, share(decay, int(average.n_averaged)))

    average = AveragedModel(net, multi_avg_fn=add, use_buffers=True)
    average.requires_grad_(False)
    return average


def share(decay: float, count: int) -> float:
    """How much of the average the newest weights become, after `count` earlier ones: more in the beginning, so that
    fresh random weights are soon forgotten."""
    return 1 - min(decay, (1 + count) / (10 + count))


def tensors(net: nn.Module) -> list[Tensor]:
    """Parameters and buffers, in the order that `blend` pairs them."""
    return [t.detach() for t in (*net.parameters(), *net.buffers())]


@torch.no_grad()
def blend(averaged: Sequence[Tensor], current: Sequence[Tensor], share: float | Tensor) -> None:
    """averaged += share * (current - averaged), in place; whole numbers, which are counts, are taken over."""
    real = [i for i, tensor in enumerate(averaged) if tensor.is_floating_point()]
    whole = [i for i, tensor in enumerate(averaged) if not tensor.is_floating_point()]
    if real:
        old = [averaged[i] for i in real]
        change = torch._foreach_sub([current[i] for i in real], old)
        torch._foreach_mul_(change, share)
        torch._foreach_add_(old, change)
    for i in whole:
        averaged[i].copy_(current[i])
