"""Pieces of an HTML page: tables that can be sorted, figures, galleries, and the page around them in one file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files

from scrfdkit.evaluate.gallery import Mark, Shot

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""The browser itself sees to it that the page never asks the network for anything."""

_TALL = 20  # rows, more of which get a window of their own


@dataclass(frozen=True)
class Cell:
    """A cell of a table. shown: HTML. value: what to sort by. run: draws value, 0 to 1, as a bar in a run's colour."""

    shown: str
    value: float | None = None
    run: int | None = None
    tone: str = ""

    def html(self) -> str:
        """As a <td>."""
        value = "" if self.value is None else f' data-v="{self.value:.6g}"'
        if self.run is not None and self.value is not None:
            width = min(max(self.value, 0.0), 1.0)
            bar = f' style="--w:{100 * width:.1f}%"'
            return f'<td class="n bar m{self.run}"{value}{bar}>{self.shown}</td>'
        return f'<td class="n {self.tone}"{value}>{self.shown}</td>'


def number(value: int) -> Cell:
    """A count."""
    return Cell(f"{value:,}", value)


def percent(value: float | None, run: int | None = None) -> Cell:
    """A share, in percent with two decimals; a dash for None."""
    return Cell("–") if value is None else Cell(f"{100 * value:.2f}", value, run)


def change(before: float | None, after: float | None) -> Cell:
    """The difference of two shares in points of percent, with its sign."""
    if before is None or after is None:
        return Cell("–")
    points = 100 * (after - before)
    tone = "" if abs(points) < 0.005 else "up" if points > 0 else "down"
    return Cell(f"{points:+.2f}".replace("-", "−") if tone else "0.00", points, tone=tone)


def table(caption: str, head: Sequence[str], rows: Sequence[tuple[str, Sequence[Cell]]]) -> str:
    """A table whose first column names its rows; head: HTML of all columns. A click on a head sorts by it."""
    heads = "".join(f'<th scope="col" aria-sort="none"><button type="button">{h}</button></th>' for h in head)
    body = "".join(
        f'<tr><th scope="row" data-v="{i}">{name}</th>{"".join(cell.html() for cell in cells)}</tr>'
        for i, (name, cells) in enumerate(rows)
    )
    inner = f"<caption>{escape(caption)}</caption><thead><tr>{heads}</tr></thead><tbody>{body}</tbody>"
    kind = "scroll tall" if len(rows) > _TALL else "scroll"
    return f'<div class="{kind}" tabindex="0" role="region" aria-label="{escape(caption)}"><table>{inner}</table></div>'


def key(run: int, name: str) -> str:
    """A run's name with a sample of its line."""
    sample = '<svg class="key" viewBox="0 0 28 10" aria-hidden="true">'
    return f'<span class="run">{sample}<path class="curve m{run}" d="M1 5H27"/></svg>{escape(name)}</span>'


def legend(names: Sequence[str]) -> str:
    """Samples of all runs' lines."""
    return f'<p class="legend">{"".join(key(i, name) for i, name in enumerate(names))}</p>'


def figure(chart: str, caption: str) -> str:
    """A chart with words below; caption: HTML, or "" for none."""
    return f"<figure>{chart}{f'<figcaption>{caption}</figcaption>' if caption else ''}</figure>"


def section(anchor: str, title: str, body: str) -> str:
    """A part of the page that the list at its top leads to."""
    return f'<section id="{anchor}"><h2><a href="#{anchor}">{escape(title)}</a></h2>{body}</section>'


def bar(title: str, parts: Sequence[tuple[str, int, str]]) -> str:
    """A whole split into its parts, in words and as a bar; parts: name, count and class of the style sheet of each."""
    total = max(sum(count for _, count, _ in parts), 1)
    spans = "".join(
        f'<span class="{kind}" style="flex-grow:{count}" title="{escape(name)}: {count:,}"></span>'
        for name, count, kind in parts
        if count
    )
    said = ", ".join(f"{escape(name)} {count:,} ({100 * count / total:.1f} %)" for name, count, _ in parts)
    return f'<p class="split"><b>{escape(title)}</b> {said}</p><div class="stack" aria-hidden="true">{spans}</div>'


def shots(gallery: Sequence[Shot], empty: str) -> str:
    """Cut-outs side by side, or a sentence where there are none."""
    if not gallery:
        return f'<p class="none">{escape(empty)}</p>'
    return f'<div class="gallery">{"".join(_shot(shot) for shot in gallery)}</div>'


def _shot(shot: Shot) -> str:
    what = "Missed face" if shot.is_face else "False alarm"
    alt = escape(f"{what} in {shot.name}: {shot.caption}")
    data = b64encode(shot.jpeg).decode()
    picture = f'<image href="data:image/jpeg;base64,{data}" width="{shot.width}" height="{shot.height}"/>'
    boxes = "".join(_mark(mark, shot.is_face) for mark in shot.marks)
    drawing = f'<svg viewBox="0 0 {shot.width} {shot.height}" role="img" aria-label="{alt}">{picture}{boxes}</svg>'
    caption = f"{escape(shot.caption)}<small>{escape(shot.name)}</small>"
    return f'<figure class="shot">{drawing}<figcaption>{caption}</figcaption></figure>'


def _mark(mark: Mark, is_face: bool) -> str:
    x, y, w, h = mark.box
    role = ("missed" if is_face else "alarm") if mark.role == "target" else mark.role
    shape = f'x="{x:.1f}" y="{y:.1f}" width="{max(w, 0):.1f}" height="{max(h, 0):.1f}"'
    rim = f'<rect class="rim" {shape}/>' if mark.role == "target" else ""
    return f'{rim}<rect class="box {role}" {shape}/>'


def page(title: str, lead: str, sections: Sequence[tuple[str, str, str]]) -> str:
    """The whole file. lead: HTML under the title. sections: anchor, title and HTML of each."""
    links = "".join(f'<a href="#{anchor}">{escape(name)}</a>' for anchor, name, _ in sections)
    body = "".join(section(*part) for part in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escape(title)}</title>'
        f'<link rel="icon" href="data:,"><style>{_asset("analyze.css")}</style></head>'
        f'<body><header><h1>{escape(title)}</h1>{lead}</header><nav aria-label="Contents">{links}</nav>'
        f"<main>{body}</main><script>{_asset('analyze.js')}</script></body></html>\n"
    )


def _asset(name: str) -> str:
    return (files("scrfdkit") / "assets" / name).read_text(encoding="utf-8")
