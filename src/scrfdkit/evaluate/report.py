"""The error analysis as one HTML page that needs nothing but a browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from scrfdkit.evaluate import attributes, gallery, graphs, page
from scrfdkit.evaluate.analysis import Analysis, Run, Table, compare
from scrfdkit.evaluate.gallery import Pick
from scrfdkit.evaluate.judge import Fate, Kind
from scrfdkit.evaluate.page import Cell

_SHOTS_ON_PAGE = 180  # at most 16 kB each, so that a page stays below five megabytes
_SHOTS_IN_ROW = 24

_KINDS = (
    (Kind.RIGHT, "right", "the best box of a face that counts (IoU at least 0.5)"),
    (Kind.DUPLICATE, "duplicate", "one more box of a face that is already found"),
    (Kind.LOCALISATION, "badly placed", "overlaps a face that nothing found by 0.1 to 0.5"),
    (Kind.BACKGROUND, "background", "no face that is not found already"),
    (Kind.IGNORED, "ignored", "on a face that does not count, or in a picture without labels: neither right nor wrong"),
)
_FATES = (
    (Fate.FOUND, "found", "a box overlaps it by half"),
    (Fate.LOOSE, "badly placed", "the only box overlaps it by 0.1 to 0.5"),
    (Fate.MISSED, "missed", "nothing at this score"),
)


def report(
    analysis: Analysis, paths: Mapping[str, Path] | None = None, notes: Sequence[str] = ()
) -> tuple[str, list[str]]:
    """The page as text, and what went wrong with pictures that could not be read.

    paths: files of pictures by name, for the galleries; without them there are none. notes: sentences to show on top.
    """
    galleries, problems = _galleries(analysis, paths or {})
    sections = [
        ("precision", "Precision and recall", _precision(analysis)),
        ("errors", "Errors", _errors(analysis)),
        ("groups", "Groups of faces", _groups(analysis)),
        ("events", "Events", _events(analysis)),
        ("scores", "Scores", _scores(analysis)),
        *([("differences", "Differences", _differences(analysis))] if len(analysis.runs) > 1 else []),
        *galleries,
        ("reading", "How to read this", _reading(analysis)),
    ]
    return page.page("Face detection, error by error", _lead(analysis, [*notes, *problems]), sections), problems


def _names(analysis: Analysis) -> list[str]:
    return [run.name for run in analysis.runs]


def _lead(analysis: Analysis, notes: Sequence[str]) -> str:
    truth = analysis.truth
    facts = (
        f"{len(truth.images):,} pictures with {len(truth.boxes):,} labelled faces, of which"
        f" {int(analysis.counted.sum()):,} count in the setting <b>{escape(analysis.setting)}</b>."
    )
    cards = "".join(_card(analysis, setting) for setting in truth.counted)
    warnings = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    return f'<p>{facts}</p>{warnings}<div class="cards">{cards}</div>'


def _card(analysis: Analysis, setting: str) -> str:
    """A headline number a run."""
    aps = [run.curves[setting].ap for run in analysis.runs]
    lines = []
    for i, (run, ap) in enumerate(zip(analysis.runs, aps, strict=True)):
        gain = page.change(aps[0], ap) if i else None
        delta = f' <span class="n {gain.tone}">{gain.shown}</span>' if gain else ""
        meter = f'<span class="meter m{i}" style="--w:{100 * ap:.1f}%"></span>'
        lines.append(f"<dt>{page.key(i, run.name)}</dt><dd><b>{100 * ap:.2f}</b>{delta}{meter}</dd>")
    return f'<div class="card"><h3>AP {escape(setting)}</h3><dl>{"".join(lines)}</dl></div>'


def _precision(analysis: Analysis) -> str:
    figures = []
    for setting in analysis.truth.counted:
        curves = [run.curves[setting] for run in analysis.runs]
        said = ", ".join(f"{run.name} AP {100 * c.ap:.2f}" for run, c in zip(analysis.runs, curves, strict=True))
        chart = graphs.precision_recall([(c.precision, c.recall) for c in curves], f"Precision by recall: {said}")
        figures.append(page.figure(chart, escape(setting)))
    head = ("run", "score", "precision", "recall", "F1")
    rows = [(page.key(i, run.name), _point(run, i)) for i, run in enumerate(analysis.runs)]
    points = page.table(f"At the score threshold, setting {analysis.setting}", head, rows)
    return f'{page.legend(_names(analysis))}<div class="row">{"".join(figures)}</div>{points}'


def _point(run: Run, i: int) -> list[Cell]:
    verdict = run.verdict
    score = Cell(f"{verdict.threshold:.4g}", verdict.threshold)
    return [score, *(page.percent(v, i) for v in (verdict.precision, verdict.recall, verdict.f1))]


def _errors(analysis: Analysis) -> str:
    blocks = []
    counted = analysis.counted
    for i, run in enumerate(analysis.runs):
        kinds = [(name, run.count(kind), _slug(name)) for kind, name, _ in _KINDS]
        fates = [(name, int((counted & (run.verdict.fate == fate)).sum()), _slug(name)) for fate, name, _ in _FATES]
        title = f"{page.key(i, run.name)} at score {run.verdict.threshold:.4g}"
        bars = page.bar("Detections", kinds) + page.bar("Faces that count", fates)
        blocks.append(f'<div class="block"><h3>{title}</h3>{bars}</div>')
    names = [page.key(i, name) for i, name in enumerate(_names(analysis))]
    rows = [
        (
            f'<span class="k {_slug(name)}"></span> {name}<small>{what}</small>',
            [page.number(r.count(k)) for r in analysis.runs],
        )
        for k, name, what in _KINDS
    ]
    detections = page.table("Detections", ("detections", *names), rows)
    rows = [
        (
            f'<span class="k {_slug(name)}"></span> {name}<small>{what}</small>',
            [page.number(int((counted & (r.verdict.fate == f)).sum())) for r in analysis.runs],
        )
        for f, name, what in _FATES
    ]
    faces = page.table("Faces that count", ("faces", *names), rows)
    return f'{"".join(blocks)}<div class="row">{detections}{faces}</div>'


def _slug(name: str) -> str:
    return {"found": "right", "missed": "background"}.get(name, name.replace(" ", "-"))


def _groups(analysis: Analysis) -> str:
    tables = [table for table in analysis.tables if table.grouping.key != "event"]
    parts = [page.legend(_names(analysis))]
    sized = next((table for table in tables if table.grouping.key in ("size", "pixels")), None)
    if sized is not None:
        labels = [row.label.replace(" px", "").replace("under ", "<").replace(" and more", "+") for row in sized.rows]
        charts = []
        for what, values in (("AP", "ap"), ("recall", "recall")):
            series = [[getattr(row, values)[i] for row in sized.rows] for i in range(len(analysis.runs))]
            said = f"{what} by {sized.grouping.title.lower()}; the numbers are in the table below"
            chart = graphs.by_group(labels, series, what, said)
            charts.append(page.figure(chart, f"{what} by size in pixels ({escape(sized.grouping.title.lower())})"))
        parts.append(f'<div class="row">{"".join(charts)}</div>')
    parts += [
        f'<h3 id="by-{table.grouping.key}">{escape(table.grouping.title)}</h3>{_table(analysis, table)}'
        for table in tables
    ]
    return "".join(parts)


def _events(analysis: Analysis) -> str:
    table = analysis.table("event")
    return "" if table is None else _table(analysis, table)


def _table(analysis: Analysis, table: Table) -> str:
    runs = analysis.runs
    names = [page.key(i, run.name) for i, run in enumerate(runs)]
    two = len(runs) == 2
    head = [escape(table.grouping.title), "faces", "count"]
    for what in ("AP", "recall"):
        head += [f"{what} {name}" if len(runs) > 1 else what for name in names]
        head += [f"{what} gain"] if two else []
    rows = []
    for row in table.rows:
        cells = [page.number(row.faces), page.number(row.counted)]
        for values in (row.ap, row.recall):
            cells += [page.percent(value, i) for i, value in enumerate(values)]
            cells += [page.change(values[0], values[1])] if two else []
        rows.append((escape(row.label), cells))
    note = f'<p class="hint">{escape(table.grouping.note)}</p>' if table.grouping.note else ""
    return f"{note}{page.table(f'By {table.grouping.title.lower()}', head, rows)}"


def _scores(analysis: Analysis) -> str:
    blocks = []
    for i, run in enumerate(analysis.runs):
        figures = []
        for setting, bins in run.histograms.items():
            right, wrong = int(bins.right.sum()), int(bins.wrong.sum())
            said = f"Scores of {run.name}, {setting}: {right:,} right and {wrong:,} wrong detections"
            chart = graphs.histogram(bins, run.verdict.threshold, said)
            figures.append(page.figure(chart, f"{escape(setting)}: {right:,} right, {wrong:,} wrong"))
        blocks.append(f'<h3>{page.key(i, run.name)}</h3><div class="row">{"".join(figures)}</div>')
    words = (
        '<p class="hint">Detections by score on a logarithmic scale: <span class="k right"></span> right ones upward,'
        ' <span class="k background"></span> wrong ones downward. The upright line is the threshold.</p>'
    )
    return words + "".join(blocks)


def _differences(analysis: Analysis) -> str:
    sides = analysis.sides()
    first, rows = analysis.runs[0], []
    head = ("compared", "both find", "only the first", "only the second", "neither", "size of only first", "of second")
    for i, run in enumerate(analysis.runs[1:], 1):
        seen = compare(analysis, first, run)
        masks = (seen.both, seen.only_first, seen.only_second, seen.neither)
        cells = [page.number(int(mask.sum())) for mask in masks]
        for mask in (seen.only_first, seen.only_second):
            middle = float(np.median(sides[mask])) if mask.any() else None
            cells.append(Cell("–") if middle is None else Cell(f"{middle:.1f} px", middle))
        rows.append((f"{page.key(0, first.name)} and {page.key(i, run.name)}", cells))
    hint = '<p class="hint">Faces that count, each run at its own threshold. Sizes are medians.</p>'
    return hint + page.table("Faces found by one and not by the other", head, rows)


def _galleries(analysis: Analysis, paths: Mapping[str, Path]) -> tuple[list[tuple[str, str, str]], list[str]]:
    """Sections of pictures: misses and false alarms of each run, and faces that one run finds and another misses."""
    runs = analysis.runs
    limit = min(_SHOTS_IN_ROW, _SHOTS_ON_PAGE // (4 * len(runs) - 2))
    wanted: list[tuple[str, str, list[Pick], str]] = []
    for i, run in enumerate(runs):
        name = page.key(i, run.name)
        wanted.append(("missed", name, gallery.misses(analysis, run, limit), "No face that counts is missed."))
        wanted.append(("alarms", name, gallery.false_alarms(analysis, run, limit), "No detection is wrong."))
    for i, run in enumerate(runs[1:], 1):
        seen, names = compare(analysis, runs[0], run), (page.key(0, runs[0].name), page.key(i, run.name))
        for pair, picks in (
            (names, gallery.only_first(analysis, seen, limit)),
            (names[::-1], gallery.only_second(analysis, seen, limit)),
        ):
            wanted.append(("only", f"{pair[0]} finds, {pair[1]} misses", picks, "There is none."))
    shots, problems = gallery.cut(analysis, [picks for _, _, picks, _ in wanted], paths)
    sections = []
    for anchor, title in (("missed", "Worst misses"), ("alarms", "Worst false alarms"), ("only", "Found by one only")):
        body = "".join(
            f"<h3>{name}</h3>{page.shots(some, empty if not picks else 'The pictures are not at hand.')}"
            for (kind, name, picks, empty), some in zip(wanted, shots, strict=True)
            if kind == anchor
        )
        if body:
            sections.append((anchor, title, _BOXES + body))
    return (sections if paths else []), problems


_BOXES = (
    '<p class="hint"><span class="k box-missed"></span> missed face <span class="k box-alarm"></span> false alarm'
    ' <span class="k box-face"></span> labelled face <span class="k box-ignored"></span> face that does not count'
    ' <span class="k box-right"></span> detection <span class="k box-wrong"></span> other false alarm</p>'
)


def _reading(analysis: Analysis) -> str:
    kinds = "".join(f"<dt>{name}</dt><dd>{what}.</dd>" for _, name, what in (*_KINDS, *_FATES))
    return (
        "<p>AP is the area under the precision-recall curve by WIDER FACE's protocol: scores normalised over all"
        " detections, IoU 0.5, 1,000 thresholds. Precision, recall and errors are those at the score threshold of each"
        f" run, with the faces that count in the setting {escape(analysis.setting)}.</p>"
        "<p>In the AP of a group of faces all other faces are ignored, but every false alarm of every picture counts"
        " against it. So the AP of a rare group is low for its rarity: compare runs along a row, and read recall down a"
        f" column. Sizes are those of the square with the face's area; at {attributes.LONG_SIDE} means after the long"
        " side of the picture is resized to that, as the network sees it.</p>"
        "<p>The worst misses are the largest and clearest faces: size times a factor below one for each of blur,"
        " occlusion, unusual pose and extreme light. The worst false alarms have the highest scores; many of those are"
        f" faces that nobody labelled. A picture is shown {gallery.PER_PICTURE} times at most in a gallery.</p>"
        f"<dl>{kinds}</dl>"
    )
