"""Time from file content to faces, a picture at a time, split into what it is spent on."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scrfdkit import steps
from scrfdkit.detector import Detector
from scrfdkit.runtime.base import Runtime
from scrfdkit.types import Floats

STAGES = ("decode", "preprocess", "network", "postprocess", "total")


@dataclass(frozen=True)
class Spread:
    """Milliseconds a picture: minimum, median and 95th percentile of the repetitions."""

    min: float
    median: float
    p95: float


def spread(milliseconds: Sequence[float]) -> Spread:
    """Raises ValueError for an empty list."""
    ordered = sorted(milliseconds)
    return Spread(ordered[0], statistics.median(ordered), ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))])


def latency(
    detector: Detector,
    pictures: Sequence[bytes],
    *,
    repeat: int = 50,
    warmup: int = 5,
    batch: int = 1,
    progress: Callable[[int], None] = lambda _: None,
    **options: Any,
) -> dict[str, Spread]:
    """Spread of every stage and of the total over `repeat` runs, after `warmup` that do not count.

    pictures: file contents, taken in turn, `batch` a run; figures are divided by it. The stages are those of
    `Detector.detect_batch`, with the clock read between them; "total" is that method itself, in runs of its own.
    """
    chosen = detector.options.override(batch_size=batch, **options)
    times: dict[str, list[float]] = {stage: [] for stage in STAGES}
    for run in range(-warmup, repeat):
        some = [pictures[(run * batch + i) % len(pictures)] for i in range(batch)]
        measured = _stages(detector, some, chosen)
        start = time.perf_counter()
        detector.detect_batch(some, batch_size=batch, **options)
        measured["total"] = time.perf_counter() - start
        if run >= 0:
            for stage, seconds in measured.items():
                times[stage].append(1000 * seconds / batch)
            progress(run + 1)
    return {stage: spread(values) for stage, values in times.items()}


def network(
    runtime: Runtime, blob: Floats, *, repeat: int, warmup: int = 5, progress: Callable[[int], None] = lambda _: None
) -> Spread:
    """Spread of the time of one run on a blob (B, 3, H, W), not divided by B, over `repeat` runs one after another."""
    times = []
    for run in range(-warmup, repeat):
        start = time.perf_counter()
        runtime.run(blob)
        if run >= 0:
            times.append(1000 * (time.perf_counter() - start))
            progress(run + 1)
    return spread(times)


def _stages(detector: Detector, pictures: Sequence[bytes], options: Any) -> dict[str, float]:
    clock = time.perf_counter
    start = clock()
    loaded = detector.load(pictures, options)
    spent = {"decode": clock() - start, "preprocess": 0.0, "network": 0.0, "postprocess": 0.0}
    candidates = []
    for batch in detector.plan(loaded, options):
        marks = [clock()]
        blob = steps.preprocess(batch, detector.input, detector.runtime.batch_size)
        marks.append(clock())
        outputs = detector.runtime.run(blob)
        marks.append(clock())
        candidates += steps.postprocess(outputs, detector.layout, batch, options)
        marks.append(clock())
        for stage, first, last in zip(STAGES[1:4], marks[:-1], marks[1:], strict=True):
            spent[stage] += last - first
    start = clock()
    steps.merge(candidates, loaded, options)
    spent["postprocess"] += clock() - start
    return spent


def as_record(spreads: dict[str, Spread]) -> dict[str, dict[str, float]]:
    """The spreads as plain data, milliseconds to a thousandth."""
    return {stage: {k: round(v, 3) for k, v in asdict(s).items()} for stage, s in spreads.items()}
