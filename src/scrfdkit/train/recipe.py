"""How a network is trained, as plain data: crops, colours, optimiser, schedule, losses; and the recipes by name."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, get_args

from scrfdkit.errors import OptionError

Rule = Literal["sgd", "adamw"]
Shape = Literal["step", "cosine", "flat-cosine"]
Precision = Literal["auto", "fp32", "bf16", "fp16", "fp64"]
PointWeights = Literal["point", "face"]


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise OptionError(message)


@dataclass(frozen=True)
class Crop:
    """The square window of a picture that becomes one sample.

    ratios: sides of the window as shares of the picture's shorter side, drawn evenly; above 1 the picture is padded.
    clip: boxes and key points end at the window's edge; otherwise they may reach over it.
    tries: positions drawn for one ratio before another ratio is drawn; rounds: ratios drawn before a window is laid
        around a random face.
    close_ups: share of samples whose window is laid so that one face fills 40 to 95 % of it.
    """

    ratios: tuple[float, ...] = (0.3, 0.45, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0)
    clip: bool = True
    tries: int = 250
    rounds: int = 3
    close_ups: float = 0.0

    def __post_init__(self) -> None:
        _require(bool(self.ratios), "crop.ratios: at least one is needed")
        _require(all(0.01 <= r <= 20 for r in self.ratios), "crop.ratios: numbers from 0.01 to 20 are needed")
        _require(self.tries >= 1 and self.rounds >= 1, "crop.tries, crop.rounds: at least 1 is needed")
        _require(0 <= self.close_ups <= 1, "crop.close_ups: a share from 0 to 1 is needed")


@dataclass(frozen=True)
class Colour:
    """Changes of colour, each applied with `chance`, on the 0 to 255 scale and never clamped.

    brightness: largest shift up or down. contrast, saturation: smallest and largest factor. hue: largest turn in
    degrees. swap: chance of a random order of the channels; gray: chance of none but the brightness being left.
    """

    chance: float = 0.5
    brightness: float = 32.0
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: float = 18.0
    swap: float = 0.5
    gray: float = 0.0

    def __post_init__(self) -> None:
        shares = (self.chance, self.swap, self.gray)
        _require(all(0 <= share <= 1 for share in shares), "colour: chance, swap and gray are shares from 0 to 1")
        _require(0 <= self.brightness <= 255 and 0 <= self.hue <= 180, "colour: brightness or hue is out of range")
        for name in ("contrast", "saturation"):
            bounds = getattr(self, name)
            _require(len(bounds) == 2 and 0 <= bounds[0] <= bounds[1], f"colour.{name}: two rising factors are needed")


@dataclass(frozen=True)
class Optimiser:
    """rule: "sgd" (momentum, optionally nesterov) or "adamw". lr: the highest learning rate. decay: weight decay, on
    every parameter or, unless decay_norms, only on weights with more than one axis. clip: the longest gradient, 0 for
    any."""

    rule: Rule = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    nesterov: bool = False
    decay: float = 5e-4
    decay_norms: bool = True
    clip: float = 0.0

    def __post_init__(self) -> None:
        _require(self.rule in get_args(Rule), f"optimiser.rule: {self.rule!r} is not one of {get_args(Rule)}")
        _require(0 < self.lr < math.inf, "optimiser.lr: a positive number is needed")
        _require(0 <= self.momentum < 1, "optimiser.momentum: a number from 0 to below 1 is needed")
        _require(min(self.decay, self.clip) >= 0, "optimiser.decay, optimiser.clip: must not be negative")


@dataclass(frozen=True)
class Schedule:
    """How the learning rate moves.

    warmup: steps of the linear rise from `start` x lr. shape: "step" (x 0.1 at each of `drops`, shares of the run;
    the reference's epochs 440 and 544 of 640, and 275 and 340 of 400, are the same shares), "cosine" (down to `end`
    x lr), or "flat-cosine" (constant for the share `flat` of all steps, then cosine).
    """

    shape: Shape = "step"
    warmup: int = 1500
    start: float = 0.001
    drops: tuple[float, ...] = (0.6875, 0.85)
    flat: float = 0.0
    end: float = 0.01

    def __post_init__(self) -> None:
        _require(self.shape in get_args(Shape), f"schedule.shape: {self.shape!r} is not one of {get_args(Shape)}")
        _require(self.warmup >= 0, "schedule.warmup: must not be negative")
        _require(all(0 <= v <= 1 for v in (self.start, self.flat, self.end)), "schedule: start, flat, end are shares")
        rising = tuple(sorted(self.drops)) == self.drops and all(0 <= drop <= 1 for drop in self.drops)
        _require(rising, "schedule.drops: rising shares of the run, from 0 to 1, are needed")


@dataclass(frozen=True)
class Loss:
    """Weights of the three losses, and how a face with some of its key points counts.

    points: "point", each labelled point counts by itself; "face", every point, labelled or not, counts by the share of
    labelled points of its face, as in the reference. hidden: weight of a point that is labelled but hidden.
    """

    scores: float = 1.0
    boxes: float = 2.0
    keypoints: float = 0.1
    points: PointWeights = "point"
    hidden: float = 1.0

    def __post_init__(self) -> None:
        _require(min(self.scores, self.boxes, self.keypoints, self.hidden) >= 0, "loss: weights must not be negative")
        _require(self.points in get_args(PointWeights), f"loss.points: not one of {get_args(PointWeights)}")


@dataclass(frozen=True)
class Recipe:
    """Everything about a training but the network and the pictures. Raises OptionError, naming the field.

    size: side in pixels of the network's input, a multiple of 32. batch: pictures of one optimiser step, over all
    processes together. accumulate: parts in which a process takes its share of the batch. epochs: times every
    picture is looked at; steps: optimiser steps, which end the training instead of `epochs` unless 0. nearest:
    candidates of a face on each level (ATSS). mirror: which point each of a mirrored face's key points was before,
    () for the usual order of five: 1, 0, 2, 4, 3. average: decay of the running average of the weights, 0 for none.
    precision: of the network's arithmetic, "auto" is bf16 on CUDA and fp32 elsewhere, fp64 is for proofs.
    sync_norms: batch norms see the pictures of all processes. backgrounds: pictures without any face are learnt
    from too.
    """

    name: str = "reference"
    size: int = 640
    batch: int = 32
    accumulate: int = 1
    epochs: int = 640
    steps: int = 0
    crop: Crop = field(default_factory=Crop)
    flip: float = 0.5
    mirror: tuple[int, ...] = ()
    colour: Colour = field(default_factory=Colour)
    optimiser: Optimiser = field(default_factory=Optimiser)
    schedule: Schedule = field(default_factory=Schedule)
    loss: Loss = field(default_factory=Loss)
    nearest: int = 9
    average: float = 0.0
    precision: Precision = "fp32"
    sync_norms: bool = False
    backgrounds: bool = False

    def __post_init__(self) -> None:
        _require(self.size > 0 and self.size % 32 == 0, f"size: {self.size} is not a multiple of 32")
        whole = {"batch": self.batch, "accumulate": self.accumulate, "epochs": self.epochs, "nearest": self.nearest}
        for name, value in whole.items():
            _require(value >= 1, f"{name}: {value} is not a positive number")
        _require(self.steps >= 0, "steps: must not be negative")
        _require(0 <= self.flip <= 1, "flip: a share from 0 to 1 is needed")
        _require(sorted(self.mirror) == list(range(len(self.mirror))), "mirror: each number from 0 on, once, is needed")
        _require(0 <= self.average < 1, "average: a decay from 0 to below 1 is needed")
        _require(self.precision in get_args(Precision), f"precision: not one of {get_args(Precision)}")

    def change(self, changes: Mapping[str, Any]) -> Recipe:
        """Another recipe: {"batch": 16, "optimiser.lr": 0.02}. Raises OptionError for a field that does not exist."""
        recipe = self
        for path, value in changes.items():
            recipe = _changed(recipe, path.split("."), value, path)
        return recipe

    def to_json(self) -> str:
        """Readable JSON; `from_json` gives back an equal value."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Recipe:
        """Fields that are left out keep their defaults. Raises OptionError for anything but a recipe."""
        try:
            data = json.loads(text)
        except ValueError as error:
            raise OptionError(f"recipe: is not JSON: {error}") from None
        _require(isinstance(data, dict), "recipe: a JSON object is needed")
        return cls().change(dict(_leaves(data)))


