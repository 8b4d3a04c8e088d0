"""The learning rate of every step, from the step alone: a run that goes on needs nothing else to know where it is."""

from __future__ import annotations

import math

from scrfdkit.train.recipe import Schedule

LONGEST_WARMUP = 0.1
"""Share of all steps that the warm-up may take: a schedule made for a long run must not fill a short one."""


def learning_rate(schedule: Schedule, lr: float, step: int, steps: int) -> float:
    """The learning rate of step number `step`, counted from 0, of a run of `steps`.

    lr: the highest rate. The drops of the "step" shape come after their shares of the steps; the cosine shapes reach
    `end` x lr on the last step. In the warm-up, at most a tenth of all steps, the rate is lr_t = lr_regular (1 - (1
    - t / warmup) (1 - start)), as in mmcv's linear warm-up.
    """
    regular = lr * _factor(schedule, step, steps)
    warmup = warmup_steps(schedule, steps)
    if step >= warmup:
        return regular
    return regular * (1 - (1 - step / warmup) * (1 - schedule.start))


def warmup_steps(schedule: Schedule, steps: int) -> int:
    """Steps of the warm-up in a run of `steps`."""
    return min(schedule.warmup, int(steps * LONGEST_WARMUP))


def _factor(schedule: Schedule, step: int, steps: int) -> float:
    if schedule.shape == "step":
        return float(0.1 ** sum(step >= round(share * steps) for share in schedule.drops))
    flat = schedule.flat * steps if schedule.shape == "flat-cosine" else 0.0
    last = steps - 1
    if step <= flat:
        return 1.0
    progress = min((step - flat) / (last - flat), 1.0) if last > flat else 1.0
    return schedule.end + (1 - schedule.end) * 0.5 * (1 + math.cos(math.pi * progress))
