"""What a training run is asked to do, as one value that a resumed run reads again."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from scrfdkit import atomic
from scrfdkit.errors import OptionError
from scrfdkit.train.recipe import Recipe

Road = Literal["auto", "workers", "device"]
FILE = "run.json"


@dataclass(frozen=True)
class Settings:
    """model: zoo name, .json description or weight file. data: labels, in any format that `scrfd data` knows.
    output: folder. recipe: how the network learns. images: folder of the pictures, by default found beside the
    labels. format: of the labels, by default guessed. weights: where to begin, by default at random, or at `model`
    if that is a weight file. num_keypoints, norm: change the network's head. freeze: parts that do not learn.
    device: "auto", "cpu", "cuda" or "cuda:N". road: how pictures reach the network: "workers" (threads with
    OpenCV), "device" (all of them in the GPU's memory), or "auto" for "device" where there is a GPU that can hold
    them. workers: threads, 0 for one a core. store_side: longest side in pixels of pictures in the GPU's memory.
    seed: of everything random. minutes: how long it may take, 0 for as long as it takes. val, val_images: labels
    that weights are scored with, and their pictures. val_gt: WIDER FACE's .mat files instead of labels.
    validate_every: epochs between two scores, None for a tenth of the run, 0 for only one at the end. save_minutes:
    longest time between two checkpoints. save_epochs: epochs between two, 0 for none on their account. keep: how
    many of the newest are kept. compile: torch.compile and fused kernels on CUDA. licence: terms of the new
    weights, beside those of the weights that they began with.
    """

    model: str
    data: str
    output: str
    recipe: Recipe = field(default_factory=Recipe)
    images: str | None = None
    format: str | None = None
    weights: str | None = None
    num_keypoints: int | None = None
    norm: Literal["bn", "gn"] | None = None
    freeze: tuple[str, ...] = ()
    device: str = "auto"
    road: Road = "auto"
    workers: int = 0
    store_side: int = 1024
    seed: int = 0
    minutes: float = 0.0
    val: str | None = None
    val_images: str | None = None
    val_gt: str | None = None
    validate_every: int | None = None
    save_minutes: float = 5.0
    save_epochs: int = 0
    keep: int = 2
    compile: bool = True
    licence: str = ""

    def __post_init__(self) -> None:
        if self.road not in get_args(Road):
            raise OptionError(f"road: {self.road!r} is not one of {', '.join(get_args(Road))}")
        for name in ("workers", "minutes", "validate_every", "save_minutes", "save_epochs"):
            value = getattr(self, name) or 0
            if not 0 <= value < math.inf:
                raise OptionError(f"{name}: {value} is not a number from 0 on")
        if self.keep < 1 or self.store_side < 32:
            raise OptionError("keep: at least 1 is needed; store_side: at least 32")
        if not 0 <= self.seed < 2**63:
            raise OptionError(f"seed: {self.seed} is not a number from 0 to below 2^63")

    def to_json(self) -> str:
        """Readable JSON; `from_json` gives back an equal value."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Raises OptionError for anything but settings."""
        try:
            data: dict[str, Any] = json.loads(text)
            recipe = Recipe.from_json(json.dumps(data.pop("recipe")))
            return cls(recipe=recipe, freeze=tuple(data.pop("freeze")), **data)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise OptionError(f"these are not the settings of a training run: {error}") from None


def save(settings: Settings) -> None:
    """Writes the settings into the run's folder."""
    atomic.save(Path(settings.output) / FILE, settings.to_json().encode())


def load(folder: Path) -> Settings:
    """The settings of a run, for a folder that may have been moved. Raises OptionError where there is none."""
    path = folder / FILE
    try:
        found = Settings.from_json(path.read_text())
    except FileNotFoundError:
        raise OptionError(f"{folder}: is not the folder of a training run; it has no {FILE}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise OptionError(f"{path}: cannot be read: {error}") from None
    except OptionError as error:
        raise OptionError(f"{path}: {error}") from None
    return replace(found, output=str(folder))
