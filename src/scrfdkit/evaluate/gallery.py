"""The worst misses and false alarms of a run, picked by how much they should hurt and cut out of their pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfdkit import image as images
from scrfdkit.errors import ImageError
from scrfdkit.evaluate.analysis import Analysis, Difference, Run
from scrfdkit.evaluate.judge import Kind
from scrfdkit.types import Image

PER_PICTURE = 2
"""One crowd must not fill a gallery."""

_SIDE = 280  # pixels of a cut-out on the page
_MOST_BYTES = 16_000
_CONTEXT = 3.0  # how many times the face's longer side is shown
_LEAST = 72  # pixels of the picture, so that a tiny face is not blown up to nothing but squares

_CLEARNESS: Mapping[str, tuple[float, ...]] = {
    "blur": (1.0, 0.7, 0.3),
    "occlusion": (1.0, 0.6, 0.25),
    "pose": (1.0, 0.8),
    "illumination": (1.0, 0.8),
}
_TITLES = {Kind.DUPLICATE: "duplicate", Kind.LOCALISATION: "badly placed", Kind.BACKGROUND: "background"}


@dataclass(frozen=True)
class Pick:
    """Something to show: a box (x y w h) in a picture, given by its number, the run whose boxes are drawn, words."""

    picture: int
    box: tuple[float, float, float, float]
    run: Run
    is_face: bool
    caption: str


@dataclass(frozen=True)
class Mark:
    """A box in pixels of a cut-out. role: "target", "face", "ignored", "right" or "wrong"."""

    role: str
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Shot:
    """A cut-out: JPEG of width x height pixels, boxes to draw on it, the picture's name and words."""

    jpeg: bytes
    width: int
    height: int
    marks: tuple[Mark, ...]
    name: str
    caption: str
    is_face: bool


def misses(analysis: Analysis, run: Run, limit: int) -> list[Pick]:
    """Faces that count and were not found, the largest and clearest first."""
    missed = np.flatnonzero(analysis.counted & (run.verdict.fate != 0))
    return _faces(analysis, run, missed, limit)


def only_first(analysis: Analysis, difference: Difference, limit: int) -> list[Pick]:
    """Faces that the second run of a comparison misses and the first finds, the largest and clearest first."""
    return _faces(analysis, difference.second, np.flatnonzero(difference.only_first), limit)


def only_second(analysis: Analysis, difference: Difference, limit: int) -> list[Pick]:
    """Faces that the first run of a comparison misses and the second finds, the largest and clearest first."""
    return _faces(analysis, difference.first, np.flatnonzero(difference.only_second), limit)


def false_alarms(analysis: Analysis, run: Run, limit: int) -> list[Pick]:
    """Wrong detections, the highest scores first."""
    wrong = np.flatnonzero(run.verdict.kind >= Kind.DUPLICATE)
    scores = run.pairing.found.scores
    order = wrong[np.argsort(-scores[wrong].astype(np.float64), kind="stable")]
    return [
        Pick(
            int(run.pairing.picture[i]),
            _plain(run.pairing.found.boxes[i]),
            run,
            False,
            f"{_TITLES[Kind(run.verdict.kind[i])]} · score {scores[i]:.2f}",
        )
        for i in _spread(order, run.pairing.picture, limit)
    ]


def _faces(analysis: Analysis, run: Run, faces: NDArray[np.intp], limit: int) -> list[Pick]:
    sides, best = analysis.sides(), run.pairing.best_score()
    weight = sides * _clearness(analysis)
    order = faces[np.argsort(-weight[faces], kind="stable")]
    picture = np.repeat(np.arange(len(analysis.truth.counts)), analysis.truth.counts)
    picks = []
    for i in _spread(order, picture, limit):
        state = f"only at score {best[i]:.2f}" if np.isfinite(best[i]) else "no detection"
        words = [state, f"{sides[i]:.0f} px", *_labels(analysis, int(i))]
        picks.append(Pick(int(picture[i]), _plain(analysis.truth.boxes[i]), run, True, " · ".join(words)))
    return picks


def _clearness(analysis: Analysis) -> NDArray[np.float64]:
    clear = np.ones(len(analysis.truth.boxes))
    for key, factors in _CLEARNESS.items():
        table = analysis.table(key)
        if table is not None:
            clear *= np.take(np.append(factors, 1.0), table.grouping.index)
    return clear


def _labels(analysis: Analysis, face: int) -> list[str]:
    """What is unusual about a face, "heavy blur" for one."""
    tables = [table for key in _CLEARNESS if (table := analysis.table(key)) is not None]
    return [
        f"{table.grouping.labels[table.grouping.index[face]]} {table.grouping.key}"
        for table in tables
        if table.grouping.index[face] > 0
    ]


