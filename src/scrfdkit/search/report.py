"""A search as one HTML page that needs nothing but a browser, at any time: planned, half done or finished."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from scrfdkit.evaluate import page as pieces
from scrfdkit.evaluate.page import Cell
from scrfdkit.search import charts, report_traits
from scrfdkit.search.candidate import Outcome, State
from scrfdkit.search.choice import Objective, front, points
from scrfdkit.search.summary import Summary, legend, marks

_CARDS = 3  # winners; more of them are a table
_LONGEST = 600  # letters of an error
_TONES: Mapping[State, str] = {
    "done": "right",
    "stopped": "badly-placed",
    "running": "duplicate",
    "waiting": "ignored",
    "failed": "background",
}
_STATES = tuple(_TONES)  # in the order of the table
_GOALS: Mapping[Objective, str] = {
    "hard": "The highest score among the finished candidates.",
    "latency": "The fastest of the finished candidates whose score is close to the highest.",
    "pareto": "Every finished candidate that none beats in both score and measured time, highest score first.",
}


def page(search: Summary) -> str:
    """The whole file. The same search gives the same text."""
    sections = [
        ("winner", "Winners" if len(search.won()) > 1 else "Winner", _winner(search)),
        ("progress", "Progress", _progress(search)),
        ("cost", "Score against cost", f'{legend(search)}<div class="row">{_flops(search)}{_latency(search)}</div>'),
        ("traits", "Traits of the best", report_traits.traits(search)),
        ("spread", "How scores are spread", report_traits.spread(search)),
        ("candidates", "All candidates", _candidates(search)),
        ("reading", "How to read this", _READING),
    ]
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(words)}</dd>" for name, words in search.facts.items())
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in search.notes)
    return pieces.page(search.title, f'{notes}<dl class="facts">{facts}</dl>', sections)


def _none(words: str) -> str:
    return f'<p class="none">{words}</p>'


def _winner(search: Summary) -> str:
    won = search.won()
    if not won:
        return _none("None is chosen yet." if search.done() else "No candidate has finished yet.")
    lead = f"<p>{_GOALS[search.objective]}</p>"
    if len(won) > _CARDS:
        return lead + _table(search, "Winners", won)
    return f'{lead}<div class="cards">{"".join(_card(search, one) for one in won)}</div>'


def _card(search: Summary, one: Outcome) -> str:
    number = one.candidate.number
    facts = {"score": f"<b>{points(one):.2f}</b>"}
    facts |= {escape(name): f"{value:.2f}" for name, value in one.scores.items()}
    costs = [f"{search.gflops[number]:.3f} GFLOPs"] if number in search.gflops else []
    costs += [f"{search.params[number] / 1e6:.3f} M parameters"] if number in search.params else []
    costs += [f"{search.milliseconds[number]:.2f} ms"] if number in search.milliseconds else []
    facts |= {"cost": " · ".join(costs)} if costs else {}
    lines = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    words = escape(search.names.get(number, ""))
    return f'<div class="card"><h3>Candidate {one.candidate.name}</h3>{words}<dl class="across">{lines}</dl></div>'


def _progress(search: Summary) -> str:
    counts = {state: sum(one.state == state for one in search.outcomes) for state in _STATES}
    hours = sum(one.seconds for one in search.outcomes) / 3600
    parts = [
        f"<p>{len(search.outcomes):,} candidates, {hours:,.1f} hours of training and scoring so far.</p>",
        pieces.bar("Candidates", [(state, counts[state], tone) for state, tone in _TONES.items()]),
    ]
    rows = [
        (_name(search, one), [Cell(one.state), pieces.number(one.tries), _error(one.error)])
        for one in search.outcomes
        if one.error
    ]
    if rows:
        parts.append("<h3>Errors</h3>" + pieces.table("Errors", ("candidate", "state", "tries", "last error"), rows))
    return "".join(parts)


def _error(words: str) -> Cell:
    shown = words if len(words) <= _LONGEST else f"{words[:_LONGEST]} ..."
    return Cell(f'<span class="wrap">{escape(shown)}</span>')


def _flops(search: Summary) -> str:
    same = set(search.gflops.values())
    if len(search.gflops) > 1 and len(same) == 1:
        words = f"All candidates cost the same, {same.pop():.3f} GFLOPs at 640x480."
        return f'<div id="flops"><h3>FLOPs</h3>{_none(words)}</div>'
    return f'<div id="flops"><h3>FLOPs</h3>{_against(search, search.gflops, "GFLOPs at 640x480", "GFLOPs")}</div>'


def _latency(search: Summary) -> str:
    body = ""
    missing = [one.candidate.name for one in search.done() if one.candidate.number not in search.milliseconds]
    if not search.milliseconds:
        ask = "No time is measured yet: <code>scrfd search report DIR --latency</code> measures all candidates."
        body += _none(ask)
    else:
        body += _against(search, search.milliseconds, "milliseconds a picture", "ms")
        if missing:
            some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            body += f'<p class="hint">{len(missing)} finished without a measured time, and so not shown: {some}.</p>'
    body += f'<p class="hint">{escape(search.latency_note)}</p>' if search.latency_note else ""
    return f'<div id="latency"><h3>Measured time</h3>{body}</div>'


def _against(search: Summary, costs: Mapping[int, float], across: str, unit: str) -> str:
    """Scores against a cost, with the front and the winners."""
    known = [one for one in search.done() if one.candidate.number in costs]
    if not known:
        return _none("There is nothing to draw before a candidate has finished.")
    dots = marks(search, known, [costs[one.candidate.number] for one in known], unit)
    best = front([dot.x for dot in dots], [dot.y for dot in dots])
    named = ", ".join(known[i].candidate.name for i in best[:12]) + (", ..." if len(best) > 12 else "")
    said = f"Score against {across}, {len(dots)} candidates; on the front: {named}"
    drawing = charts.scatter(dots, across, "score", said, front=best)
    return pieces.figure(drawing, f"dashed: the front, {named}<br>rings: winners")


def _candidates(search: Summary) -> str:
    """Finished ones by their score, then the others as far as they came."""
    ranked = sorted(search.outcomes, key=_rank)
    hint = _none("A click on a head sorts by its column. Scores in brackets are of fewer epochs.")
    return hint + _table(search, "All candidates", ranked)


def _rank(one: Outcome) -> tuple[float, ...]:
    score = one.score if one.score is not None and math.isfinite(one.score) else -math.inf
    return (_STATES.index(one.state), -score, -one.epochs, one.candidate.number)


def _table(search: Summary, caption: str, some: Sequence[Outcome]) -> str:
    settings = list(dict.fromkeys(name for one in search.outcomes for name in one.scores))
    timed = bool(search.milliseconds)
    head = [
        "candidate",
        "score",
        *(escape(name) for name in settings),
        "GFLOPs",
        "M params",
        *(["ms"] if timed else []),
    ]
    rows = []
    for one in some:
        number, full = one.candidate.number, one.state == "done"
        cells = [_score(one.score, full), *(_score(one.scores.get(name), full) for name in settings)]
        cells.append(_value(search.gflops.get(number), 3))
        count = search.params.get(number)
        cells.append(_value(None if count is None else count / 1e6, 3))
        cells += [_value(search.milliseconds.get(number), 2)] if timed else []
        state = Cell(f'<span class="k {_TONES[one.state]}"></span> {one.state}', _STATES.index(one.state))
        cells += [state, pieces.number(one.epochs), pieces.number(one.tries), _value(one.seconds / 60, 1)]
        rows.append((_name(search, one), cells))
    return pieces.table(caption, (*head, "state", "epochs", "tries", "minutes"), rows)


def _name(search: Summary, one: Outcome) -> str:
    number = one.candidate.number
    crown = " <b>winner</b>" if number in search.winners else ""
    return f"{one.candidate.name}{crown}<small>{escape(search.names.get(number, ''))}</small>"


def _score(value: float | None, full: bool) -> Cell:
    """Those of fewer epochs are in brackets, and last where the table is sorted by them."""
    return _value(value, 2) if full or value is None or not math.isfinite(value) else Cell(f"({value:.2f})")


def _value(value: float | None, digits: int) -> Cell:
    return Cell("–") if value is None or not math.isfinite(value) else Cell(f"{value:.{digits}f}", value)


_READING = (
    "<p>The score is the average precision in percent, on the pictures that the list at the top names and after this"
    " search's short training. It ranks candidates, and is no result to quote. Each was trained once, so two scores"
    " close to each other may change places with another seed: train the best few again before you take the first for"
    " the best.</p>"
    "<p>Only candidates that went through all their epochs are compared. Stopped ones were given up on the way because"
    " others were ahead of them at the same epoch; failed ones ended with an error at every try.</p>"
    "<dl><dt>front</dt><dd>Candidates that no other beats: none has a higher score at the same cost or less.</dd>"
    "<dt>GFLOPs</dt><dd>At 640x480: multiply-adds once, plus biases, norms and activations.</dd>"
    "<dt>range</dt><dd>A quarter of the finished candidates is drawn at random, with repetitions, and the trait of the"
    " best one is kept; the range holds the middle 95 % of ten thousand such draws. A range much narrower than what was"
    " tried says that the trait matters. One as wide says that it does not, or that there are too few candidates to"
    " tell: mostly the best fifteen decide.</dd>"
    "<dt>stem, C2 to C5</dt><dd>Shares of the backbone's FLOPs; C2 to C5 are its stages.</dd>"
    "<dt>backbone, neck, head</dt><dd>Shares of all FLOPs.</dd></dl>"
)
