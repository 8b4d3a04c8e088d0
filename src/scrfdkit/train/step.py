"""One optimiser step: forward, loss, backward, update, average."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from scrfdkit.model.net import SCRFD
from scrfdkit.train import criterion, optimiser
from scrfdkit.train.assign import Targets
from scrfdkit.train.batches import Batch
from scrfdkit.train.processes import Processes
from scrfdkit.train.recipe import Recipe

Forward = Callable[[Tensor], list[Tensor]]

RESULT = (*criterion.NAMES, "gradient")
"""What a step tells, in the order of its result: the losses, and the length of the gradient before it was clipped."""

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def precision_of(recipe: Recipe, device: torch.device) -> str:
    """fp32, bf16, fp16 or fp64."""
    if recipe.precision != "auto":
        return recipe.precision
    return "bf16" if device.type == "cuda" else "fp32"


class Step:
    """Updates a network, its optimiser and its average, all of which it is given and none of which it owns.

    forward: what computes the network's maps; by default the network itself, shared among all processes.
    """

    def __init__(
        self,
        net: SCRFD,
        optimiser: Optimizer,
        recipe: Recipe,
        processes: Processes,
        average: AveragedModel | None = None,
        forward: Forward | None = None,
    ) -> None:
        self.net = net
        self.optimiser = optimiser
        self.recipe = recipe
        self.processes = processes
        self.average = average
        self._shared = _share(net, processes) if forward is None else None
        self._forward: Forward = forward or self._shared or net
        device = processes.device.type
        precision = precision_of(recipe, processes.device)
        self._type = _TYPES.get(precision)
        self._doubled = precision == "fp64"
        # bf16 has the range of float32; the small gradients of fp16 would vanish without being scaled up.
        self.scaler = torch.amp.GradScaler(device, enabled=precision == "fp16")

    def __call__(self, parts: Sequence[Batch], lr: float) -> Tensor:
        """Learns from one batch, taken in parts: (4,) numbers in the order of RESULT, on the device, not waited for.

        The losses are this process's share; their mean over the processes is the loss of the whole batch.
        """
        optimiser.set_lr(self.optimiser, lr)
        self.optimiser.zero_grad(set_to_none=True)
        norms = self._norms_of(parts) if len(parts) > 1 else None
        losses = torch.zeros(len(criterion.NAMES), device=self.processes.device)
        for number, part in enumerate(parts, 1):
            with self._alone(number < len(parts)):
                losses += self.learn(part.images, part.targets, norms)
        return torch.cat([losses, self.update()[None]])

    def learn(self, images: Tensor, targets: Targets, norms: Tensor | None = None) -> Tensor:
        """Adds the gradient of one part of a batch: (3,) its losses. norms: of the whole batch, if that is more."""
        with self._automatic():
            maps = self._forward(images.double() if self._doubled else images)
        terms = criterion.terms(maps, targets, self.net.spec.head, self.recipe.loss)
        if norms is None:
            norms = self._mean(criterion.normalisers(terms.confidence_P, targets))
        losses = criterion.normalise(terms, norms)
        self.scaler.scale(losses.sum()).backward()  # type: ignore[no-untyped-call]
        return losses.detach()

    def update(self) -> Tensor:
        """Moves the weights along the gradient, and the average along the weights: () length of the gradient."""
        self.scaler.unscale_(self.optimiser)
        length = optimiser.clip(self.net.parameters(), self.recipe.optimiser.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average is not None:
            self.average.update_parameters(self.net)
        return length.detach().float()

    def _norms_of(self, parts: Sequence[Batch]) -> Tensor:
        """(2,) What the losses of all parts are divided by. The second number depends on the scores, so that the parts
        must be looked at once before: a third more work is the price for the very gradient of the large batch."""
        norms = torch.zeros(2, device=self.processes.device)
        with torch.no_grad(), _norms_at_rest(self.net), self._automatic():
            for part in parts:
                maps = self.net(part.images.double() if self._doubled else part.images)
                terms = criterion.terms(maps, part.targets, self.net.spec.head, self.recipe.loss)
                norms += criterion.normalisers(terms.confidence_P, part.targets)
        return self._mean(norms)

    def _mean(self, norms: Tensor) -> Tensor:
        """Over the processes, as gradients are; so each process's losses are a share of the whole batch's."""
        return self.processes.total(norms) / self.processes.world

    def _automatic(self) -> AbstractContextManager[None]:
        if self._type is None:
            return nullcontext()
        return torch.autocast(self.processes.device.type, self._type)

    def _alone(self, alone: bool) -> AbstractContextManager[None]:
        """Gradients are exchanged once a step, with the last part."""
        return self._shared.no_sync() if alone and self._shared is not None else nullcontext()


def _share(net: SCRFD, processes: Processes) -> DistributedDataParallel | None:
    """Every process keeps its own running statistics, as in the reference; the first one's are saved."""
    if processes.world == 1:
        return None
    devices = [processes.device.index] if processes.device.type == "cuda" else None
    known = inspect.signature(DistributedDataParallel).parameters  # torch 2.13 gave the option another name
    option = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    return DistributedDataParallel(net, device_ids=devices, **{option: False})  # type: ignore[arg-type]


@contextmanager
def _norms_at_rest(net: nn.Module) -> Iterator[None]:
    """Batch norms use the batch's statistics as in training, and remember nothing of them."""
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
