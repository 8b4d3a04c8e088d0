"""What an exported file takes and gives, whatever its format: one value that every target reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from scrfdkit.errors import OptionError
from scrfdkit.letterbox import MULTIPLE
from scrfdkit.options import MAX_SIDE

OutputLayout = Literal["reference", "maps", "end2end"]

MAX_BATCH = 1024
MAX_FACES = 10_000

FACE_OUTPUTS = ("boxes", "scores", "keypoints", "counts")
"""What an end-to-end file puts out; without landmarks there are no keypoints."""


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise OptionError(message)


def _is_share(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


def _is_whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


@dataclass(frozen=True)
class Suppression:
    """How an end-to-end file picks faces. Raises OptionError, naming the field.

    score_threshold: faces with a score above it remain. nms_threshold: IoU above which the lower score of two goes.
    max_faces: at most so many a picture, those with the best scores.
    """

    score_threshold: float = 0.5
    nms_threshold: float = 0.4
    max_faces: int = 300

    def __post_init__(self) -> None:
        for name in ("score_threshold", "nms_threshold"):
            _require(_is_share(getattr(self, name)), f"{name}: {getattr(self, name)!r} is not between 0 and 1")
        good = _is_whole(self.max_faces, 1, MAX_FACES)
        _require(good, f"max_faces: {self.max_faces!r} is not a number from 1 to {MAX_FACES}")


@dataclass(frozen=True)
class Contract:
    """Inputs and outputs of a file. Raises OptionError, naming the field.

    layout: "reference", rows as in the official files, (B, rows, 1 | 4 | 2K) a level; "maps", (B, channels, h, w), as
        the convolutions put them out; "end2end", uint8 pictures in, faces out.
    sigmoid: the scores of "maps" are probabilities, not logits; those of the other layouts always are.
    size: (width, height), multiples of 32, or None for any. batch: pictures a run, or None for any number.
    """

    layout: OutputLayout = "reference"
    sigmoid: bool = False
    size: tuple[int, int] | None = None
    batch: int | None = None
    suppression: Suppression = field(default_factory=Suppression)

    def __post_init__(self) -> None:
        known = get_args(OutputLayout)
        _require(self.layout in known, f"layout: {self.layout!r} is not one of {known}")
        if self.size is not None:
            good = len(self.size) == 2 and all(
                _is_whole(s, MULTIPLE, MAX_SIDE) and s % MULTIPLE == 0 for s in self.size
            )
            text = "x".join(str(side) for side in self.size)
            _require(good, f"size: {text}: width and height must be multiples of {MULTIPLE}, up to {MAX_SIDE}")
        good = self.batch is None or _is_whole(self.batch, 1, MAX_BATCH)
        _require(good, f"batch: {self.batch!r} is not a number from 1 to {MAX_BATCH}")

    @property
    def logits(self) -> bool:
        """Whether the scores lack their sigmoid."""
        return self.layout == "maps" and not self.sigmoid

    def describe(self) -> str:
        """In a few words."""
        kind = f"{self.layout} layout" + (", scores without sigmoid" if self.logits else "")
        size = f"{self.size[0]}x{self.size[1]}" if self.size else "any size"
        return f"{kind}, {size}, " + (f"batch {self.batch}" if self.batch else "any batch")
