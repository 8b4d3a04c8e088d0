"""From settings to everything that the first step needs: labels, network, optimiser, and the way of the batches."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from scrfdkit.data import formats
from scrfdkit.data.pictures import complete_folder
from scrfdkit.data.words import plural
from scrfdkit.errors import DeviceError, OptionError
from scrfdkit.machine import usable_cores
from scrfdkit.spec import ModelSpec
from scrfdkit.train import average, batches, device, norms, optimiser, state
from scrfdkit.train.batches import Batch, Share, Source
from scrfdkit.train.captured import CapturedStep
from scrfdkit.train.crops import mirror_order
from scrfdkit.train.faces import Faces, choose
from scrfdkit.train.kernels.accelerate import accelerate
from scrfdkit.train.kernels.check import usable
from scrfdkit.train.order import Order
from scrfdkit.train.pixels.store import BYTES
from scrfdkit.train.processes import Processes
from scrfdkit.train.settings import Settings
from scrfdkit.train.start import Begin, begin
from scrfdkit.train.state import State
from scrfdkit.train.step import Step, precision_of

Say = Callable[[str], None]
Batches = Callable[[int, int], Iterator[list[Batch]]]
"""From a step to before another: the parts of each batch."""

_CALIBRATION = 8
"""Batches that batch norms are fitted to, where weights came without."""


@dataclass(eq=False)
class Ready:
    """All that a run is made of. first: the step it goes on with. steps: where it ends."""

    settings: Settings
    processes: Processes
    begin: Begin
    source: Source
    batches: Batches
    optimiser: Optimizer
    average: AveragedModel | None
    step: Step | CapturedStep
    first: int
    steps: int
    best: dict[str, float]
    settled: bool
    spent: float

    def words(self) -> dict[str, str]:
        """What a resumed run must know of where the weights came from, which may be gone by then."""
        return {"name": self.begin.name, "licence": self.begin.licence, "source": self.begin.source}


def prepare(settings: Settings, processes: Processes, say: Say, resume: bool) -> Ready:
    """Reads labels and weights, builds everything, and goes back to the newest checkpoint if `resume`.

    Raises ScrfdError for whatever would stop the run later: labels, missing pictures, weights, a batch that cannot be
    shared.
    """
    recipe = settings.recipe
    processes.share(recipe.batch, recipe.accumulate)  # refuses a batch that cannot be dealt out
    torch.manual_seed(settings.seed)
    found = state.latest(Path(settings.output), say) if resume else None
    saved = state.load(found) if found is not None else None
    if processes.device.type == "cuda":
        # fp32 means fp32: with TF32, key points of the same weights move by up to 0.4 pixels.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    start = _begin(settings) if saved is None else _again(settings, saved)
    for note in start.notes:
        say(note)
    faces, folder = _read(settings, start, say)
    processes.agree({"settings": settings.to_json(), "labels": _digest(faces), "network": start.spec.to_json()})
    order = Order(len(faces), recipe.batch, settings.seed)
    share = Share(processes.rank, processes.world, recipe.accumulate)
    source, ways = _ways(settings, processes, Source(faces, folder, order, recipe, start.spec, share), say)
    net = start.net.to(device=processes.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    if recipe.sync_norms and processes.world > 1:
        norms.synchronise(net)
    steps = recipe.steps or recipe.epochs * order.steps_per_epoch
    if start.folded and saved is None:
        seen = (part.images.float() for parts in ways(0, min(_CALIBRATION, steps)) for part in parts)
        norms.calibrate_norms(net, seen)
    if recipe.precision == "fp64":
        net.double()
    mean = average.make(net, recipe.average) if recipe.average else None
    rule = optimiser.make(net, recipe.optimiser)
    step = _step(settings, Step(net, rule, recipe, processes, mean), say)
    best: dict[str, float] = {}
    settled = saved is not None and "steps" in saved.settings
    first, spent = 0, 0.0
    if saved is not None:
        state.restore(saved, net, rule, mean, step.scaler if step.scaler.is_enabled() else None)
        first, best = saved.step, dict(saved.best)
        steps, spent = int(saved.settings.get("steps", steps)), float(saved.settings.get("spent", 0.0))
        say(f"goes on after step {first} of {steps}")
    return Ready(settings, processes, start, source, ways, rule, mean, step, first, steps, best, settled, spent)


def _begin(settings: Settings) -> Begin:
    return begin(
        settings.model,
        weights=settings.weights,
        num_keypoints=settings.num_keypoints,
        norm=settings.norm,
        freeze=settings.freeze,
    )


def _again(settings: Settings, saved: State) -> Begin:
    """The network of a checkpoint, which needs none of the files that the run began with."""
    name, licence, source = (str(saved.settings.get(word, "")) for word in ("name", "licence", "source"))
    fresh = begin(ModelSpec.from_json(saved.spec), freeze=settings.freeze)
    return replace(fresh, notes=(), folded=False, name=name, licence=licence, source=source)


def _read(settings: Settings, start: Begin, say: Say) -> tuple[Faces, Path]:
    """Labels fit for training, and the folder of their pictures, all of which are there."""
    path = Path(settings.data)
    images = Path(settings.images) if settings.images is not None else None
    reading = formats.scan(path, format=settings.format, images=images, strict=True)
    for what, number in reading.not_read.items():
        say(f"not read: {number:,} x {what}")
    folder = complete_folder(path, (image.path for image in reading.images), images)
    num_keypoints = start.spec.head.num_keypoints
    chosen = choose(reading.images, folder, num_keypoints, backgrounds=settings.recipe.backgrounds)
    if settings.recipe.flip:
        mirror_order(num_keypoints, settings.recipe.mirror)
    for note in chosen.notes:
        say(note)
    labelled = int((chosen.faces.points[..., 2] >= 0).any(1).sum()) if num_keypoints else 0
    number = int(chosen.faces.counts.sum())
    points = f", {labelled:,} of them with key points" if num_keypoints else ""
    say(f"learns from {plural(len(chosen.faces), 'picture')} with {number:,} faces{points}")
    if num_keypoints and not labelled:
        raise OptionError(
            f"data: no face of {path} has key points, which {start.name} learns; take a network without, like"
            " scrfd_2.5g, or --keypoints 0"
        )
    return chosen.faces, folder


def _digest(faces: Faces) -> str:
    total = [faces.boxes.double().sum(), faces.points.double().sum(), faces.sizes.double().sum()]
    return f"{len(faces)} {[float(v) for v in total]} {faces.paths[:1]}"


def _ways(settings: Settings, processes: Processes, source: Source, say: Say) -> tuple[Source, Batches]:
    """How batches reach the network, and what they are made from."""
    workers, place = settings.workers or _cores(processes), processes.device
    if place.type != "cuda":
        if settings.road == "device":
            raise device.no_gpu()
        return source, lambda first, stop: batches.stream(source, first, stop, workers)
    if settings.road != "workers":
        try:
            store, kept = device.load(source, place, settings.store_side, workers)
        except DeviceError as error:
            if settings.road == "device":
                raise
            say(f"pictures are read anew for every sample: {error}")
        else:
            say(f"{len(kept.faces):,} pictures take {BYTES * len(store.pixels) / 1e9:.1f} GB of the GPU's memory")
            draw = device.drawing(place, settings.compile, say)
            dtype = torch.bfloat16 if precision_of(settings.recipe, place) == "bf16" else torch.float32
            return kept, lambda first, stop: device.stream(kept, store, first, stop, workers, draw, dtype)

    def road(first: int, stop: int) -> Iterator[list[Batch]]:
        for parts in batches.stream(source, first, stop, workers, pinned=True):
            yield [part.to(place) for part in parts]

    return source, road


def _step(settings: Settings, plain: Step, say: Say) -> Step | CapturedStep:
    """The plain step, or on one GPU the fast one, with those kernels that prove to be right there."""
    place, recipe = plain.processes.device, settings.recipe
    precision = precision_of(recipe, place)
    alone = plain.processes.world == 1 and recipe.accumulate == 1
    if place.type != "cuda" or not (settings.compile and alone) or precision not in ("bf16", "fp32"):
        return plain
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    reason = usable(place, plain.net.spec, dtype) if precision == "bf16" else None
    if reason is not None:
        say(f"warning: depth-wise layers run without the fused kernels: {reason}")
    torch.backends.cudnn.benchmark = True
    return CapturedStep(plain, accelerate(plain.net, dtype=dtype, chains=reason is None), say)


def _cores(processes: Processes) -> int:
    """This process's share of the cores of its machine."""
    return max(1, usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", processes.world)))
