"""Charts of a search as SVG text: score against a cost or a trait, how scores are spread, and ranges of traits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from scrfdkit.evaluate.graphs import Axis, Frame, line, path, svg, text
from scrfdkit.search.bootstrap import Range

_ROW = 38  # pixels of a trait among `spans`
_NAMED = 3  # winners that get a number beside their ring; more of them would lie upon each other


@dataclass(frozen=True)
class Point:
    """A candidate in a scatter. words: shown under the mouse. kind: 0, 1, 2: drawn round, square, as a triangle.
    won: its name where it is a winner, else ""."""

    x: float
    y: float
    words: str
    kind: int = 0
    won: str = ""


@dataclass(frozen=True)
class Span:
    """A trait's row. values: of all candidates. found: its range, None where it is not known. winners: their values."""

    name: str
    values: Sequence[float]
    found: Range | None = None
    winners: Sequence[float] = ()


def axis(values: Sequence[float], words: str, ticks: int = 6) -> Axis:
    """An axis with room for all values and about `ticks` round numbers; it goes below zero only where values do.

    One value, or many equal ones, get an axis around them; none gets 0 to 1.
    """
    low, high = (min(values), max(values)) if len(values) else (0.0, 1.0)
    least = 0.0 if low >= 0 else -math.inf
    if high - low <= 1e-9 * abs(high):  # equal but for rounding
        reach = abs(high) / 20 or 0.5
        low, high = low - reach, high + reach
    pad = 0.06 * (high - low)
    start, end = max(low - pad, least), high + pad
    size, digits = _step((end - start) / ticks)
    first, last = math.ceil(start / size - 1e-9), math.floor(end / size + 1e-9)
    return Axis(start, end, tuple(i * size for i in range(first, last + 1)), words, digits)


def _step(rough: float) -> tuple[float, int]:
    """The round number (1, 2 or 5 and zeros) from `rough` up, and the decimals that show it."""
    power = math.floor(math.log10(rough))
    for digit in (1, 2, 5, 10):
        if digit * 10.0**power >= rough * 0.999:
            power, digit = (power + 1, 1) if digit == 10 else (power, digit)
            break
    return digit * 10.0**power, max(0, -power)


def score_axis(scores: Sequence[float], words: str) -> Axis:
    """An axis of scores that a few failures at the bottom do not press flat: it ends three times the middle half of all
    scores below that half. `scatter` draws what is lower at its edge."""
    if len(scores) < 8:
        return axis(scores, words)
    quarter, rest = np.quantile(scores, (0.25, 0.75)).tolist()
    least = quarter - 3 * (rest - quarter) if rest > quarter else -math.inf
    return axis([score for score in scores if score >= least], words)


def _frame(across: Axis, up: Axis, size: tuple[int, int]) -> Frame:
    """Numbers of the upright axis get as much room as the longest needs."""
    longest = max((len(up.number(tick)) for tick in up.ticks), default=1)
    return Frame(across, up, *size, left=max(44, 26 + 7 * longest))


def scatter(
    points: Sequence[Point],
    across: str,
    up: str,
    label: str,
    *,
    front: Sequence[int] = (),
    band: Range | None = None,
    size: tuple[int, int] = (480, 320),
) -> str:
    """Points with what they are under the mouse, and rings around the winners.

    across, up: words along the axes. front: places of the points on the Pareto front, by rising x; drawn as the best y
    to be had for x at most. band: a range of x, shaded, with its median as a line.
    """
    heights = score_axis([point.y for point in points], up)
    winners = [point for point in points if point.won]
    shape = _frame(axis([point.x for point in points], across), heights, size)
    top, bottom = shape.y(heights.high), shape.y(heights.low)
    parts = [shape.grid()]
    if band:
        left, right = shape.x(band.low), shape.x(band.high)
        rect = f'x="{left:.1f}" y="{top:.1f}" width="{max(right - left, 1):.1f}" height="{bottom - top:.1f}"'
        parts.append(f'<rect class="band" {rect}/>')
        parts.append(line(shape.x(band.median), top, shape.x(band.median), bottom, "median"))
    if front:
        parts.append(_stairs(shape, [points[i] for i in front]))
    below = sum(point.y < heights.low for point in points)
    parts += [_mark(shape, point) for point in points]
    for point in winners:
        x, y = shape.x(point.x), shape.y(point.y)
        parts.append(f'<circle class="won" cx="{x:.1f}" cy="{y:.1f}" r="7.5"/>')
        if len(winners) <= _NAMED:
            side = -1 if x > size[0] * 0.8 else 1
            parts.append(text(x + 11 * side, y - 7, point.won, "end" if side < 0 else "start", ' class="pick"'))
    if below:
        parts.append(text(size[0] - 12, bottom - 14, f"{below} below {heights.low:.4g}", "end"))
    return svg("".join(parts), label, *size)


