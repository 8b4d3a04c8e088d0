"""The parts of a search's page that look at all candidates together: ranges of traits, and how scores are spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

from scrfdkit.evaluate import page as pieces
from scrfdkit.evaluate.page import Cell
from scrfdkit.search import charts
from scrfdkit.search.bootstrap import LEAST, Range, ranges
from scrfdkit.search.candidate import BACKBONE, PARTS, Outcome
from scrfdkit.search.charts import Span
from scrfdkit.search.choice import points
from scrfdkit.search.summary import Summary, legend, marks

_WHOLES = {"% of the backbone's FLOPs": BACKBONE, "% of all FLOPs": PARTS}
_HEAD = ("trait", "lowest tried", "highest tried", "range from", "median", "to", "best candidate's")
_SMALL = (400, 260)


def traits(search: Summary) -> str:
    """Ranges as bars, as a table, and the scores that they come from. Shares are shown in percent."""
    done = search.done()
    if not done:
        return '<p class="none">There is nothing to draw before a candidate has finished.</p>'
    names = [name for name in done[0].candidate.traits if all(name in one.candidate.traits for one in done)]
    found = ranges(done) if len(done) >= LEAST else {}
    found = {name: _percent(name, found[name]) for name in names if name in found}
    values = {name: [_scale(name) * one.candidate.traits[name] for one in done] for name in names}
    if found:
        lead = (
            '<p class="hint"><span class="k right"></span> 95 % range of the best and its median, by the empirical'
            " bootstrap; rings: winners. Shares are in percent.</p>"
        )
    else:
        lead = f'<p class="none">Ranges need {LEAST} finished candidates or more; there are {len(done)}.</p>'
    table = ""
    if found:
        rows = [(escape(name), _cells(values[name], found[name])) for name in names]
        table = pieces.table("Ranges of the traits", _HEAD, rows)
    return f"{lead}{_bars(search, values, found)}{table}<h3>Score by trait</h3>{_multiples(search, values, found)}"


def _scale(name: str) -> float:
    return 100.0 if name in (*BACKBONE, *PARTS) else 1.0


def _unit(name: str) -> str:
    return next((unit for unit, names in _WHOLES.items() if name in names), "")


def _percent(name: str, found: Range) -> Range:
    scale = _scale(name)
    return Range(scale * found.low, scale * found.median, scale * found.high, scale * found.best)


def _bars(search: Summary, values: Mapping[str, Sequence[float]], found: Mapping[str, Range]) -> str:
    """Shares of one whole side by side; other traits have scales of their own, and no chart together."""
    figures = []
    won = [i for i, one in enumerate(search.done()) if one.candidate.number in search.winners]
    for unit, group in _WHOLES.items():
        rows = [
            Span(name, values[name], found.get(name), [values[name][i] for i in won])
            for name in group
            if name in values
        ]
        if rows:
            figures.append(
                pieces.figure(charts.spans(rows, unit, f"Ranges in {unit}; the numbers are in the table"), "")
            )
    return f'<div class="row">{"".join(figures)}</div>'


def _cells(values: Sequence[float], found: Range) -> list[Cell]:
    numbers = (min(values), max(values), found.low, found.median, found.high, found.best)
    return [Cell(f"{value:.2f}", value) for value in numbers]


def _multiples(search: Summary, values: Mapping[str, Sequence[float]], found: Mapping[str, Range]) -> str:
    """A scatter of score a trait."""
    figures = []
    for name, xs in values.items():
        unit = _unit(name)
        dots = marks(search, search.done(), xs, unit or name)
        across = f"{name}, {unit}" if unit else name
        said = f"Score by {across}, {len(dots)} candidates"
        figures.append(
            pieces.figure(charts.scatter(dots, across, "score", said, band=found.get(name), size=_SMALL), "")
        )
    return f'{legend(search)}<div class="row">{"".join(figures)}</div>'


def spread(search: Summary) -> str:
    """The share of candidates by score, a line a kind of units, and the same in numbers."""
    done = search.done()
    if len(done) < 2:
        return '<p class="none">There is nothing to draw before two candidates have finished.</p>'
    groups = {kind: _scores(done, kind) for kind in search.blocks()}
    said = "; ".join(f"{kind}: {len(scores)}, median {np.median(scores):.2f}" for kind, scores in groups.items())
    drawing = charts.cdf(groups, "score", f"Share of candidates by score. {said}")
    figure = pieces.figure(drawing, "candidates with at most that score: further to the right is better")
    rows = [(pieces.key(i, kind), _spread(scores)) for i, (kind, scores) in enumerate(groups.items())]
    head = ("units", "count", "lowest", "median", "highest")
    return f'<div class="row">{figure}{pieces.table("Scores", head, rows)}</div>'


def _scores(done: Sequence[Outcome], kind: str) -> list[float]:
    return [points(one) for one in done if one.candidate.spec.backbone.block == kind]


def _spread(scores: Sequence[float]) -> list[Cell]:
    three = np.quantile(scores, (0, 0.5, 1)).tolist()
    return [pieces.number(len(scores)), *(Cell(f"{value:.2f}", value) for value in three)]
