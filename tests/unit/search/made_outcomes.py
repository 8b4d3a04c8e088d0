"""Searches made up for tests: networks near the official 2.5G one, with scores that have a known best place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from scrfdkit.model.cost import cost
from scrfdkit.search.candidate import Candidate, Outcome, shares
from scrfdkit.search.summary import Summary
from scrfdkit.spec import ModelSpec
from scrfdkit.zoo import ZOO

SPEC = ZOO["scrfd_2.5g"].spec


def candidate(number: int, traits: Mapping[str, float] | None = None, spec: ModelSpec = SPEC) -> Candidate:
    return Candidate(number, spec, traits=traits or {})


def done(number: int, score: float, traits: Mapping[str, float] | None = None) -> Outcome:
    return Outcome(candidate(number, traits), "done", 80, 1, {"hard": score}, score, 3600.0)


def planted(count: int, best: float, noise: float = 0.3, seed: int = 0) -> list[Outcome]:
    """Scores fall with the distance of trait "near" from `best`; trait "other" has nothing to do with them."""
    random = np.random.default_rng(seed)
    near, other = random.random((2, count))
    scores = 70 - 50 * (near - best) ** 2 + random.normal(0, noise, count)
    rows = zip(near.tolist(), other.tolist(), scores.tolist(), strict=True)
    return [done(i, score, {"near": x, "other": y}) for i, (x, y, score) in enumerate(rows, 1)]


def networks(count: int, seed: int = 0) -> list[Outcome]:
    """Real networks of both residual kinds, with their shares as traits."""
    random = np.random.default_rng(seed)
    found = []
    for number in range(1, count + 1):
        blocks = tuple(random.integers(1, 6, 4).tolist())
        widths = tuple((8 * random.integers(2, 12, 4)).tolist())
        body = replace(SPEC.backbone, block=("basic", "bottleneck")[number % 2], blocks=blocks, widths=widths)
        spec = replace(SPEC, backbone=body)
        traits = shares(spec)
        score = 70 - 40 * (traits["C2"] - 0.3) ** 2 + random.normal(0, 0.5)
        scores = {"easy": score + 18, "hard": score}
        found.append(Outcome(candidate(number, traits, spec), "done", 80, 1, scores, score, 3600.0))
    return found


def summary(outcomes: Sequence[Outcome], timed: bool = False, winners: Sequence[int] = ()) -> Summary:
    """A page's worth of facts about them."""
    numbers = [one.candidate.number for one in outcomes]
    costs = {one.candidate.number: cost(one.candidate.spec) for one in outcomes}
    return Summary(
        title="Search for 2.5 GFLOPs",
        facts={"space": "backbone", "data": "train.txt"},
        notes=(),
        outcomes=outcomes,
        gflops={number: costs[number].flops / 1e9 for number in numbers},
        params={number: costs[number].params for number in numbers},
        milliseconds={number: 2 + number % 7 for number in numbers} if timed else {},
        latency_note="one thread" if timed else "",
        objective="hard",
        winners=winners,
        names={one.candidate.number: one.candidate.spec.backbone.block for one in outcomes},
    )