def sample(kind: int) -> str:
    """A kind's mark, for a legend."""
    return f'<svg class="key" viewBox="0 0 28 10" aria-hidden="true">{_shape(14, 5, kind, f"point m{kind}", "")}</svg>'


def _mark(shape: Frame, point: Point) -> str:
    """One candidate; where its score is off the axis, an open mark at the edge."""
    low = point.y < shape.up.low
    style = f"point m{point.kind}" + (" off" if low else "")
    title = f"<title>{escape(point.words)}</title>"
    return _shape(shape.x(point.x), shape.y(max(point.y, shape.up.low)), point.kind, style, title)


def _shape(x: float, y: float, kind: int, style: str, inner: str) -> str:
    if kind == 1:
        return f'<rect class="{style}" x="{x - 3.3:.1f}" y="{y - 3.3:.1f}" width="6.6" height="6.6">{inner}</rect>'
    if kind == 2:
        return f'<path class="{style}" d="M{x:.1f} {y - 4.5:.1f}l4.3 7.5h-8.6z">{inner}</path>'
    return f'<circle class="{style}" cx="{x:.1f}" cy="{y:.1f}" r="3.7">{inner}</circle>'


def _stairs(shape: Frame, points: Sequence[Point]) -> str:
    """From each point of the front level to where the next is paid for, then up; the last one goes on to the edge."""
    steps = [f"M{shape.x(points[0].x):.1f} {shape.y(points[0].y):.1f}"]
    steps += [f"H{shape.x(point.x):.1f}V{shape.y(point.y):.1f}" for point in points[1:]]
    return f'<path class="front" d="{"".join(steps)}H{shape.x(shape.across.high):.1f}"/>'


def cdf(groups: Mapping[str, Sequence[float]], across: str, label: str, size: tuple[int, int] = (480, 320)) -> str:
    """The share of each group's scores that are at most the one below: a line a group, of at least one score each, in
    the order of `page.legend`. The further to the right, the better; a steep line holds networks that are alike."""
    every = [score for scores in groups.values() for score in scores]
    shape = _frame(score_axis(every, across), Axis(0, 1, (0, 0.25, 0.5, 0.75, 1), "share of candidates", 2), size)
    parts = [shape.grid()]
    for place, scores in enumerate(groups.values()):
        low, high = shape.across.low, shape.across.high
        rising = np.sort(np.asarray(scores, np.float64))
        # each score is a step up at its place; those off the axis are steps at its edge
        xs = np.repeat(np.clip(rising, low, high), 2)
        ys = np.arange(1, 2 * len(rising) + 1) // 2 / len(rising)
        xs, ys = np.concatenate([[low], xs, [high]]), np.concatenate([[0], ys, [1]])
        parts.append(path(shape, xs, ys, f"curve m{place}"))
    return svg("".join(parts), label, *size)


def spans(rows: Sequence[Span], across: str, label: str, width: int = 480) -> str:
    """Traits on one scale, a row each: all candidates as faint dots, the range as a bar, its median as a line, and
    the winners as rings."""
    words = max((len(row.name) for row in rows), default=0)
    every = [value for row in rows for value in row.values]
    nothing = Axis(0, 1)
    shape = Frame(axis(every, across), nothing, width, 12 + _ROW * len(rows) + 38, left=24 + 8 * words)
    parts = [shape.grid()]
    for i, row in enumerate(rows):
        middle = 12 + _ROW * (i + 0.5)
        parts.append(text(shape.left - 12, middle + 4, row.name, "end", ' class="axis"'))
        if row.found:
            parts.append(_bar(shape, middle, row.name, row.found))
        for place, value in enumerate(row.values):
            # golden steps up and down, so that equal values lie beside each other
            y = middle + (place * 0.618034 % 1 - 0.5) * 18
            parts.append(f'<circle class="speck" cx="{shape.x(value):.1f}" cy="{y:.1f}" r="2.2"/>')
        if row.found:
            at = shape.x(row.found.median)
            parts.append(line(at, middle - 14, at, middle + 14, "median"))
        rings = (f'<circle class="won" cx="{shape.x(value):.1f}" cy="{middle:.1f}" r="6"/>' for value in row.winners)
        parts += rings
    return svg("".join(parts), label, width, shape.height)


def _bar(shape: Frame, middle: float, name: str, found: Range) -> str:
    left, right = shape.x(found.low), shape.x(found.high)
    rect = f'x="{left:.1f}" y="{middle - 13:.1f}" width="{max(right - left, 2):.1f}" height="26" rx="4"'
    said = f"{name}: {found.low:.4g} to {found.high:.4g}, median {found.median:.4g}"
    return f'<rect class="band" {rect}><title>{escape(said)}</title></rect>'
