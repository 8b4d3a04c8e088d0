"""Outputs of a device to faces: as the evaluation of this package finds them, or as Vastai's published figures do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from scrfdkit import atomic, letterbox
from scrfdkit.data import pictures as headers
from scrfdkit.decode import decode, suppress
from scrfdkit.errors import ImageError, ModelError, OptionError, ScrfdError
from scrfdkit.evaluate import reference
from scrfdkit.evaluate.results import bare, collect, to_text
from scrfdkit.layout import identify, levels_of
from scrfdkit.letterbox import Placement
from scrfdkit.types import Detections, Floats
from scrfdkit.vastai import npz
from scrfdkit.vastai.match import Pair

Fed: TypeAlias = Literal["corner", "centre"]
"""Where the picture lay on the canvas: as this package puts it, or as the device's own letterbox does."""

PUBLISHED_SCORE = 0.5

_LOOKED_AT = 100
_CLEARLY = 0.002


@dataclass(frozen=True)
class Rules:
    """canvas: (width, height) of the network's input. published: threshold 0.5, boxes rounded to whole pixels, and the
    rest of the published flow; fed is then "centre"."""

    canvas: tuple[int, int]
    fed: Fed
    published: bool = False


def load(path: Path) -> list[Floats]:
    """The arrays output_0, output_1, ... of a file, (1, C, h, w) float32. Raises ScrfdError, naming it."""
    try:
        named = npz.read(path, "output_")
        with np.errstate(over="ignore"):  # float64 may hold more than float32 can
            arrays = [np.asarray(named[f"output_{i}"], np.float32) for i in range(len(named))]
    except (ValueError, KeyError, MemoryError) as error:
        raise ScrfdError(f"{path}: cannot be read as outputs in an .npz file: {error}") from None
    if not arrays:
        raise ScrfdError(f"{path}: has no arrays output_0, output_1, ...; is it what `vamp` wrote?")
    return [array[None] if array.ndim == 3 else array for array in arrays]


def candidates(path: Path, canvas: tuple[int, int], score_threshold: float) -> Detections:
    """All faces with at least this score in a file of outputs, in canvas pixels, before suppression.

    Which output is what shows in their shapes; scores may be logits or probabilities. Raises ScrfdError.
    """
    outputs = load(path)
    try:
        layout = identify(outputs, canvas)
    except ModelError as error:
        raise ModelError(f"{path}: {error}; --size must be the input size of the compiled network") from None
    return decode(levels_of(outputs, layout, canvas, 0), score_threshold, logits=layout.logits)


def faces(path: Path, size: tuple[int, int], rules: Rules) -> Detections:
    """Faces in a file of outputs, best first, in pixels of its picture. size: (width, height) of that.

    Raises ScrfdError for a file that holds something else.
    """
    if rules.published:
        return _published(candidates(path, rules.canvas, PUBLISHED_SCORE), size, rules.canvas)
    found = candidates(path, rules.canvas, reference.SCORE_THRESHOLD)
    placement = reference.place(*size, rules.canvas)
    across, down = _margin(placement) if rules.fed == "centre" else (0, 0)
    return reference.finish(found.shift(-across, -down), placement)


def _published(found: Detections, size: tuple[int, int], canvas: tuple[int, int]) -> Detections:
    """One scale, margins to the fraction of a pixel, and boxes rounded before suppression."""
    gain = min(canvas[0] / size[0], canvas[1] / size[1])
    found = found.shift(-(canvas[0] - size[0] * gain) / 2, -(canvas[1] - size[1] * gain) / 2)
    found = letterbox.unplace(found, Placement(size, canvas, (gain, gain))).clip(*size)
    rounded = Detections(np.rint(found.boxes), found.scores)
    return suppress(rounded, reference.NMS_THRESHOLD, offset=1)


def _margin(placement: Placement) -> tuple[int, int]:
    """Pixels left of and above a picture in the middle of its canvas."""
    across, down = ((whole - part) // 2 for whole, part in zip(placement.canvas, placement.size, strict=True))
    return across, down


def where_fed(pairs: Sequence[Pair], pictures: Path, canvas: tuple[int, int]) -> tuple[Fed, float, float]:
    """Where the pictures lay on the canvas, and what share of the scores lies on them so, and what share otherwise.

    Nothing is found in the padding: in up to 100 pictures, the middles of all candidates are held against the area that
    a picture has in the corner and in the centre. "corner" where all pictures fill the canvas, or nothing is found.
    Raises OptionError where both explain as much.
    """
    inside = np.zeros(2)
    total, same = 0.0, True
    for pair in pairs[:: max(1, -(-len(pairs) // _LOOKED_AT))]:
        try:
            found = candidates(pair.file, canvas, reference.SCORE_THRESHOLD)
            placement = reference.place(*headers.size(pictures / pair.picture), canvas)
        except ScrfdError:
            continue  # told when its turn comes
        margin = _margin(placement)
        middles = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
        total, same = total + float(found.scores.sum()), same and margin == (0, 0)
        for place, start in enumerate(((0, 0), margin)):
            ends = np.add(start, placement.size)
            inside[place] += found.scores[((middles >= start) & (middles <= ends)).all(axis=1)].sum()
    corner, centre = (inside / total).tolist() if total else (1.0, 1.0)
    if total and not same and abs(corner - centre) < _CLEARLY:
        raise OptionError("--fed: it cannot be told from the outputs where pictures lay; say corner or centre")
    return ("centre", centre, corner) if centre > corner else ("corner", corner, centre)


def write(pair: Pair, pictures: Path, target: Path, rules: Rules) -> ScrfdError | None:
    """Writes the result file event/name.txt of one picture; the error where its outputs or it cannot be read.

    Raises ScrfdError where the file cannot be written.
    """
    try:
        found = faces(pair.file, headers.size(pictures / pair.picture), rules)
    except (ScrfdError, ImageError) as error:
        return error
    ((name, text),) = to_text(collect([pair.picture], [found]))
    atomic.save(target / name, (_as_published(pair, found) if rules.published else text).encode())
    return None


Mapper: TypeAlias = Callable[[Callable[[Pair], ScrfdError | None], Iterable[Pair]], Iterable[ScrfdError | None]]
"""Whatever goes through the pairs in order: `map`, or a pool of threads."""


def write_all(
    pairs: Sequence[Pair], pictures: Path, target: Path, rules: Rules, mapper: Mapper = map
) -> list[ScrfdError]:
    """`write` for every pair; what could not be read."""
    return [error for error in mapper(lambda pair: write(pair, pictures, target, rules), pairs) if error is not None]


def _as_published(pair: Pair, found: Detections) -> str:
    """The first line without a suffix, whole numbers with one decimal."""
    rows = zip(found.boxes.tolist(), found.scores.tolist(), strict=True)
    lines = [f"{x1:.1f} {y1:.1f} {x2 - x1:.1f} {y2 - y1:.1f} {score:.8g}" for (x1, y1, x2, y2), score in rows]
    return "\n".join([bare(pair.picture), str(len(lines)), *lines, ""])
