"""Several detectors' results on the same pictures, side by side: accuracy, how sure it is, speed and size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Any

from scrfdkit.data.words import plural
from scrfdkit.evaluate.bootstrap import Difference, Interval, compare, interval, resample
from scrfdkit.evaluate.results import Missing, ResultError, Results, align, take
from scrfdkit.evaluate.widerface import Curve, GroundTruth, Matched, curve, prepare


@dataclass(frozen=True, eq=False)
class Entry:
    """One detector's results. milliseconds: of a picture, median; parameters: number of; flops: of one picture at
    640x480. None where unknown."""

    name: str
    results: Results
    milliseconds: float | None = None
    parameters: int | None = None
    flops: int | None = None


@dataclass(frozen=True, eq=False)
class Row:
    """One line of the board. intervals: of AP, empty unless asked for. notes: what was odd about the results."""

    entry: Entry
    matched: Matched
    curves: Mapping[str, Curve]
    notes: tuple[str, ...]
    intervals: Mapping[str, Interval]


@dataclass(frozen=True, eq=False)
class Board:
    """truth: the pictures that were scored, of `total` in the ground truth. differences: for every pair of rows, by
    their places, and every setting; empty unless asked for."""

    truth: GroundTruth
    total: int
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()
    differences: Mapping[tuple[int, int], Mapping[str, Difference]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON. AP in percent, as it is published."""
        names = [row.entry.name for row in self.rows]
        return {
            "pictures": len(self.truth.images),
            "pictures_of_ground_truth": self.total,
            "faces": {setting: int(mask.sum()) for setting, mask in self.truth.counted.items()},
            "rows": [_row(row) for row in self.rows],
            "differences": [
                {"first": names[a], "second": names[b], "ap": {s: _difference(d) for s, d in each.items()}}
                for (a, b), each in (self.differences or {}).items()
            ],
            "notes": list(self.notes),
        }


def score(truth: GroundTruth, entries: Sequence[Entry], *, missing: Missing = "skip") -> Board:
    """Scores all entries on the same pictures: by default those that all of them have results for.

    missing: as for `align`. Raises ResultError, which names the file or the entry, for results that cannot be scored,
    and ValueError where there are none.
    """
    if not entries:
        raise ValueError("no results to score")
    aligned = []
    for entry in entries:
        try:
            aligned.append(align(truth, entry.results, missing))
        except ResultError as error:
            raise error if entry.results.source else ResultError(f"{entry.name}: {error}") from None
    shared = set.intersection(*(set(own.images) for own, _, _ in aligned))
    common = [name for name in truth.images if name in shared]
    if not common:
        raise ResultError("no picture has results of every detector, so that they cannot be compared")
    notes = list(
        dict.fromkeys(
            _named(entry, note, entries) for entry, own in zip(entries, aligned, strict=True) for note in own[2]
        )
    )
    if any(len(own.images) > len(common) for own, _, _ in aligned):
        notes.insert(0, f"compared on the {plural(len(common), 'picture')} that all have results for")
    chosen = truth if len(common) == len(truth.images) else truth.select(common)
    rows = []
    for entry, (own, found, own_notes) in zip(entries, aligned, strict=True):
        place = {name: i for i, name in enumerate(own.images)}
        matched = prepare(chosen, take(found, [place[name] for name in common]))
        rows.append(Row(entry, matched, {s: curve(matched, s) for s in chosen.counted}, tuple(own_notes), {}))
    return Board(chosen, len(truth.images), tuple(rows), tuple(notes))


def _named(entry: Entry, note: str, entries: Sequence[Entry]) -> str:
    return f"{entry.name}: {note}" if len(entries) > 1 else note


def with_intervals(board: Board, resamples: int = 1000, *, confidence: float = 0.95, seed: int = 0) -> Board:
    """The same board with an interval for every AP, and for the difference of every two rows."""
    intervals: list[dict[str, Interval]] = [{} for _ in board.rows]
    differences: dict[tuple[int, int], dict[str, Difference]] = {p: {} for p in combinations(range(len(board.rows)), 2)}
    for setting in board.truth.counted:
        samples = resample([row.matched for row in board.rows], setting, resamples, seed)
        values = [row.curves[setting].ap for row in board.rows]
        for own, value, drawn in zip(intervals, values, samples, strict=True):
            own[setting] = interval(value, drawn, confidence)
        for (a, b), each in differences.items():
            each[setting] = compare((values[a], values[b]), (samples[a], samples[b]), confidence)
    rows = tuple(replace(row, intervals=own) for row, own in zip(board.rows, intervals, strict=True))
    return replace(board, rows=rows, differences=differences)


def _row(row: Row) -> dict[str, Any]:
    entry = row.entry
    return {
        "name": entry.name,
        "ap": {setting: round(100 * each.ap, 6) for setting, each in row.curves.items()},
        "interval": {s: [round(100 * i.low, 4), round(100 * i.high, 4)] for s, i in row.intervals.items()},
        "detections": len(row.matched.found.scores),
        "milliseconds": None if entry.milliseconds is None else round(entry.milliseconds, 2),
        "parameters": entry.parameters,
        "flops": entry.flops,
        "notes": list(row.notes),
    }


def _difference(difference: Difference) -> dict[str, Any]:
    values = asdict(difference)
    share = values.pop("better")
    return {k: round(100 * v, 4) for k, v in values.items()} | {"better": share, "certain": difference.certain}
