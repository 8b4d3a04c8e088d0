"""Precision over recall of several runs as one drawing, in SVG or PNG.

The drawing is made once, of lines and words, and then written in either form; nothing but Pillow is needed.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from scrfdkit.errors import OptionError
from scrfdkit.evaluate.widerface import Curve

FORMATS = (".svg", ".png")

_PANEL, _MARGIN = 300, 46  # sides of a panel's square and the space around it, in pixels
_ROW = 15  # height of a line of the legend
_COLOURS = ("#0b6fb8", "#d1495b", "#2e8b57", "#9467bd", "#c77b0a", "#17859c", "#7f5539", "#6c757d")
_DASHES = ((), (7, 4), (2, 3))
_INK, _PALE = "#222222", "#dddddd"
_SCALE = 2  # pixels of the PNG a pixel of the drawing

Point: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """Through some points. dash: lengths on and off, or none for a whole line."""

    points: tuple[Point, ...]
    colour: str
    width: float = 1.0
    dash: tuple[int, ...] = ()


@dataclass(frozen=True)
class Word:
    """Text at a point of its base line. anchor: start, middle or end. turned: upwards."""

    at: Point
    text: str
    anchor: str = "start"
    size: int = 11
    turned: bool = False


@dataclass(frozen=True)
class Drawing:
    """What `draw` makes: width and height in pixels, and the parts in the order they are painted."""

    width: int
    height: int
    parts: tuple[Line | Word, ...]


def encode(runs: Mapping[str, Mapping[str, Curve]], path: Path) -> bytes:
    """The content of an .svg or .png file. runs: by name, the curves of each setting.

    Raises OptionError for other kinds of files.
    """
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise OptionError(f"--curves: {path} is neither an .svg nor a .png file")
    drawing = draw(runs)
    return svg(drawing) if suffix == ".svg" else png(drawing)


def draw(runs: Mapping[str, Mapping[str, Curve]]) -> Drawing:
    """A square a setting, side by side, with a line a run and its AP under it."""
    settings = list(next(iter(runs.values())))
    parts: list[Line | Word] = []
    for column, setting in enumerate(settings):
        left = _MARGIN + column * (_PANEL + _MARGIN)
        parts += _frame(left, setting)
        for number, (name, curves) in enumerate(runs.items()):
            colour, dash = _COLOURS[number % len(_COLOURS)], _DASHES[number // len(_COLOURS) % len(_DASHES)]
            curve = curves[setting]
            parts.append(Line(_points(curve, left), colour, 1.6, dash))
            at = _MARGIN + _PANEL + 44 + number * _ROW
            parts.append(Line(((left, at - 4), (left + 22, at - 4)), colour, 1.6, dash))
            parts.append(Word((left + 28, at), f"{100 * curve.ap:.2f}  {_short(name)}"))
    width = _MARGIN + len(settings) * (_PANEL + _MARGIN)
    return Drawing(width, _MARGIN + _PANEL + 50 + len(runs) * _ROW, tuple(parts))


def _short(name: str) -> str:
    return name if len(name) <= 36 else f"{name[:17]}…{name[-18:]}"


def _frame(left: int, setting: str) -> Iterator[Line | Word]:
    bottom = _MARGIN + _PANEL
    for step in range(6):
        offset = _PANEL * step / 5
        colour = _INK if step == 0 else _PALE
        yield Line(((left + offset, _MARGIN), (left + offset, bottom)), colour)
        yield Line(((left, bottom - offset), (left + _PANEL, bottom - offset)), colour)
        yield Word((left + offset, bottom + 14), f"{step / 5:.1f}", "middle", 10)
        yield Word((left - 5, bottom - offset + 4), f"{step / 5:.1f}", "end", 10)
    yield Word((left + _PANEL / 2, _MARGIN - 12), setting, "middle", 14)
    yield Word((left + _PANEL / 2, bottom + 27), "recall", "middle")
    yield Word((left - 30, _MARGIN + _PANEL / 2), "precision", "middle", 11, turned=True)


def _points(curve: Curve, left: int) -> tuple[Point, ...]:
    """The curve from its first found face on, without the points that lie on each other."""
    some = curve.recall > 0
    x, y = left + _PANEL * curve.recall[some], _MARGIN + _PANEL * (1 - curve.precision[some])
    xy = np.round(np.stack([x, y], axis=1), 2)
    fresh = np.append(True, (xy[1:] != xy[:-1]).any(axis=1))[: len(xy)]
    return tuple((px, py) for px, py in xy[fresh].tolist())


def svg(drawing: Drawing) -> bytes:
    """As SVG, UTF-8."""
    rows = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{drawing.width}" height="{drawing.height}"'
        f' viewBox="0 0 {drawing.width} {drawing.height}" font-family="sans-serif" fill="{_INK}">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    rows += [_svg_line(part) if isinstance(part, Line) else _svg_word(part) for part in drawing.parts]
    return "\n".join([*rows, "</svg>", ""]).encode()


def _svg_line(line: Line) -> str:
    points = " ".join(f"{x:g},{y:g}" for x, y in line.points)
    dash = f' stroke-dasharray="{" ".join(map(str, line.dash))}"' if line.dash else ""
    return f'<polyline points="{points}" fill="none" stroke="{line.colour}" stroke-width="{line.width:g}"{dash}/>'


def _svg_word(word: Word) -> str:
    x, y = word.at
    turn = f' transform="rotate(-90 {x:g} {y:g})"' if word.turned else ""
    place = f'x="{x:g}" y="{y:g}" font-size="{word.size}" text-anchor="{word.anchor}"{turn}'
    return f"<text {place}>{escape(word.text)}</text>"


def png(drawing: Drawing) -> bytes:
    """As PNG, two pixels a pixel of the drawing."""
    fine = 2 * _SCALE  # drawn larger and averaged, as Pillow's lines have hard edges
    canvas = Pillow.new("RGB", (drawing.width * fine, drawing.height * fine), "white")
    pen = ImageDraw.Draw(canvas)
    for part in drawing.parts:
        if isinstance(part, Line):
            for piece in _dashes(part.points, part.dash):
                pen.line([(x * fine, y * fine) for x, y in piece], part.colour, round(part.width * fine), joint="curve")
    canvas = canvas.resize((drawing.width * _SCALE, drawing.height * _SCALE), Pillow.Resampling.BOX)
    for part in drawing.parts:
        if isinstance(part, Word):
            _write(canvas, part)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _write(canvas: Pillow.Image, word: Word) -> None:
    font = ImageFont.load_default(word.size * _SCALE)
    across = {"start": "l", "middle": "m", "end": "r"}[word.anchor]
    x, y = (round(value * _SCALE) for value in word.at)
    if not word.turned:
        ImageDraw.Draw(canvas).text((x, y), word.text, _INK, font=font, anchor=f"{across}s")
        return
    width, height = round(font.getlength(word.text)), 2 * word.size * _SCALE
    strip = Pillow.new("RGB", (width, height), "white")
    ImageDraw.Draw(strip).text((0, height // 2), word.text, _INK, font=font, anchor="ls")
    canvas.paste(strip.rotate(90, expand=True), (x - height // 2, y - width // 2))


def _dashes(points: Sequence[Point], dash: Sequence[int]) -> Iterator[list[Point]]:
    """The pieces of a line that are drawn."""
    if len(points) < 2:
        return
    if not dash:
        yield list(points)
        return
    xy = np.array(points)
    along = np.append(0, np.cumsum(np.hypot(*np.diff(xy, axis=0).T)))
    for start in np.arange(0, along[-1], sum(dash)).tolist():
        stop = min(start + dash[0], float(along[-1]))
        inner = along[(along > start) & (along < stop)]
        at = np.concatenate([[start], inner, [stop]])
        yield list(zip(np.interp(at, along, xy[:, 0]).tolist(), np.interp(at, along, xy[:, 1]).tolist(), strict=True))
