"""Small charts as SVG text: colours come from the page's style sheet, so that they suit light and dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from scrfdkit.evaluate.analysis import Histogram

_WIDTH, _HEIGHT = 400, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 12, 38


def svg(body: str, label: str, width: int = _WIDTH, height: int = _HEIGHT) -> str:
    """A picture for the page, with the words that a screen reader says instead."""
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{body}</svg>'


def text(x: float, y: float, words: str, anchor: str = "middle", extra: str = "") -> str:
    """Words at a place; extra: more attributes."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line of a class of the style sheet."""
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


@dataclass(frozen=True)
class Axis:
    """One side of a chart, from low to high. ticks: values with a number and a line; digits: decimals of the numbers,
    None for as many as each needs. words: what is drawn along it."""

    low: float
    high: float
    ticks: tuple[float, ...] = ()
    words: str = ""
    digits: int | None = None

    def number(self, value: float) -> str:
        """A tick's number."""
        return f"{value:g}" if self.digits is None else f"{value:.{self.digits}f}"


@dataclass(frozen=True)
class Frame:
    """Where values lie in a picture of width x height, with `left` pixels for the numbers of the upright axis."""

    across: Axis
    up: Axis
    width: int = _WIDTH
    height: int = _HEIGHT
    left: int = _LEFT

    def x(self, value: float) -> float:
        """Pixels from the left."""
        axis = self.across
        return self.left + (value - axis.low) / (axis.high - axis.low) * (self.width - self.left - _RIGHT)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        axis, bottom = self.up, self.height - _BOTTOM
        return bottom - (value - axis.low) / (axis.high - axis.low) * (bottom - _TOP)

    def grid(self) -> str:
        """Lines, numbers and words."""
        right, bottom = self.width - _RIGHT, self.height - _BOTTOM
        parts = []
        for tick in self.up.ticks:
            parts.append(line(self.left, self.y(tick), right, self.y(tick), "grid"))
            parts.append(text(self.left - 6, self.y(tick) + 4, self.up.number(tick), "end"))
        for tick in self.across.ticks:
            parts.append(line(self.x(tick), _TOP, self.x(tick), bottom, "grid"))
            parts.append(text(self.x(tick), bottom + 16, self.across.number(tick)))
        middle = (_TOP + bottom) / 2
        parts.append(text((self.left + right) / 2, self.height - 4, self.across.words, extra=' class="axis"'))
        turned = f' class="axis" transform="rotate(-90 12 {middle:.1f})"'
        parts.append(text(12, middle, self.up.words, extra=turned))
        return "".join(parts)


_FIFTHS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def _unit(across: str, up: str) -> Frame:
    """A square from 0 to 1 both ways; numbers below it only where something is measured there."""
    return Frame(Axis(0, 1, _FIFTHS if across else (), across), Axis(0, 1, _FIFTHS, up))


def path(frame: Frame, xs: NDArray[np.float64], ys: NDArray[np.float64], kind: str) -> str:
    """A line of a class of the style sheet, without points that nobody would see."""
    points: list[str] = []
    for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
        point = f"{frame.x(x):.1f} {frame.y(y):.1f}"
        if not points or points[-1] != point:
            points.append(point)
    return f'<path class="{kind}" d="M{" L".join(points)}"/>' if points else ""


def precision_recall(curves: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]], label: str) -> str:
    """Recall to the right, precision upward; one curve (precision, recall) a run."""
    frame = _unit("recall", "precision")
    paths = []
    for run, (precision, recall) in enumerate(curves):
        begun = precision > 0  # before the first detection there is neither
        paths.append(path(frame, recall[begun], precision[begun], f"curve m{run}"))
    return svg(frame.grid() + "".join(paths), label)


def by_group(labels: Sequence[str], values: Sequence[Sequence[float | None]], up: str, label: str) -> str:
    """Groups from left to right, a line with dots a run; values[run][group]. Groups without a value are left open."""
    step = 1 / max(len(labels), 1)
    places = [(i + 0.5) * step for i in range(len(labels))]
    frame = _unit("", up)
    parts = [frame.grid()]
    parts += [text(frame.x(x), _HEIGHT - _BOTTOM + 16, words) for x, words in zip(places, labels, strict=True)]
    for run, row in enumerate(values):
        known = [(x, v) for x, v in zip(places, row, strict=True) if v is not None]
        xs, ys = np.array([x for x, _ in known]), np.array([v for _, v in known])
        parts.append(path(frame, xs, ys, f"curve m{run}"))
        parts += [f'<circle class="dot m{run}" cx="{frame.x(x):.1f}" cy="{frame.y(y):.1f}" r="4"/>' for x, y in known]
    return svg("".join(parts), label)


def histogram(bins: Histogram, threshold: float, label: str) -> str:
    """Right detections upward, wrong ones downward, both on one logarithmic scale; the threshold as a line."""
    height, middle, reach = 200, 92, 76
    most = max(int(bins.right.max()), int(bins.wrong.max()), 1)
    top = math.log10(most + 1)
    across = (_WIDTH - _LEFT - _RIGHT) / len(bins.right)
    parts = []
    for power in range(math.floor(math.log10(most)) + 1):
        away = reach * math.log10(10**power + 1) / top
        for y in (middle - away, middle + away):
            parts.append(line(_LEFT, y, _WIDTH - _RIGHT, y, "grid"))
            if power and (power % 2 == 0 or most < 100):
                parts.append(text(_LEFT - 6, y + 4, _short(10**power), "end"))
    for counts, kind, sign in ((bins.right, "good", -1), (bins.wrong, "bad", 1)):
        for i in np.flatnonzero(counts).tolist():
            tall = reach * math.log10(int(counts[i]) + 1) / top
            x, y = _LEFT + i * across, middle + min(sign * tall, 0)
            shape = f'x="{x:.1f}" y="{y:.1f}" width="{max(across - 0.8, 0.5):.1f}" height="{tall:.1f}"'
            parts.append(f'<rect class="{kind}" {shape}/>')
    parts.append(line(_LEFT, middle, _WIDTH - _RIGHT, middle, "zero"))
    span = bins.high - bins.low
    at = _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(max((threshold - bins.low) / span, 0), 1)
    parts.append(line(at, 4, at, 2 * middle - 4, "mark"))
    for i in range(6):
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * i / 5
        parts.append(text(x, height - 6, f"{bins.low + span * i / 5:.3g}"))
    return svg("".join(parts), label, _WIDTH, height)


def _short(number: int) -> str:
    return f"{number // 1000}k" if number >= 1000 else str(number)
