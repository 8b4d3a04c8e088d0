"""Batches on any machine: threads read, crop and colour pictures with OpenCV while the network learns.

Threads and not processes: reading, resizing and colouring leave Python's lock alone, nothing has to be copied between
processes, and nothing is left behind when a run is killed.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from scrfdkit import image
from scrfdkit.errors import ImageError
from scrfdkit.spec import ModelSpec
from scrfdkit.train import crops
from scrfdkit.train.assign import Targets, assign
from scrfdkit.train.crops import Samples
from scrfdkit.train.faces import Faces
from scrfdkit.train.order import Order
from scrfdkit.train.pixels import opencv
from scrfdkit.train.recipe import Recipe


class Batch(NamedTuple):
    """What one process looks at in one step, or in one part of it.

    images: (B, 3, size, size) normalised RGB, channels last. pictures: (B,) int64 numbers in `Faces`.
    samples: the labels in the samples' pixels.
    """

    images: Tensor
    targets: Targets
    pictures: Tensor
    samples: Samples

    def to(self, device: torch.device) -> Batch:
        """On a device, where the step looks at it; pictures and samples stay where they are."""
        targets = Targets(*(tensor.to(device, non_blocking=True) for tensor in self.targets))
        return self._replace(images=self.images.to(device, non_blocking=True), targets=targets)


@dataclass(frozen=True)
class Share:
    """The part of every batch that one process takes: the `rank`-th of `world`, in `parts` equal parts."""

    rank: int = 0
    world: int = 1
    parts: int = 1

    def of(self, batch: int, part: int) -> slice:
        """The samples of one part. `batch` must be divisible by world * parts."""
        size = batch // (self.world * self.parts)
        first = (self.rank * self.parts + part) * size
        return slice(first, first + size)


@dataclass(frozen=True, eq=False)
class Source:
    """Everything that batches are made from. spec: of the network. folder: of the pictures."""

    faces: Faces
    folder: Path
    order: Order
    recipe: Recipe
    spec: ModelSpec
    share: Share = Share()

    def plan(self, step: int, part: int) -> Plan:
        """Labels, windows and targets of one part of a step."""
        recipe, mine = self.recipe, self.share.of(self.order.batch, part)
        pictures = self.order.pictures(step)[mine]
        uniforms = self.order.uniforms(step, crops.num_uniforms(recipe.crop))[mine]
        faces = self.faces.of(pictures)
        views = crops.draw(faces, uniforms.to(faces.boxes_BG4.device), recipe)
        samples = crops.move(faces, views, recipe.size, clip=recipe.crop.clip, mirror=recipe.mirror)
        return Plan(pictures, views, samples, assign(samples, self.spec.head, recipe.size, recipe.nearest))


class Plan(NamedTuple):
    """A batch without its pixels. views: (B, 11), see `crops.VIEW`."""

    pictures: Tensor
    views: Tensor
    samples: Samples
    targets: Targets


def stream(source: Source, start: int, stop: int, workers: int, *, pinned: bool = False) -> Iterator[list[Batch]]:
    """The parts of each step from `start` to before `stop`, prepared by `workers` threads one step ahead.

    pinned: images lie in memory that a GPU can fetch from by itself.
    Raises ImageError, naming the file, for a picture that cannot be read.
    """
    jobs = [(step, part) for step in range(start, stop) for part in range(source.share.parts)]
    pool = ThreadPoolExecutor(workers, "pictures", initializer=torch.set_num_threads, initargs=(1,))
    try:
        plans = [pool.submit(source.plan, *job) for job in jobs[:2]]
        drawn: list[_Drawing] = []
        parts: list[Batch] = []
        for number in range(len(jobs) + 1):
            if number < len(jobs):
                drawn.append(_start(source, plans.pop(0).result(), pool, pinned))
                if number + 2 < len(jobs):
                    plans.append(pool.submit(source.plan, *jobs[number + 2]))
            if number:
                parts.append(drawn.pop(0).finish())
            if len(parts) == source.share.parts:
                yield parts
                parts = []
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class _Drawing(NamedTuple):
    """A batch whose pictures are being drawn."""

    plan: Plan
    images: Tensor
    done: list[Future[None]]

    def finish(self) -> Batch:
        for future in self.done:
            future.result()
        return Batch(self.images, self.plan.targets, self.plan.pictures, self.plan.samples)


def _start(source: Source, plan: Plan, pool: ThreadPoolExecutor, pinned: bool) -> _Drawing:
    size = source.recipe.size
    shape = (len(plan.pictures), 3, size, size)
    images = torch.empty(shape, memory_format=torch.channels_last, pin_memory=pinned)
    done = [pool.submit(_draw, source, plan, images, place) for place in range(shape[0])]
    return _Drawing(plan, images, done)


def _draw(source: Source, plan: Plan, images: Tensor, place: int) -> None:
    """One sample: the whole picture is decoded, because windows are laid in its full pixels."""
    number = int(plan.pictures[place])
    path = source.folder / source.faces.paths[number]
    picture = image.load(path)
    check_size(path, source.faces.sizes[number], (picture.width, picture.height))
    drawn = opencv.draw(picture.pixels, plan.views[place].tolist(), source.recipe.size, source.spec.input)
    images[place].copy_(torch.from_numpy(drawn))


def check_size(path: Path, told: Tensor, found: tuple[int, int]) -> None:
    """Raises ImageError where a picture has another size than its label says: its boxes would lie elsewhere."""
    width, height = (int(side) for side in told)
    if (width, height) != found:
        raise ImageError(
            f"{path}: is {found[0]}x{found[1]}, its label says {width}x{height}; `scrfd data check` finds all such"
            " pictures"
        )
