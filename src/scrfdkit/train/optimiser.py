"""The optimiser of a recipe, ready to be captured in a CUDA graph, and the length of the gradient."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from scrfdkit.errors import OptionError
from scrfdkit.train.recipe import Optimiser

SECOND_MOMENT = 0.999
"""AdamW's second beta (Loshchilov and Hutter, 2019); the first is the recipe's momentum."""


def make(net: nn.Module, options: Optimiser) -> Optimizer:
    """An optimiser of every parameter of net with requires_grad, in the order of their names.

    On CUDA it is fused and its learning rate is a tensor, so that `set_lr` also reaches a captured step. Its state
    exists from the start, all zeros, which gives the steps that a state made on first use gives: a captured first step
    would make it anew on every replay. Raises OptionError where nothing is left to train.
    """
    parameters = [p for _, p in sorted(net.named_parameters()) if p.requires_grad]
    if not parameters:
        raise OptionError("freeze: every parameter is frozen, nothing is left to train")
    decayed = [p for p in parameters if options.decay_norms or p.ndim > 1]
    spared = [p for p in parameters if not options.decay_norms and p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": members, "weight_decay": decay}
        for members, decay in ((decayed, options.decay), (spared, 0.0))
        if members
    ]
    device = parameters[0].device
    on_cuda = device.type == "cuda"
    lr: Any = torch.tensor(options.lr, device=device) if on_cuda else options.lr
    optimiser: Optimizer
    if options.rule == "sgd":
        momentum = options.momentum
        nesterov = options.nesterov and momentum > 0  # without momentum it would mean nothing, and torch refuses it
        optimiser = SGD(groups, lr, momentum, nesterov=nesterov, fused=on_cuda)
    else:
        betas = (options.momentum, SECOND_MOMENT)
        optimiser = AdamW(groups, lr, betas, capturable=on_cuda, fused=on_cuda)
        # Else torch warns of every capturable optimiser that takes a step outside a graph, which the first ones do.
        optimiser._warned_capturable_if_run_uncaptured = True
    _fill(optimiser)
    return optimiser


def set_lr(optimiser: Optimizer, value: float) -> None:
    """Sets the learning rate of every group; nothing waits for the device."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(value)
        else:
            group["lr"] = value


def clip(parameters: Iterable[Tensor], limit: float) -> Tensor:
    """Shortens the gradient, taken as one vector, to `limit`; 0 only measures. Returns its length before, a scalar
    tensor on its device, so that nothing waits for the device."""
    trained = [p for p in parameters if p.grad is not None]
    length: Tensor = nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
    if limit > 0 and trained:
        nn.utils.clip_grads_with_norm_(trained, limit, length)
    return length


def _fill(optimiser: Optimizer) -> None:
    """The state that the optimiser would make in its first step."""
    for group in optimiser.param_groups:
        for p in group["params"]:
            state = optimiser.state[p]
            if isinstance(optimiser, AdamW):
                place = p.device if group["capturable"] or group["fused"] else "cpu"
                state["step"] = torch.zeros((), dtype=torch.float32, device=place)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
            elif group["momentum"]:
                state["momentum_buffer"] = torch.zeros_like(p)
