"""Recipes by name, and what the reference changes for single networks."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

from scrfdkit.errors import OptionError
from scrfdkit.train.recipe import Colour, Optimiser, Recipe, Schedule

_FAST = Recipe(
    name="fast",
    batch=64,
    steps=50_000,
    colour=Colour(swap=0.3),
    optimiser=Optimiser(rule="adamw", lr=0.002, decay=0.05, decay_norms=False, clip=10.0),
    schedule=Schedule(shape="flat-cosine", warmup=1000, start=0.0, flat=0.25, drops=()),
    average=0.9998,
    precision="auto",
)

_FINETUNE = Recipe(
    name="finetune",
    batch=32,
    epochs=30,
    colour=Colour(swap=0.1),
    optimiser=Optimiser(rule="adamw", lr=0.0005, decay=0.05, decay_norms=False, clip=10.0),
    schedule=Schedule(shape="cosine", warmup=300, start=0.0, drops=()),
    average=0.999,
    precision="auto",
)

RECIPES = MappingProxyType({recipe.name: recipe for recipe in (Recipe(), _FAST, _FINETUNE)})
"""reference: as the published networks were trained, 640 epochs of SGD. fast: from nothing in a fixed number of steps.
finetune: a few epochs from trained weights."""

_UNCLIPPED = {"crop.clip": False}
_SHARP = {"optimiser.lr": 0.02}
_REFERENCE: dict[str, dict[str, Any]] = {
    "scrfd_500m_kps": {"batch": 64},
    "scrfd_1.3g": _UNCLIPPED,
    "scrfd_2.5g": _UNCLIPPED,
    "scrfd_2.5g_kps": _UNCLIPPED,
    "scrfd_10g": _UNCLIPPED,
    "scrfd_10g_kps": _UNCLIPPED,
    "scrfd_34g": _SHARP,
    "base_2.5g": _SHARP,
    "base_34g": _SHARP | {"epochs": 400},
}
"""What the reference's configurations of single networks differ in, by zoo name; batches are those of four GPUs."""


def find(name: str | Path, network: str | None = None) -> Recipe:
    """A recipe by its name, or from a JSON file. network: zoo name, for what the reference does differently for it.

    Raises OptionError for neither, naming the recipes there are.
    """
    if str(name) in RECIPES:
        recipe = RECIPES[str(name)]
        return recipe.change(_REFERENCE.get(network or "", {})) if recipe.name == "reference" else recipe
    path = Path(name)
    if path.suffix != ".json":
        raise OptionError(f"recipe: {name} is neither one of {', '.join(RECIPES)} nor a .json file")
    try:
        return Recipe.from_json(path.read_text())
    except OSError as error:
        raise OptionError(f"recipe: {path}: cannot be read: {error.strerror or error}") from None
    except (OptionError, UnicodeDecodeError) as error:
        raise OptionError(f"{path}: {error}") from None
