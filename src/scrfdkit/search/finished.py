"""What comes out of a search: its winners as descriptions of networks, and the space of the next step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scrfdkit import atomic, network
from scrfdkit.errors import OptionError, ScrfdError
from scrfdkit.model.checkpoint import read_header
from scrfdkit.network import Network, Weights
from scrfdkit.search import space as spaces
from scrfdkit.search.bootstrap import Range, ranges
from scrfdkit.search.candidate import BACKBONE, Outcome
from scrfdkit.search.choice import choose
from scrfdkit.search.plan import Plan, load
from scrfdkit.search.space import CropSpace, WholeSpace
from scrfdkit.search.store import Store
from scrfdkit.search.training import Training
from scrfdkit.search.words import describe, length
from scrfdkit.spec import ModelSpec

WEIGHTS = "last.safetensors"
NARROWED = "narrowed.json"


def publish(
    plan: Plan, training: Training | None, outcome: Outcome, path: Path, milliseconds: Mapping[int, float]
) -> Network:
    """Writes the description of a candidate that is done, and its weights beside it under the same name.

    path: ends in .json. Raises ScrfdError where they cannot be written, WeightError for damaged weights.
    """
    candidate = outcome.candidate
    weights = path.with_suffix(".safetensors")
    stored = plan.run_folder(candidate) / WEIGHTS
    read_header(stored)  # which names the file that is damaged, before an older winner is replaced
    try:
        atomic.save(weights, stored.read_bytes())
    except OSError as error:
        raise ScrfdError(f"{stored}: cannot be read: {error.strerror or error}") from None
    measured = dict(outcome.scores)
    if candidate.number in milliseconds:
        measured["milliseconds"] = milliseconds[candidate.number]
    learnt = ""
    if training is not None:
        learnt = f", {length(training.recipe)} of the recipe {training.recipe.name}"
    made = Network(
        path.stem,
        candidate.spec,
        Weights.of(weights),
        measured,
        f"scrfd search: candidate {candidate.number} of {describe(plan)}{learnt}",
    )
    network.save(path, made)
    if candidate.recipe and training is not None:
        recipe = training.recipe.change({**candidate.recipe, "name": path.stem})
        atomic.save(path.with_suffix(".recipe.json"), recipe.to_json().encode())
    return made


def narrowed(plan: Plan, winner: Outcome, found: Mapping[str, Range]) -> WholeSpace | None:
    """The space of the next step: whole detectors around the winner's backbone, each of whose parts has a share of its
    FLOPs in the range that went with high scores. After a search of step 2 it is that one's, narrowed. None after a
    search for crop ratios."""
    space, spec, shares = plan.space, winner.candidate.spec, _shares(found)
    if isinstance(space, CropSpace):
        return None
    if isinstance(space, WholeSpace):
        return replace(space, template=spec, shares=shares)
    return WholeSpace(space.budget, spec, tolerance=space.tolerance, shares=shares)


def _shares(found: Mapping[str, Range]) -> dict[str, tuple[float, float]]:
    return {name: (found[name].low, found[name].high) for name in BACKBONE if name in found}


def save_narrowed(plan: Plan, winner: Outcome, found: Mapping[str, Range]) -> Path | None:
    """Writes that space beside the plan, for `scrfd search plan --space`."""
    space = narrowed(plan, winner, found)
    if space is None:
        return None
    path = plan.folder / NARROWED
    atomic.save(path, (json.dumps(spaces.to_dict(space), indent=1) + "\n").encode())
    return path


@dataclass(frozen=True)
class Best:
    """The best network of a search: its spec, the budget that it was found for (None of a search for crop ratios),
    where it comes from in words, and the ranges of its parts' shares."""

    spec: ModelSpec
    budget: float | None
    origin: str
    shares: Mapping[str, tuple[float, float]]


def best_of(folder: Path, narrow: bool) -> Best:
    """What another search can begin with. narrow: with the ranges that went with high scores.

    Raises OptionError where no candidate is done, or too few to tell ranges.
    """
    plan = load(folder)
    outcomes: Sequence[Outcome] = Store(plan).outcomes()
    best = choose(outcomes, None, "hard")
    if not best:
        raise OptionError(f"--after {folder}: no candidate of that search is done yet")
    number = best[0].candidate.number
    shares = {} if not narrow else _shares(ranges(outcomes))
    if narrow and not shares:
        raise OptionError(f"--narrow: {folder} searched for crop ratios, which say nothing of networks")
    budget = None if isinstance(plan.space, CropSpace) else plan.space.budget
    return Best(best[0].candidate.spec, budget, f"candidate {number} of {folder}: {describe(plan)}", shares)
