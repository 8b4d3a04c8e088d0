"""How a search's candidates are trained: settled once, by whoever comes first, and then the same for all."""

from __future__ import annotations

import json
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from search_processes import FORK, end, plan_of_many, quick_disk, start, tiny_plan, tiny_training, together

from scrfdkit.data import formats
from scrfdkit.errors import ImageError, OptionError, ScrfdError
from scrfdkit.search import plan as plans
from scrfdkit.search import training as trainings
from scrfdkit.search.store import Store
from scrfdkit.search.training import Training, settle
from scrfdkit.train.recipe import Recipe

__all__ = ["quick_disk"]

pytestmark = pytest.mark.usefixtures("quick_disk")


def test_what_the_first_run_settles_holds(tmp_path: Path, toy_set: Path) -> None:
    plan = tiny_plan(tmp_path / "s", 1)
    assert trainings.load(plan) is None
    settled = tiny_training(plan, toy_set, look_every=1, halving=2, retries=1, licence="CC0")
    assert trainings.load(plan) == settled
    assert settled.pictures == str(toy_set / "images")
    before = {path: path.stat().st_mtime_ns for path in (plan.folder / "data").iterdir()}
    wanted = replace(settled, pictures=None)
    assert settle(plan, wanted) == settled, "the same options again are fine"
    assert {path: path.stat().st_mtime_ns for path in (plan.folder / "data").iterdir()} == before
    parts = [formats.read(plan.folder / "data" / name) for name in ("train.txt", "heldout.txt")]
    assert {image.path for part in parts for image in part} == {image.path for image in formats.read(toy_set)}
    assert sum(len(part) for part in parts) == 8


def test_other_options_are_refused_by_name(tmp_path: Path, toy_set: Path) -> None:
    plan = tiny_plan(tmp_path / "s", 1)
    settled = tiny_training(plan, toy_set)
    kept = (plan.folder / "training.json").read_bytes()
    faster = settled.recipe.change({"optimiser.lr": 0.5})
    for changes, names in (
        ({"recipe": faster}, "another recipe;"),
        ({"holdout": 0.2}, "another holdout;"),
        ({"seed": 1, "retries": 0}, "another seed, retries;"),
        ({"val": str(toy_set)}, "another val;"),
    ):
        with pytest.raises(OptionError, match=names):
            settle(plan, replace(settled, pictures=None, **changes))  # type: ignore[arg-type]
    assert (plan.folder / "training.json").read_bytes() == kept


def test_pictures_that_were_moved_are_taken_and_others_refused(tmp_path: Path, toy_set: Path) -> None:
    plan = tiny_plan(tmp_path / "s", 1)
    settled = tiny_training(plan, toy_set)
    moved = Path(shutil.copytree(toy_set, tmp_path / "moved"))
    again = settle(plan, replace(settled, data=str(moved), pictures=None))
    assert again == replace(settled, data=str(moved), pictures=str(moved / "images"))
    assert trainings.load(plan) == again
    labels = moved / "labelv2.txt"
    labels.write_text(labels.read_text().replace("320 320", "320 321", 1))
    with pytest.raises(OptionError, match="these are not the pictures and faces"):
        settle(plan, replace(settled, data=str(labels), images=str(moved / "images"), pictures=None))
    assert trainings.load(plan) == again
    assert sorted(path.name for path in (plan.folder / "data").iterdir()) == ["heldout.txt", "train.txt"]


def test_before_anything_was_trained_it_may_be_settled_anew(tmp_path: Path, toy_set: Path) -> None:
    plan = tiny_plan(tmp_path / "s", 1)
    settled = tiny_training(plan, toy_set)
    other = settle(plan, replace(settled, holdout=0.5, pictures=None), begun=False)
    assert other.holdout == 0.5
    assert trainings.load(plan) == other


def test_what_does_not_go_together() -> None:
    for words, message in (
        ({"look_every": -1}, "look-every"),
        ({"retries": -1}, "retries"),
        ({"halving": 1, "look_every": 1}, "--halving 1: 2 to 100"),
        ({"halving": 2}, "needs scores on the way"),
        ({"val_gt": "gt"}, "--val"),
    ):
        with pytest.raises(OptionError, match=message):
            Training("labels.txt", **words)  # type: ignore[arg-type]


def test_nothing_is_settled_with_what_cannot_work(tmp_path: Path, toy_set: Path) -> None:
    plan = tiny_plan(tmp_path / "s", 1)
    data = Path(shutil.copytree(toy_set, tmp_path / "toy"))
    (data / "images" / "solvay_1927_3.jpg").unlink()
    with pytest.raises(ImageError, match=r"solvay_1927_3\.jpg"):
        tiny_training(plan, data)
    with pytest.raises(ScrfdError, match="holdout"):
        tiny_training(plan, toy_set, holdout=1.5)
    assert trainings.load(plan) is None
    assert tiny_training(plan, toy_set).holdout == 0.3


