"""What the page of a search tells, as a value, and its candidates as points of a chart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from scrfdkit.search import charts
from scrfdkit.search.candidate import Outcome
from scrfdkit.search.charts import Point
from scrfdkit.search.choice import Objective, finished, points


@dataclass(frozen=True)
class Summary:
    """A search as it stands.

    facts: what is searched and how, in words (space, budget, seed, recipe, data, hold-out). notes: warnings, shown on
    top. outcomes: of all candidates. By a candidate's number: gflops of one picture at 640x480, params the trained
    numbers, milliseconds a picture (may be empty), names a few words on each. latency_note: where and how time was
    measured. winners: numbers of the chosen ones by `objective`, best first.
    """

    title: str
    facts: Mapping[str, str]
    notes: Sequence[str]
    outcomes: Sequence[Outcome]
    gflops: Mapping[int, float]
    params: Mapping[int, int]
    milliseconds: Mapping[int, float]
    latency_note: str
    objective: Objective
    winners: Sequence[int]
    names: Mapping[int, str]

    def done(self) -> list[Outcome]:
        """Those that may be compared."""
        return finished(self.outcomes)

    def won(self) -> list[Outcome]:
        """The winners, best first."""
        known = {one.candidate.number: one for one in self.done()}
        return [known[number] for number in self.winners if number in known]

    def blocks(self) -> list[str]:
        """Kinds of units among the finished candidates, in the order of the alphabet."""
        return sorted({one.candidate.spec.backbone.block for one in self.done()})


def marks(search: Summary, some: Sequence[Outcome], xs: Sequence[float], unit: str) -> list[Point]:
    """Finished candidates as points of score against xs, one mark a kind of units."""
    kinds, found = search.blocks(), []
    for one, x in zip(some, xs, strict=True):
        number, name = one.candidate.number, one.candidate.name
        words = f"{name}  {search.names.get(number, '')}\nscore {points(one):.2f}, {x:.4g} {unit}".rstrip()
        kind = kinds.index(one.candidate.spec.backbone.block)
        found.append(Point(x, points(one), words, kind, name if number in search.winners else ""))
    return found


def legend(search: Summary) -> str:
    """Samples of the marks, where there are several kinds of units."""
    kinds = search.blocks()
    samples = "".join(f'<span class="run">{charts.sample(i)}{escape(kind)}</span>' for i, kind in enumerate(kinds))
    return f'<p class="legend">{samples}</p>' if len(kinds) > 1 else ""
