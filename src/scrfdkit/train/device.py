"""Batches on a GPU: every picture is decoded once into its memory, and samples are drawn there by one kernel.

Labels, windows and targets stay small work for CPU threads, a few steps ahead; they cross to the GPU by themselves, so
that nothing in a step waits for anything.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from scrfdkit.errors import DeviceError
from scrfdkit.spec import Input
from scrfdkit.train.assign import Targets, num_anchors
from scrfdkit.train.batches import Batch, Plan, Source, check_size
from scrfdkit.train.pixels import plain
from scrfdkit.train.pixels.store import Store

Draw = Callable[[Store, Tensor, Tensor, int, Input, torch.dtype], Tensor]
"""`pixels.plain.draw` or `pixels.fused.draw`."""

AHEAD = 8
"""Steps that are planned before they are needed."""

_ROOM = 256
"""Targets have as many rows as this, or twice, four times ... as many, so that a recorded step fits most batches."""

_GREY_LEVEL = 0.01


def load(source: Source, device: torch.device, long_side: int, workers: int) -> tuple[Store, Source]:
    """Decodes every picture into the device's memory; the source that goes with it has its labels in their sizes.

    Raises DeviceError where they do not fit, ImageError for a picture that cannot be read or has another size than its
    label says.
    """
    faces = source.faces
    paths = [source.folder / path for path in faces.paths]
    store = Store.load(paths, device, long_side=long_side, workers=workers)
    scales, sizes = store.scales.cpu(), store.sizes.cpu()
    whole = (sizes / scales[:, None]).round()
    for path, told, found in zip(paths, faces.sizes, whole, strict=True):
        if ((told - found).abs() > 1 / scales.min()).any():
            check_size(path, told, (int(found[0]), int(found[1])))
    return store, replace(source, faces=replace(faces.scaled(scales), sizes=sizes.float()))


def stream(
    source: Source, store: Store, start: int, stop: int, workers: int, draw: Draw, dtype: torch.dtype
) -> Iterator[list[Batch]]:
    """The parts of each step from `start` to before `stop`; images are of type `dtype`, on the store's device."""
    device = store.pixels.device
    anchors = num_anchors(source.spec.head, source.recipe.size)
    jobs = iter([(step, part) for step in range(start, stop) for part in range(source.share.parts)])
    waiting: deque[Future[Plan]] = deque()
    pool = ThreadPoolExecutor(max(1, min(workers, AHEAD)), "plans", initializer=torch.set_num_threads, initargs=(1,))

    def plan(step: int, part: int) -> Plan:
        made = source.plan(step, part)
        return made._replace(targets=filled(made.targets, rows_for(made.targets), anchors * len(made.pictures)))

    def more() -> None:
        job = next(jobs, None)
        if job is not None:
            waiting.append(pool.submit(plan, *job))

    try:
        for _ in range(AHEAD):
            more()
        parts: list[Batch] = []
        while waiting:
            made = waiting.popleft().result()
            more()
            rows, views = (_sent(tensor, device) for tensor in (made.pictures, made.views))
            images = draw(store, rows, views, source.recipe.size, source.spec.input, dtype)
            targets = Targets(*(_sent(tensor, device) for tensor in made.targets))
            parts.append(Batch(images, targets, made.pictures, made.samples))
            if len(parts) == source.share.parts:
                yield parts
                parts = []
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def drawing(device: torch.device, compile: bool, say: Callable[[str], None]) -> Draw:
    """The kernel, if it runs on this device and equals the plain function there; else the plain function."""
    if not compile or device.type != "cuda":
        return plain.draw
    try:
        from scrfdkit.train.pixels import fused

        difference = fused.check(device)
    except Exception as error:  # a compiler's, and a missing package's, are of many kinds
        say(f"warning: pictures are drawn without the fused kernel: {type(error).__name__}: {error}")
        return plain.draw
    if not difference < _GREY_LEVEL:
        say(f"warning: pictures are drawn without the fused kernel: it is {difference:.3g} grey levels off here")
        return plain.draw
    return fused.draw


def filled(targets: Targets, rows: int, anchors: int) -> Targets:
    """Targets with `rows` rows, the further ones not valid; all sums stay the same.

    anchors: of all samples. The further rows point at different ones, because a GPU adds up gradients that go to the
    same place one after the other.
    """
    more = rows - len(targets.valid_P)

    def longer(tensor: Tensor) -> Tensor:
        return torch.cat([tensor, tensor.new_zeros(more, *tensor.shape[1:])])

    anchor_P, *per_row, num_positives = targets
    further = torch.arange(more, device=anchor_P.device) % anchors
    return Targets._make([torch.cat([anchor_P, further]), *map(longer, per_row), num_positives])


def rows_for(targets: Targets) -> int:
    """Rows that targets are filled up to."""
    rows = _ROOM
    while rows < len(targets.valid_P):
        rows *= 2
    return rows


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type != "cuda":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def no_gpu() -> DeviceError:
    """For those who ask for this road where it does not lead."""
    return DeviceError("road: device keeps every picture in a GPU's memory, and this run is on the CPU; use workers")