def _spread(order: NDArray[np.intp], picture: NDArray[np.int64], limit: int) -> list[int]:
    """The first of an order, but only a few of each picture."""
    taken: Counter[int] = Counter()
    chosen: list[int] = []
    for i in order.tolist():
        if len(chosen) == limit:
            break
        if taken[int(picture[i])] < PER_PICTURE:
            taken[int(picture[i])] += 1
            chosen.append(i)
    return chosen


def _plain(box: NDArray[Any]) -> tuple[float, float, float, float]:
    x, y, w, h = (float(v) for v in box)
    return x, y, w, h


def cut(
    analysis: Analysis, lists: Sequence[Sequence[Pick]], paths: Mapping[str, Path]
) -> tuple[list[list[Shot]], list[str]]:
    """Cuts all picks out of their pictures, each of which is read once.

    paths: the file of every picture, by its name in the ground truth; picks without one are left out.
    Returns a list of shots for every list of picks, and what went wrong with pictures that could not be read.
    """
    places = [(pick.picture, i, j) for i, picks in enumerate(lists) for j, pick in enumerate(picks)]
    shots: dict[tuple[int, int], Shot] = {}
    problems: list[str] = []
    current, pixels = -1, None
    for picture, i, j in sorted(places):
        path = paths.get(analysis.truth.images[picture])
        if picture != current:
            current, pixels = picture, None
            try:
                pixels = images.load(path).pixels if path is not None else None
            except ImageError as error:
                problems.append(str(error))
        shot = None if pixels is None else _shot(analysis, lists[i][j], pixels)
        if shot is not None:
            shots[i, j] = shot
    kept = [[shots[i, j] for j in range(len(picks)) if (i, j) in shots] for i, picks in enumerate(lists)]
    return kept, problems


def _shot(analysis: Analysis, pick: Pick, pixels: Image) -> Shot | None:
    window = _window(pick.box, (pixels.shape[1], pixels.shape[0]))
    if window is None:
        return None
    x1, y1, x2, y2 = window
    scale = _SIDE / max(x2 - x1, y2 - y1)
    size = (max(1, round((x2 - x1) * scale)), max(1, round((y2 - y1) * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    part = np.asarray(cv2.resize(pixels[y1:y2, x1:x2], size, interpolation=how), np.uint8)
    marks = tuple(
        Mark(role, ((x - x1) * scale, (y - y1) * scale, w * scale, h * scale))
        for role, (x, y, w, h) in _boxes_near(analysis, pick)
        if x < x2 and y < y2 and x + w > x1 and y + h > y1
    )
    return Shot(_jpeg(part), *size, marks, analysis.truth.images[pick.picture], pick.caption, pick.is_face)


def _window(box: tuple[float, float, float, float], size: tuple[int, int]) -> tuple[int, int, int, int] | None:
    """A square of the picture around a box, moved inside where it sticks out; None for a box outside the picture."""
    x, y, w, h = box
    if not (np.isfinite(box).all() and x < size[0] and y < size[1] and x + w > 0 and y + h > 0):
        return None
    side = max(_LEAST, _CONTEXT * max(w, h))
    spans = []
    for middle, length in ((x + w / 2, size[0]), (y + h / 2, size[1])):
        whole = min(round(side), length)
        start = round(min(max(middle - whole / 2, 0), length - whole))
        spans.append((start, start + whole))
    (x1, x2), (y1, y2) = spans
    return x1, y1, x2, y2


def _boxes_near(analysis: Analysis, pick: Pick) -> Iterable[tuple[str, tuple[float, float, float, float]]]:
    """Everything known about the picture, what matters most last, so that it is drawn on top."""
    truth, run = analysis.truth, pick.run
    start = int(truth.counts[: pick.picture].sum())
    for face in range(start, start + int(truth.counts[pick.picture])):
        yield ("face" if analysis.counted[face] else "ignored"), _plain(truth.boxes[face])
    first, last = np.searchsorted(run.pairing.picture, [pick.picture, pick.picture + 1])
    for row in range(first, last):
        kind = run.verdict.kind[row]
        if kind != Kind.BELOW:
            yield ("wrong" if kind >= Kind.DUPLICATE else "right"), _plain(run.pairing.found.boxes[row])
    yield "target", pick.box


def _jpeg(pixels: Image) -> bytes:
    """As good as fits into the page's share of it."""
    data = b""
    for quality in (78, 65, 50, 35):
        data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(data) <= _MOST_BYTES:
            break
    return data