def _leaves(data: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in data.items():
        found += _leaves(value, f"{above}{key}.") if isinstance(value, dict) else [(above + key, value)]
    return found


def _changed(value: Any, path: list[str], new: Any, whole: str) -> Any:
    known = {f.name for f in fields(value)} if is_dataclass(value) else set()
    if path[0] not in known:
        raise OptionError(f"recipe: there is no field {whole!r}; here are {', '.join(sorted(known)) or 'none'}")
    old = getattr(value, path[0])
    if len(path) > 1:
        return replace(value, **{path[0]: _changed(old, path[1:], new, whole)})
    whole_numbers = next(f.type for f in fields(value) if f.name == path[0]) == "tuple[int, ...]"
    return replace(value, **{path[0]: _like(old, new, whole, whole_numbers)})


def _like(old: Any, new: Any, name: str, whole_numbers: bool) -> Any:
    """The new value in the type of the old one, from JSON or from a command line's text."""
    try:
        if is_dataclass(old):
            raise ValueError
        if isinstance(old, bool):
            return {"true": True, "false": False, "1": True, "0": False}[str(new).lower()]
        if isinstance(old, int):
            if float(new) != int(float(new)):
                raise ValueError
            return int(float(new))
        if isinstance(old, float):
            return float(new)
        if isinstance(old, tuple):
            parts = new.replace(",", " ").split() if isinstance(new, str) else new
            return tuple((int if whole_numbers else float)(part) for part in parts)
        return str(new)
    except (KeyError, ValueError, TypeError, OverflowError):
        kind_name = "several numbers" if isinstance(old, tuple) else type(old).__name__
        raise OptionError(f"recipe: {name}: {new!r} is not {kind_name}") from None
