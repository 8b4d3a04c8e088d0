"""A step recorded once as a CUDA graph and then replayed: no time goes into telling the GPU the same again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from scrfdkit.train import average, criterion, optimiser, state
from scrfdkit.train.assign import Targets, num_anchors
from scrfdkit.train.batches import Batch
from scrfdkit.train.device import filled, rows_for
from scrfdkit.train.state import State
from scrfdkit.train.step import Forward, Step

_WARM_UP = 3
"""Steps before recording, in which libraries choose their algorithms and allocate what they keep."""


class CapturedStep:
    """What `Step` is, for one process that takes its batch in one part.

    forward: what computes the network's maps fast. Where that, or recording, fails on this GPU, the plain step goes on
    in its place, and `say` hears why. Recording leaves weights, optimiser and average as they were.
    """

    def __init__(self, plain: Step, forward: Forward, say: Callable[[str], None]) -> None:
        self.net, self.scaler = plain.net, plain.scaler
        self._plain, self._say = plain, say
        self._mean: AveragedModel | None = plain.average
        self._fast = Step(plain.net, plain.optimiser, plain.recipe, plain.processes, None, forward)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._failed = False
        self._share = torch.zeros((), device=plain.processes.device)

    def __call__(self, parts: Sequence[Batch], lr: float) -> Tensor:
        """As `Step.__call__`."""
        (part,) = parts
        if not self._failed and not self._fits(part):
            self._record(part)
        if self._failed:
            return self._plain(parts, lr)
        assert self._graph is not None
        optimiser.set_lr(self._plain.optimiser, lr)
        if self._mean is not None:
            seen = int(self._mean.n_averaged)
            self._share.fill_(average.share(self._plain.recipe.average, seen) if seen else 1.0)
            self._mean.n_averaged += 1
        self._put(part)
        self._graph.replay()
        return self._result.clone()

    def _fits(self, part: Batch) -> bool:
        """A larger number of targets than any before takes a new recording; there are few such steps."""
        return self._graph is not None and len(part.targets.valid_P) <= len(self._targets.valid_P)

    def _put(self, part: Batch) -> None:
        self._images.copy_(part.images)
        targets = self._filled(part, len(self._targets.valid_P))
        for held, new in zip(self._targets, targets, strict=True):
            held.copy_(new)

    def _filled(self, part: Batch, rows: int) -> Targets:
        anchors = num_anchors(self.net.spec.head, part.images.shape[-1])
        return filled(part.targets, rows, anchors * len(part.images))

    def _record(self, part: Batch) -> None:
        rule, net = self._plain.optimiser, self.net
        scaler = self.scaler if self.scaler.is_enabled() else None
        before = State(0, state.capture(net, rule, self._mean, scaler))
        self._graph = None  # its memory is free again
        self._images = part.images.clone(memory_format=torch.channels_last)
        self._targets = Targets(*(tensor.clone() for tensor in self._filled(part, rows_for(part.targets))))
        try:
            self._graph, self._result = self._recorded()
        except Exception as error:  # compilers, drivers and torch itself raise many kinds
            self._failed = True
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
            self._say(f"warning: the fast step does not run here, the plain one is taken: {reason}")
            torch.cuda.synchronize()
        rule.zero_grad(set_to_none=True)
        state.restore(before, net, rule, self._mean, scaler)

    def _recorded(self) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_UP):
                self._body()
        torch.cuda.current_stream().wait_stream(aside)
        torch.cuda.synchronize()
        self._plain.optimiser.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = self._body()
        return graph, result

    def _body(self) -> Tensor:
        self._plain.optimiser.zero_grad(set_to_none=True)
        losses = self._fast.learn(self._images, self._targets)
        length = self._fast.update()
        if self._mean is not None:
            average.blend(average.tensors(self._mean.module), average.tensors(self.net), self._share)
        assert len(losses) == len(criterion.NAMES)
        return torch.cat([losses, length[None]])
