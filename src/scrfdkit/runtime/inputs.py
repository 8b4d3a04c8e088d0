"""What a network's file says of its input, checked the same way for every format that says it as ONNX does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from scrfdkit.errors import ModelError
from scrfdkit.options import MAX_SIDE
from scrfdkit.runtime.base import Binding

_MOST_PIXELS = MAX_SIDE**2
"""Of all pictures of a run that a file asks for: when it is opened, it is tried on so many blank ones at once."""
_LEAST_SIDE = 256
"""Of these pictures, where the file leaves it open."""


def picture_input(
    label: str, inputs: Sequence[Binding], metadata: Mapping[str, str]
) -> tuple[tuple[int, int] | None, int | None]:
    """(width, height) and number of pictures that a network takes, each None where any will do.

    label: of the file, for messages. Raises ModelError for an end-to-end export, and where the input is not one float
    blob of pictures or too large for any memory.
    """
    if metadata.get("layout") == "end2end":
        raise ModelError(
            f"{label}: is an end-to-end export, which takes bytes of pictures and gives faces by itself; run it as"
            " docs/export.md shows, or export the network again with --layout reference"
        )
    shape = inputs[0].shape if inputs else ()
    picture = len(shape) == 4 and (shape[1] == 3 or not isinstance(shape[1], int))
    if len(inputs) != 1 or not picture or inputs[0].dtype not in ("float32", "float16"):
        found = [(i.name, i.dtype, i.shape) for i in inputs]
        raise ModelError(f"{label}: one float input (batch, 3, height, width) is needed; it has {found}")
    batch, _, height, width = (side if isinstance(side, int) else None for side in shape)
    sides = [
        usual if side is None else side for side, usual in ((batch, 1), (height, _LEAST_SIDE), (width, _LEAST_SIDE))
    ]
    if min(sides) < 1 or prod(sides) > _MOST_PIXELS:
        raise ModelError(f"{label}: its input {shape} is of a size that cannot be run")
    # A side left open takes any value, so also that of the fixed one.
    size = (width or height or 0, height or width or 0) if width or height else None
    return size, batch
