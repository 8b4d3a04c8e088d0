"""What every runtime is: something that runs a blob. All that comes before and after is the same for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from numpy.typing import NDArray

from scrfdkit.types import Floats

Side: TypeAlias = "int | str"
"""A side of a tensor: its length, or a name or "?" where any will do."""


class Runtime(Protocol):
    """A loaded network. `run` may be called by several threads at once.

    device: what really runs, "cpu" or "cuda". input_size: (width, height) if the network takes no other, else None.
    batch_size: pictures a run if it takes no other number, else None. metadata: what the file says of itself;
    "spec" is the JSON of a ModelSpec where there is one.
    """

    @property
    def device(self) -> str: ...
    @property
    def input_size(self) -> tuple[int, int] | None: ...
    @property
    def batch_size(self) -> int | None: ...
    @property
    def metadata(self) -> Mapping[str, str]: ...

    def run(self, blob: Floats) -> list[NDArray[Any]]:
        """blob: (B, 3, H, W) float32, normalised RGB. Returns the head's tensors, in any order."""
        ...


def within(runtime: Runtime, size: tuple[int, int]) -> tuple[int, int]:
    """The (width, height) nearest to `size` that a network takes: its only one, or one of its range if it has a
    `size_range` (smallest, largest), as engines have."""
    if runtime.input_size is not None:
        return runtime.input_size
    low, high = getattr(runtime, "size_range", (size, size))
    return min(max(low[0], size[0]), high[0]), min(max(low[1], size[1]), high[1])


@dataclass(frozen=True)
class Binding:
    """An input or output of a file. dtype: as numpy names it. shape: a side each.

    least, best, most: shapes that an engine was built for, where it has a range (TensorRT's profiles).
    """

    name: str
    kind: Literal["input", "output"]
    dtype: str
    shape: tuple[Side, ...]
    least: tuple[int, ...] = ()
    best: tuple[int, ...] = ()
    most: tuple[int, ...] = ()
