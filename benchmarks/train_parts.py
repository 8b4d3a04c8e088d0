"""Parts of a training step, each by itself: what `train_throughput.py` measures besides the training as a whole."""

from __future__ import annotations

import copy
import gc
import statistics
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from scrfdkit import image
from scrfdkit.model.net import SCRFD
from scrfdkit.train import average, batches, device, optimiser
from scrfdkit.train.assign import assign
from scrfdkit.train.batches import Batch, Source
from scrfdkit.train.captured import CapturedStep
from scrfdkit.train.kernels.accelerate import accelerate, chains_of
from scrfdkit.train.kernels.check import usable
from scrfdkit.train.pixels import opencv, plain
from scrfdkit.train.processes import Processes
from scrfdkit.train.recipe import Recipe
from scrfdkit.train.settings import Settings
from scrfdkit.train.step import Forward, Step

READY = {"cpu": 2, "cuda": 4}
"""Batches that the steps take in turn."""

WARM_UP = {"cpu": 1, "cuda": 3}
"""Times that each of them is learnt from before anything counts."""


@dataclass(frozen=True)
class Variant:
    """One way to compute a step."""

    name: str
    precision: str
    compiled: bool = False
    kernels: bool = False
    graph: bool = False


PLAIN = (Variant("plain, fp32", "fp32"), Variant("plain, bf16", "bf16"))


@dataclass(frozen=True, eq=False)
class Setup:
    """What is measured: a network on its device, and what its batches are made from."""

    settings: Settings
    processes: Processes
    source: Source
    net: SCRFD
    workers: int
    repeat: int

    @property
    def device(self) -> torch.device:
        return self.processes.device


class Learner(NamedTuple):
    """A copy of the network with all that changes in a step."""

    net: SCRFD
    rule: Optimizer
    mean: AveragedModel | None
    recipe: Recipe
    forward: Forward


