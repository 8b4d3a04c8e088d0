"""Recipes: their JSON, changes from a command line, and what the reference does differently for single networks."""

from __future__ import annotations

from pathlib import Path

import pytest

from scrfdkit.errors import OptionError
from scrfdkit.train import recipes
from scrfdkit.train.recipe import Crop, Recipe
from scrfdkit.zoo import ZOO


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_json_gives_back_the_recipe(name: str) -> None:
    assert Recipe.from_json(recipes.find(name).to_json()) == recipes.find(name)


def test_json_may_leave_fields_out() -> None:
    assert Recipe.from_json('{"batch": 8, "crop": {"clip": false}}') == Recipe(batch=8, crop=Crop(clip=False))


def test_changes_come_as_text_or_values() -> None:
    recipe = Recipe().change(
        {
            "batch": "16",
            "optimiser.lr": "2e-2",
            "crop.ratios": "0.5, 1",
            "crop.clip": "false",
            "schedule.drops": "0.3, 0.4",
            "mirror": [1, 0],
        }
    )
    assert (recipe.batch, recipe.optimiser.lr, recipe.crop.ratios, recipe.crop.clip) == (16, 0.02, (0.5, 1.0), False)
    assert recipe.schedule.drops == (0.3, 0.4)
    assert Recipe().change({"mirror": "1 0"}).mirror == (1, 0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": 650}, "size: 650 is not a multiple of 32"),
        ({"batch": 0}, "batch: 0"),
        ({"batch": "many"}, "batch: 'many' is not int"),
        ({"batch": 1.5}, "batch: 1.5 is not int"),
        ({"optimiser.lr": "nan"}, "optimiser.lr"),
        ({"optimiser.rule": "adam"}, "optimiser.rule"),
        ({"optimizer.lr": 1}, "no field 'optimizer.lr'"),
        ({"optimiser": 1}, "optimiser: 1"),
        ({"crop.ratios": ""}, "crop.ratios"),
        ({"crop.clip": "perhaps"}, "crop.clip"),
        ({"schedule.drops": "0.5 0.4"}, "schedule.drops"),
        ({"mirror": "0 2"}, "mirror"),
        ({"loss.points": "some"}, "loss.points"),
    ],
)
def test_what_means_nothing_is_refused_by_name(changes: dict[str, object], words: str) -> None:
    with pytest.raises(OptionError, match=words.replace("(", r"\(")):
        Recipe().change(changes)


def test_the_reference_of_every_network() -> None:
    """§3 of the specification: who clips its boxes, who learns faster, who has another batch or schedule."""
    unclipped = {name for name in ZOO if not recipes.find("reference", name).crop.clip}
    assert unclipped == {"scrfd_1.3g", "scrfd_2.5g", "scrfd_2.5g_kps", "scrfd_10g", "scrfd_10g_kps"}
    sharp = {name for name in ZOO if recipes.find("reference", name).optimiser.lr == 0.02}
    assert sharp == {"scrfd_34g", "base_2.5g", "base_34g"}
    assert {name for name in ZOO if recipes.find("reference", name).batch == 64} == {"scrfd_500m_kps"}
    ends = {name: recipes.find("reference", name).epochs for name in ZOO}
    assert {name for name, epochs in ends.items() if epochs != 640} == {"base_34g"}
    assert ends["base_34g"] == 400


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_text('{"name": "own", "epochs": 3}')
    assert recipes.find(path).epochs == 3
    path.write_text('{"epoch": 3}')
    with pytest.raises(OptionError, match=r"own\.json.*no field 'epoch'"):
        recipes.find(path)
    path.write_text("{")
    with pytest.raises(OptionError, match="is not JSON"):
        recipes.find(path)
    with pytest.raises(OptionError, match="cannot be read"):
        recipes.find(tmp_path / "none.json")
    with pytest.raises(OptionError, match="neither one of reference, fast, finetune"):
        recipes.find("slow")
