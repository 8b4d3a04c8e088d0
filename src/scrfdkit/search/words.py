"""A search in words: its plan, its state, and single candidates, for terminals and JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, get_args

from scrfdkit.data.words import plural
from scrfdkit.model.cost import cost
from scrfdkit.search.candidate import Candidate, Outcome, State
from scrfdkit.search.plan import Plan
from scrfdkit.search.space import CropSpace, kind_of

if TYPE_CHECKING:
    from scrfdkit.search.training import Training
    from scrfdkit.train.recipe import Recipe

_MEANING = {
    "waiting": "waiting",
    "running": "in training",
    "done": "done",
    "stopped": "stopped early",
    "failed": "failed",
}


def describe(plan: Plan) -> str:
    """One line about a plan."""
    space = plan.space
    budget = "" if isinstance(space, CropSpace) else f", {space.budget / 1e9:g} GFLOPs"
    return f"{plural(len(plan.candidates), 'candidate')} of the space {kind_of(space)}{budget}, seed {plan.seed}"


def shape(candidate: Candidate) -> str:
    """What a candidate is: its network, or what it changes in the recipe."""
    if candidate.recipe:
        return ", ".join(f"{name} {_value(value)}" for name, value in candidate.recipe.items())
    spec = candidate.spec
    body, head = spec.backbone, spec.head
    stem = f"{body.stem[-1]}+" if body.block != "separable" else f"{'-'.join(map(str, body.stem))}+"
    return (
        f"{body.block} {'-'.join(map(str, body.blocks))} · {stem}{'-'.join(map(str, body.widths))}"
        f" · neck {spec.neck.channels} · head {head.depth}x{head.channels}"
    )


def _value(value: Any) -> str:
    return " ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)


def counts(outcomes: Sequence[Outcome]) -> str:
    """How many candidates are in each state."""
    number = Counter(o.state for o in outcomes)
    return ", ".join(f"{number[state]} {_MEANING[state]}" for state in get_args(State) if number[state])


def line(outcome: Outcome, training: Training | None) -> str:
    """One line about a candidate; training: for how many epochs it has."""
    words = [f"{outcome.candidate.name} {_MEANING[outcome.state]}"]
    if outcome.state == "running":
        of = f"/{training.recipe.epochs}" if training is not None and not training.recipe.steps else ""
        words.append(f"epoch {outcome.epochs}{of}, by {outcome.owner}")
    words += [f"{name} {value:.2f}" for name, value in outcome.scores.items()]
    words.append(shape(outcome.candidate))
    if outcome.error:
        words.append(f"({outcome.error.splitlines()[0]:.200})")
    return "  ".join(words)


def record(outcome: Outcome) -> dict[str, Any]:
    """Plain values, ready for JSON."""
    names = ("state", "epochs", "tries", "score", "seconds", "error", "owner")
    words = {name: getattr(outcome, name) for name in names}
    candidate = outcome.candidate
    total = cost(candidate.spec)
    return {
        "number": candidate.number,
        **words,
        "scores": dict(outcome.scores),
        "gflops": round(total.flops / 1e9, 4),
        "params": total.params,
        "shape": shape(candidate),
        "traits": dict(candidate.traits),
    }


def length(recipe: Recipe) -> str:
    """Of a training by this recipe."""
    return plural(recipe.steps, "step") if recipe.steps else plural(recipe.epochs, "epoch")


def facts(plan: Plan, training: Training | None) -> dict[str, str]:
    """A plan and its training by the names of what they settle."""
    space = plan.space
    found = {"space": kind_of(space)}
    if not isinstance(space, CropSpace):
        found["budget"] = f"{space.budget / 1e9:g} GFLOPs at 640x480, {space.tolerance:.0%} more or less"
        ranges = ", ".join(f"{name} {low:.1%} to {high:.1%}" for name, (low, high) in space.shares.items())
        found |= {"narrowed to": ranges} if ranges else {}
    found |= {"template": plan.origin} if plan.origin else {}
    found["candidates"] = f"{len(plan.candidates)}, seed {plan.seed}"
    found["draws"] = f"{plan.drawn:,}, of which {plan.accepted:,} were accepted"
    if training is None:
        return found | {"training": "not settled yet"}
    recipe = training.recipe
    found["training"] = (
        f"{recipe.name}, {length(recipe)} of batches of {recipe.batch}, {recipe.size} pixels, seed {training.seed}"
    )
    found["pictures"] = training.data
    judged = training.val or f"{training.holdout:.0%} of these pictures, held out of training"
    found["scored on"] = judged
    if training.halving:
        found["early stopping"] = (
            f"after {training.look_every} epochs and multiples, the best 1/{training.halving} go on"
        )
    return found