class Marks:
    """Moments in a step on the device's own time line, and the milliseconds up to each from the one before."""

    def __init__(self, place: torch.device) -> None:
        self._cuda = place.type == "cuda"
        self._steps: list[dict[str, Any]] = []

    def begin(self) -> None:
        self._steps.append({})
        self.reach("begin")

    def reach(self, name: str) -> None:
        """Takes the moment, unless the step has been there already."""
        if name not in self._steps[-1]:
            self._steps[-1][name] = self._now()

    def forget(self) -> None:
        self._steps.clear()

    def medians(self) -> dict[str, float]:
        if self._cuda:
            torch.cuda.synchronize()
        spans = {b: [self._span(step[a], step[b]) for step in self._steps] for a, b in pairwise(self._steps[0])}
        return {name: statistics.median(values) for name, values in spans.items()}

    def _now(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def _span(self, begin: Any, end: Any) -> float:
        return float(begin.elapsed_time(end)) if self._cuda else 1000 * (end - begin)


class Listener:
    """Who a training tells of its progress: keeps what it says."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def begin(self, total_steps: int, start_step: int, steps_per_epoch: int) -> None: ...
    def update(self, step: int, numbers: Mapping[str, float]) -> None: ...
    def saving(self, step: int) -> None: ...
    def saved(self, step: int, epoch: int) -> None: ...
    def say(self, text: str) -> None:
        self.notes.append(text)

    def warnings(self) -> list[str]:
        return [note for note in self.notes if note.startswith(("warning", "pictures are read anew"))]


def loader(setup: Setup, steps: int) -> dict[str, float]:
    """Milliseconds a batch: processor time of one thread for each part, and wall time of the loader by itself."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)  # so that this thread's clock sees all of it
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        row = pool.submit(_samples, setup.source, steps).result()
    cv2.setNumThreads(before)
    stream = batches.stream(setup.source, 0, steps + 6, setup.workers)  # has work ahead until the end
    for _ in range(3):
        next(stream)
    start = time.perf_counter()
    for _ in range(steps):
        next(stream)
    return row | {"whole": 1000 * (time.perf_counter() - start) / steps}


def _samples(source: Source, steps: int) -> dict[str, float]:
    """In this thread, one sample after the other. Targets are made once more, to see how much of a plan they are."""
    recipe, head, times = source.recipe, source.spec.head, []
    for step in range(steps + 1):
        moments = [time.thread_time()]
        plan = source.plan(step, 0)
        moments.append(time.thread_time())
        assign(plan.samples, head, recipe.size, recipe.nearest)
        moments.append(time.thread_time())
        pictures = [image.load(source.folder / source.faces.paths[int(number)]).pixels for number in plan.pictures]
        moments.append(time.thread_time())
        for picture, view in zip(pictures, plan.views.tolist(), strict=True):
            opencv.draw(picture, view, recipe.size, source.spec.input)
        moments.append(time.thread_time())
        times.append(1000 * np.diff(moments))
    medians = np.median(times[1:], axis=0).tolist()  # the first one fills caches
    return dict(zip(("plan", "of it targets", "decode", "draw"), medians, strict=True))


def lay_ready(setup: Setup) -> list[Batch]:
    """Some batches on the device."""
    number = READY[setup.device.type]
    return [part.to(setup.device) for (part,) in batches.stream(setup.source, 0, number, setup.workers)]


def drawing(setup: Setup) -> dict[str, Any]:
    """Milliseconds a batch from pictures in the GPU's memory."""
    heard, place = Listener(), setup.device
    start = time.perf_counter()
    store, kept = device.load(setup.source, place, setup.settings.store_side, setup.workers)
    row: dict[str, Any] = {"seconds to fill the memory": time.perf_counter() - start}
    row["GB of pictures"] = store.pixels.nbytes / 1e9
    plan = kept.plan(0, 0)
    rows, views = plan.pictures.to(place), plan.views.to(place)
    fused = device.drawing(place, True, heard.say)
    for name, draw in (("plain", plain.draw), *([] if fused is plain.draw else [("kernel", fused)])):
        marks = Marks(place)
        for number in range(13):
            if number == 3:
                marks.forget()
            marks.begin()
            draw(store, rows, views, kept.recipe.size, kept.spec.input, torch.bfloat16)
            marks.reach(f"draw, {name}")
        row |= marks.medians()
    return row | ({"notes": heard.notes} if heard.notes else {})


def variants(setup: Setup) -> tuple[list[Variant], list[str]]:
    """The ways that make sense for this network on this device, and why others do not."""
    if setup.device.type != "cuda":
        return list(PLAIN), []
    reason = usable(setup.device, setup.net.spec, torch.bfloat16)
    if reason is None and not chains_of(setup.net):
        reason = "this network has no part for them"
    kernels = reason is None
    rows = [*PLAIN, Variant("compiled", "bf16", compiled=True)]
    if kernels:
        rows.append(Variant("compiled, kernels", "bf16", compiled=True, kernels=True))
    rows.append(Variant(f"{rows[-1].name}, CUDA graph", "bf16", compiled=True, kernels=kernels, graph=True))
    return rows, [] if kernels else [f"without kernels: {reason}"]


def learner(setup: Setup, variant: Variant) -> Learner:
    net = copy.deepcopy(setup.net)
    recipe = setup.settings.recipe.change({"precision": variant.precision})
    mean = average.make(net, recipe.average) if recipe.average else None
    forward = accelerate(net, chains=variant.kernels) if variant.compiled else net
    return Learner(net, optimiser.make(net, recipe.optimiser), mean, recipe, forward)


def step_row(setup: Setup, variant: Variant, ready: Sequence[Batch], steps: int) -> dict[str, Any]:
    """Parts of a step, the whole, pictures a second and memory."""
    dtype = torch.bfloat16 if variant.precision == "bf16" else torch.float32
    ready = [batch._replace(images=batch.images.to(dtype)) for batch in ready]
    before = clean(setup.device)
    torch.backends.cudnn.benchmark = variant.compiled  # as the training has it
    parts, heard = learner(setup, variant), Listener()
    owned = (parts.net, parts.rule, parts.recipe, setup.processes, parts.mean)
    step = CapturedStep(Step(*owned), parts.forward, heard.say) if variant.graph else Step(*owned, parts.forward)
    whole, processor = _pace(step, ready, parts.recipe.optimiser.lr / 1000, steps, setup)
    if heard.notes:  # it went on with the plain step, which is not what was to be measured
        raise RuntimeError(heard.notes[0])
    row: dict[str, Any] = {"step": whole, "pictures_per_second": 1000 * parts.recipe.batch / whole}
    row["processor"] = processor
    if setup.device.type == "cuda":
        row["peak_gib"] = (torch.cuda.max_memory_allocated(setup.device) - before) / 2**30
    if not variant.graph:  # nothing inside a recorded step can be timed
        row["parts"] = _parts(setup, parts, ready, steps)
    return row


def _pace(
    step: Step | CapturedStep, ready: Sequence[Batch], lr: float, steps: int, setup: Setup
) -> tuple[float, float]:
    """Milliseconds a step, and of processor time. lr: small, because nothing good is learnt from so few batches."""
    for batch in (*ready,) * WARM_UP[setup.device.type]:
        step([batch], lr)
    times = []
    for _ in range(setup.repeat):
        _synchronise(setup.device)
        start, processor = time.perf_counter(), time.process_time()
        for number in range(steps):
            step([ready[number % len(ready)]], lr)
        _synchronise(setup.device)
        times.append((time.perf_counter() - start, time.process_time() - processor))
    whole, processor = (1000 * statistics.median(column) / steps for column in zip(*times, strict=True))
    return whole, processor


def _parts(setup: Setup, parts: Learner, ready: Sequence[Batch], steps: int) -> dict[str, float]:
    """Milliseconds of forward, loss, backward, update and average, of the real step with marks in it."""
    marks = Marks(setup.device)

    def forward(images: Tensor) -> list[Tensor]:
        maps = parts.forward(images)
        marks.reach("forward")
        for one in maps:  # the first gradient that arrives here ends the loss's part
            one.register_hook(lambda _: marks.reach("loss"))  # type: ignore[no-untyped-call]
        return maps

    step = Step(parts.net, parts.rule, parts.recipe, setup.processes, None, forward)
    for number in range(steps + len(ready)):
        if number == len(ready):
            marks.forget()
        batch = ready[number % len(ready)]
        marks.begin()
        step.learn(batch.images, batch.targets)
        marks.reach("backward")
        step.update()
        parts.rule.zero_grad(set_to_none=True)
        marks.reach("update")
        if parts.mean is not None:
            parts.mean.update_parameters(parts.net)
            marks.reach("average")
    return marks.medians()


def clean(place: torch.device) -> int:
    """Bytes that tensors have on the GPU after everything that is not needed any more is gone."""
    gc.collect()
    if place.type != "cuda":
        return 0
    torch.compiler.reset()  # networks compiled earlier must not count against a later one
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(place)
    return torch.cuda.memory_allocated(place)


def _synchronise(place: torch.device) -> None:
    if place.type == "cuda":
        torch.cuda.synchronize(place)