def test_killed_while_it_is_settled_it_is_settled_again(tmp_path: Path, toy_set: Path) -> None:
    """Labels are written first, and hold only together with what says how they were parted."""
    plan = tiny_plan(tmp_path / "s", 1)
    whole = tiny_training(tiny_plan(tmp_path / "whole", 1), toy_set)
    (plan.folder / "data").mkdir()
    (plan.folder / "data" / "train.txt").write_text("of another split")
    assert tiny_training(plan, toy_set) == whole
    for name in ("train.txt", "heldout.txt"):
        assert (plan.folder / "data" / name).read_bytes() == (tmp_path / "whole" / "data" / name).read_bytes()


def test_changes_that_the_recipe_does_not_know(tmp_path: Path, toy_set: Path) -> None:
    plan = tiny_plan(tmp_path / "s", 1)
    strange = replace(plan, candidates=(replace(plan.candidate(1), recipe={"crop.rations": (1.0,)}),))
    with pytest.raises(OptionError, match=r"crop\.rations"):
        settle(strange, Training(str(toy_set), Recipe()))
    assert trainings.load(plan) is None


def test_two_first_runs_at_the_same_moment(tmp_path: Path, toy_set: Path) -> None:
    """One settles it, the others are refused or agree, and the labels are the winner's."""
    plan = plan_of_many(tmp_path / "s", 1)
    gate = FORK.Barrier(3)
    seeds = (0, 0, 3)
    with together([start(settle_at, plan.folder, toy_set, seed, gate) for seed in seeds]) as processes:
        codes = [end(process) for process in processes]
    assert codes in ([0, 0, 2], [2, 2, 0])
    settled = trainings.load(plan)
    assert settled is not None
    assert settled.seed == (0 if codes[0] == 0 else 3)
    alone = plan_of_many(tmp_path / "alone", 1)
    tiny_training(alone, toy_set, seed=settled.seed)
    for name in ("train.txt", "heldout.txt"):
        assert (plan.folder / "data" / name).read_bytes() == (alone.folder / "data" / name).read_bytes()


def settle_at(folder: Path, toy_set: Path, seed: int, gate: threading.Barrier) -> None:
    plan = plans.load(folder)
    gate.wait(60)
    try:
        tiny_training(plan, toy_set, seed=seed)
    except OptionError as error:
        assert "another seed" in str(error)
        os._exit(2)


def test_a_damaged_file_is_refused_by_name(tmp_path: Path, toy_set: Path) -> None:
    plan = tiny_plan(tmp_path / "s", 1)
    tiny_training(plan, toy_set)
    path = plan.folder / "training.json"
    whole = path.read_text()
    data = json.loads(whole)
    for text in (
        "",
        whole[: len(whole) // 2],
        "[]",
        "3",
        "{}",
        json.dumps(data | {"extra": 1}),
        json.dumps(data | {"recipe": {"lr": 3}}),
        json.dumps(data | {"look_every": "often"}),
        json.dumps({key: value for key, value in data.items() if key != "data"}),
    ):
        path.write_text(text)
        with pytest.raises(ScrfdError, match=r"training\.json: damaged"):
            trainings.load(plan)
        with pytest.raises(ScrfdError, match=r"training\.json: damaged"), Store(plan).locked():
            settle(plan, Training(str(toy_set), Recipe()))
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ScrfdError, match=r"training\.json: cannot be read"):
        trainings.load(plan)


def test_settings_of_a_candidate(tmp_path: Path, toy_set: Path) -> None:
    plan = tiny_plan(tmp_path / "s", 1)
    training = tiny_training(plan, toy_set, look_every=2, licence="CC0")
    candidate = replace(plan.candidate(1), recipe={"crop.ratios": (0.5, 1.0)})
    made = trainings.settings(plan, training, candidate, device="cpu", workers=1)
    assert made.recipe == training.recipe.change({"crop.ratios": (0.5, 1.0)})
    assert made.data == str(plan.folder / "data" / "train.txt")
    assert (made.val, made.images, made.val_images) == (
        str(plan.folder / "data" / "heldout.txt"),
        str(toy_set / "images"),
        str(toy_set / "images"),
    )
    assert (made.validate_every, made.save_epochs, made.licence, made.device) == (2, 1, "CC0", "cpu")
    other = tiny_plan(tmp_path / "val", 1)
    chosen = tiny_training(other, toy_set, val=str(toy_set), val_images=str(toy_set / "images"))
    assert chosen.on_val
    made = trainings.settings(other, chosen, candidate)
    assert (made.data, made.val, made.val_images) == (str(toy_set), str(toy_set), str(toy_set / "images"))
    assert not (other.folder / "data").exists()
