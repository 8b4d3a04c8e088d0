"""How every candidate of a search is trained and scored: one value in the search's folder, the same for all runners."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from scrfdkit import atomic
from scrfdkit.errors import OptionError, ScrfdError
from scrfdkit.search.candidate import Candidate
from scrfdkit.search.holdout import HELDOUT, TRAIN, write
from scrfdkit.search.plan import Plan
from scrfdkit.train.recipe import Recipe
from scrfdkit.train.settings import Settings

FILE = "training.json"
DATA = "data"
"""Folder with the labels of both parts."""

PLACES = ("data", "images", "format", "val", "val_images", "val_gt", "pictures", "licence")
"""Fields that say where things are, not what they are."""

NETWORK = "network.json"
"""A candidate's spec, in its folder."""


@dataclass(frozen=True)
class Training:
    """recipe: as of `scrfd train`, which candidates may change. data, images, format: labelled pictures, as there.
    holdout: share of them that is kept from training, to score on. seed: of the split and of every training.
    look_every: epochs between two scores, 0 for one at the end. halving: factor of successive halving, 0 for none.
    retries: tries more for a candidate whose training fails without having come further than before. val, val_images,
    val_gt: other labels to score on, as of `scrfd train`. licence: terms of the new weights. pictures: folder of the
    pictures, once it was found.
    """

    data: str
    recipe: Recipe = field(default_factory=Recipe)
    images: str | None = None
    format: str | None = None
    holdout: float = 0.1
    seed: int = 0
    look_every: int = 0
    halving: int = 0
    retries: int = 2
    val: str | None = None
    val_images: str | None = None
    val_gt: str | None = None
    licence: str = ""
    pictures: str | None = None

    def __post_init__(self) -> None:
        for name in PLACES:
            value = getattr(self, name)
            if not isinstance(value, str) and (value is not None or name in ("data", "licence")):
                raise OptionError(f"{name}: {value!r:.100} is no text")
        if any(type(getattr(self, name)) is not int for name in ("seed", "look_every", "halving", "retries")):
            raise OptionError("seed, look_every, halving, retries: whole numbers are needed")
        if type(self.holdout) not in (int, float):
            raise OptionError(f"holdout: {self.holdout!r:.100} is no number")
        if self.look_every < 0 or self.retries < 0:
            raise OptionError("--look-every, --retries: must not be negative")
        if self.halving not in (0, *range(2, 101)):
            raise OptionError(f"--halving {self.halving}: 2 to 100 are needed, usually 2 to 4")
        if self.halving and not self.look_every:
            raise OptionError("--halving: needs scores on the way; say with --look-every after how many epochs")
        if self.val_gt is not None and self.val is None:
            raise OptionError("--val-gt: name the folder of the pictures with --val")

    @property
    def on_val(self) -> bool:
        """Whether candidates are chosen by other pictures than those held out of the training data."""
        return self.val is not None

    def to_json(self) -> str:
        """Readable JSON; `from_json` gives back an equal value."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Training:
        """Raises OptionError for anything else."""
        try:
            data: dict[str, Any] = json.loads(text)
            recipe = Recipe.from_json(json.dumps(data.pop("recipe")))
            return cls(recipe=recipe, **data)
        except OptionError:
            raise
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise OptionError(f"these are not the words of a search's training: {error}") from None


def load(plan: Plan) -> Training | None:
    """What was settled for a search, or None. Raises ScrfdError where it cannot be read."""
    path = plan.folder / FILE
    try:
        return Training.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ScrfdError(f"{path}: cannot be read: {error}") from None
    except OptionError as error:
        raise ScrfdError(f"{path}: damaged: {error}") from None


def settle(plan: Plan, wanted: Training, begun: bool = True) -> Training:
    """Writes how a search's candidates are trained, and the labels of both parts. To be called under the store's lock.

    begun: whether a candidate has been trained for an epoch, or is in training. After that, only places may change:
    pictures that were moved, as long as both parts' labels stay the same.

    Raises OptionError where something else was settled before, naming what differs, as its results would not compare.
    """
    known = load(plan)
    if known is not None and begun:
        _compare(plan, known, wanted)
    if known == replace(wanted, pictures=known.pictures if known else None):
        return known
    for candidate in plan.candidates:
        wanted.recipe.change(candidate.recipe)  # refuses what it does not know before any work is done
    if not wanted.on_val:
        aside = plan.folder / f".{DATA}.partial"
        shutil.rmtree(aside, ignore_errors=True)
        try:
            images = None if wanted.images is None else Path(wanted.images)
            split = write(Path(wanted.data), wanted.format, images, wanted.holdout, wanted.seed, aside)
            if known is not None and begun:
                _same_labels(plan, aside)
            atomic.make_folder(plan.folder / DATA)
            for name in (TRAIN, HELDOUT):
                atomic.save(plan.folder / DATA / name, (aside / name).read_bytes())
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        wanted = replace(wanted, pictures=str(split.images.resolve()))
    atomic.save(plan.folder / FILE, wanted.to_json().encode())
    return wanted


def _compare(plan: Plan, known: Training, wanted: Training) -> None:
    ours, theirs = asdict(wanted), asdict(known)
    differ = [name for name in ours if name not in PLACES and ours[name] != theirs[name]]
    if known.on_val != wanted.on_val:
        differ.append("val")
    if differ:
        raise OptionError(
            f"{plan.folder / FILE}: this search was begun with another {', '.join(differ)}; leave these options out"
            " to go on with it, or plan another search"
        )


def _same_labels(plan: Plan, aside: Path) -> None:
    for name in (TRAIN, HELDOUT):
        path = plan.folder / DATA / name
        if not atomic.is_file(path) or path.read_bytes() != (aside / name).read_bytes():
            raise OptionError(
                f"--data: these are not the pictures and faces that this search was begun with, as {path} shows; leave"
                " it out to go on with those, or plan another search"
            )


def settings(plan: Plan, training: Training, candidate: Candidate, **where: Any) -> Settings:
    """Those of `scrfd train` for one candidate. where: device, road, workers, store_side and compile of it.

    Every epoch is saved, so that no more than one is ever lost; two, if a power cut damages the newest file.
    """
    held_out, labels = plan.folder / DATA / HELDOUT, plan.folder / DATA / TRAIN
    own = training.on_val
    return Settings(
        model=str(plan.run_folder(candidate) / NETWORK),
        data=training.data if own else str(labels.absolute()),
        output=str(plan.run_folder(candidate)),
        recipe=training.recipe.change(candidate.recipe),
        images=training.images if own else training.pictures,
        format=training.format if own else "labelv2",
        seed=training.seed,
        val=training.val if own else str(held_out.absolute()),
        val_images=training.val_images if own else training.pictures,
        val_gt=training.val_gt,
        validate_every=training.look_every,
        save_minutes=5.0,
        save_epochs=1,
        keep=2,
        licence=training.licence,
        **where,
    )
