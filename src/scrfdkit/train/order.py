"""Which pictures a step looks at and with which uniform numbers: a pure function of the seed and the step.

Therefore a resumed run goes on with the very same samples, whatever prepares them, and several processes share a batch
without talking to each other.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


@dataclass(frozen=True)
class Order:
    """num_pictures: of the training set. batch: pictures of a step over all processes."""

    num_pictures: int
    batch: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """The last batch of an epoch is filled up with the first pictures of its order."""
        return -(-self.num_pictures // self.batch)

    def pictures(self, step: int) -> Tensor:
        """(batch,) int64 numbers of the pictures of a step, on the CPU."""
        epoch, within = divmod(step, self.steps_per_epoch)
        places = torch.arange(within * self.batch, (within + 1) * self.batch) % self.num_pictures
        return _shuffled(self.num_pictures, self.seed, epoch)[places]

    def uniforms(self, step: int, number: int) -> Tensor:
        """(batch, number) float32 in [0, 1), on the CPU."""
        return torch.rand(self.batch, number, generator=_generator(self.seed, "uniforms", step))


@lru_cache(maxsize=4)
def _shuffled(num_pictures: int, seed: int, epoch: int) -> Tensor:
    return torch.randperm(num_pictures, generator=_generator(seed, "order", epoch))


def _generator(seed: int, purpose: str, number: int) -> torch.Generator:
    """Seeds of neighbouring steps must have nothing in common, which sums of small numbers would have."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{number}".encode(), digest_size=7).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big"))
