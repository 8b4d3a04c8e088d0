"""Batch norms in training: over the pictures of all processes, frozen, and made up for weights that came without."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist


class SyncedBatchNorm2d(nn.BatchNorm2d):
    """A batch norm whose statistics in training are those of all processes together, on the CPU as on CUDA.

    Tensors, names and everything in eval mode are BatchNorm2d's. Processes may hold different numbers of pictures,
    even none. The gradients of weight and bias are those of this process's pictures: adding them up over the processes
    gives what one process with the whole batch has.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W), floating point -> the same shape and dtype."""
        if not self.training or _world() == 1:
            return super().forward(x)
        mean, spread, count = _statistics(x.detach())
        if self.track_running_stats:
            self._remember(mean, spread / (count - 1).clamp(min=1))
        factor = torch.rsqrt(spread / count + self.eps)
        return _Normalise.apply(x, self.weight, self.bias, mean, factor, count)  # type: ignore[no-any-return,no-untyped-call]

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share: Any = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


def synchronise(net: nn.Module) -> None:
    """Makes every batch norm of net a `SyncedBatchNorm2d`, in place; parameters stay the very same tensors."""
    for module in net.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncedBatchNorm2d  # another way to compute, nothing more to hold


def plain(net: nn.Module) -> None:
    """Undoes `synchronise`, in place."""
    for module in net.modules():
        if type(module) is SyncedBatchNorm2d:
            module.__class__ = nn.BatchNorm2d  # type: ignore[assignment]


def train_mode(net: nn.Module) -> None:
    """`net.train()`, but batch norms whose weight is frozen stay in eval mode: their statistics are frozen too."""
    net.train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and not module.weight.requires_grad:
            module.eval()


@torch.no_grad()
def calibrate_norms(net: nn.Module, batches: Iterable[Tensor]) -> None:
    """Gives every batch norm the statistics of what it sees in `batches`, and weight and bias that keep its output.

    For weights whose batch norms were folded: the network's output in eval mode stays the same up to rounding, and in
    training mode it becomes nearly the same, where without this the batch's statistics would undo the weights.

    batches: inputs of the network (B, 3, H, W) on its device; each process may have its own. Raises ValueError if there
    are none.
    """
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    modes = {module: module.training for module in net.modules()}
    sums = {norm: torch.zeros(3, norm.num_features, dtype=torch.float64, device=norm.weight.device) for norm in norms}

    def look(norm: nn.Module, args: tuple[Tensor]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        x = args[0].float()
        count = x.numel() // x.shape[1]
        spread, mean = (v.double() for v in torch.var_mean(x, (0, 2, 3), correction=0))
        sums[norm] += torch.stack([torch.full_like(mean, count), count * mean, count * (spread + mean * mean)])

    hooks = [norm.register_forward_pre_hook(look) for norm in norms]
    try:
        # Nothing in eval mode changes by what is set below, so that one pass serves every norm, the first and the last.
        net.eval()
        for x in batches:
            net(x)
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    for norm in norms:
        if _world() > 1:
            dist.all_reduce(sums[norm])
        _reparametrise(norm, *sums[norm])


def _reparametrise(norm: nn.BatchNorm2d, count: Tensor, first: Tensor, second: Tensor) -> None:
    """The same function in eval mode with other statistics: from a count, a sum and a sum of squares a channel."""
    if not bool((count > 0).all()):
        raise ValueError("batches: at least one is needed to calibrate batch norms")
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean = first / count
    spread = (second / count - mean * mean).clamp(min=0)
    factor = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    shift = norm.bias.double() - norm.running_mean.double() * factor
    norm.weight.copy_(factor * torch.sqrt(spread + norm.eps))
    norm.bias.copy_(shift + factor * mean)
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(spread)


def _world() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C), sum of squared differences from it (C) and count () of x (B, C, H, W) over all processes, float32 or
    wider: every process's own are exchanged at once and combined (Chan et al., 1983)."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    count = x.numel() // x.shape[1]
    if count:
        spread, mean = torch.var_mean(wide, (0, 2, 3), correction=0)
    else:
        mean = wide.new_zeros(x.shape[1])
        spread = mean
    own = torch.cat([mean, spread * count, mean.new_full((1,), count)])
    parts = [torch.empty_like(own) for _ in range(_world())]
    dist.all_gather(parts, own)
    every = torch.stack(parts)
    channels = x.shape[1]
    means, spreads, counts = every[:, :channels], every[:, channels:-1], every[:, -1:]
    total = counts.sum()
    mean = (means * counts).sum(0) / total
    spread = (spreads + counts * (means - mean) ** 2).sum(0)
    return mean, spread, total


class _Normalise(torch.autograd.Function):
    """(x - mean) factor weight + bias, with the gradient that flows through the shared mean and variance."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, factor: Tensor, count: Tensor
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean, factor, count)
        scale = factor * weight
        return torch.addcmul(_channels(bias - mean * scale), x.to(scale.dtype), _channels(scale)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, factor, count = ctx.saved_tensors
        grad = grads[0].to(mean.dtype)
        unit = (x.to(mean.dtype) - _channels(mean)) * _channels(factor)
        for_bias, for_weight = grad.sum((0, 2, 3)), (grad * unit).sum((0, 2, 3))
        everywhere = torch.stack([for_bias, for_weight])
        dist.all_reduce(everywhere)
        everywhere = everywhere / count
        inner = grad - _channels(everywhere[0]) - unit * _channels(everywhere[1])
        own = (inner * _channels(factor * weight)).to(x.dtype)
        return own, for_weight.to(weight.dtype), for_bias.to(weight.dtype), None, None, None


def _channels(values: Tensor) -> Tensor:
    """(C) -> (C, 1, 1)."""
    return values[:, None, None]
