"""Everything the error analysis of one or more detectors knows, as plain values: scores, errors, groups of faces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from scrfdkit.errors import OptionError
from scrfdkit.evaluate import attributes
from scrfdkit.evaluate.attributes import Grouping
from scrfdkit.evaluate.judge import Fate, Kind, Pairing, Verdict, judge, pair, sort_out
from scrfdkit.evaluate.results import take
from scrfdkit.evaluate.widerface import Curve, Found, GroundTruth, Matched, average_precision, curve

MAX_RUNS = 6
NUM_BINS = 40


@dataclass(frozen=True, eq=False)
class Histogram:
    """right, wrong: (NUM_BINS,) detections by score, in equal bins between low and high."""

    low: float
    high: float
    right: NDArray[np.int64]
    wrong: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Run:
    """One detector's results, judged.

    curves, histograms: by setting. verdict: at the threshold, for the setting of the analysis.
    """

    name: str
    pairing: Pairing
    curves: Mapping[str, Curve]
    verdict: Verdict
    histograms: Mapping[str, Histogram]

    def count(self, kind: Kind) -> int:
        """Detections of a kind."""
        return int((self.verdict.kind == kind).sum())


@dataclass(frozen=True)
class Row:
    """One group of faces. faces: labelled. counted: those that are judged. ap, recall: one a run, None without any."""

    label: str
    faces: int
    counted: int
    ap: tuple[float | None, ...]
    recall: tuple[float | None, ...]


@dataclass(frozen=True, eq=False)
class Table:
    """A grouping and its rows; groups without a face have none."""

    grouping: Grouping
    rows: tuple[Row, ...]


@dataclass(frozen=True, eq=False)
class Analysis:
    """setting: whose faces count in errors and groups. counted: (F,) these faces. picture_sizes: (I, 2) or None."""

    truth: GroundTruth
    setting: str
    counted: NDArray[np.bool_]
    runs: tuple[Run, ...]
    tables: tuple[Table, ...]
    picture_sizes: NDArray[np.int64] | None = None

    def sides(self) -> NDArray[np.float64]:
        """(F,) size of every face as the network sees it, or in the picture where its size is unknown."""
        own = attributes.sides(self.truth)
        if self.picture_sizes is None:
            return own
        seen = attributes.sides(self.truth, self.picture_sizes)
        return np.where(np.isnan(seen), own, seen)

    def table(self, key: str) -> Table | None:
        """The table of a grouping, or None."""
        return next((table for table in self.tables if table.grouping.key == key), None)


def analyze(
    truth: GroundTruth,
    results: Mapping[str, Found],
    *,
    labels: Sequence[Grouping] = (),
    picture_sizes: NDArray[np.int64] | None = None,
    setting: str = "hard",
    threshold: float | None = None,
) -> Analysis:
    """Judges the results of one or more detectors, by name, over the same pictures.

    labels: groupings to add to those by size and event. picture_sizes: (I, 2) width and height, 0 0 for unknown; None
    leaves out the sizes at long side 640. setting: of `truth.counted`. threshold: score from which detections are
    sorted into right and wrong; None takes that of each run's best F1.

    Raises OptionError for a setting that is none, no results or too many, ValueError for results of other pictures.
    """
    if setting not in truth.counted:
        raise OptionError(f"--setting: {setting!r} is not one of {', '.join(truth.counted)}")
    if not 1 <= len(results) <= MAX_RUNS:
        raise OptionError(f"--detections: {len(results)} sets of results; one to {MAX_RUNS} fit on a page")
    sized = [] if picture_sizes is None else [attributes.by_size(truth, picture_sizes)]
    groupings = [*sized, attributes.by_size(truth), *labels, attributes.by_event(truth)]
    counted = truth.counted[setting]
    runs = tuple(_run(name, truth, found, counted, threshold) for name, found in results.items())
    tables = tuple(_table(grouping, counted, runs) for grouping in groupings)
    return Analysis(truth, setting, counted, runs, tables, picture_sizes)


def _run(name: str, truth: GroundTruth, found: Found, counted: NDArray[np.bool_], threshold: float | None) -> Run:
    pairing = pair(truth, found)
    curves = {key: curve(pairing.matched, key) for key in truth.counted}
    histograms = {key: _histogram(pairing.found, sort_out(pairing, mask)) for key, mask in truth.counted.items()}
    return Run(name, pairing, curves, judge(pairing, counted, threshold), histograms)


def _histogram(found: Found, kind: NDArray[np.int64]) -> Histogram:
    scores = found.scores
    low, high = (min(0.0, float(scores.min())), max(1.0, float(scores.max()))) if len(scores) else (0.0, 1.0)
    right, wrong = (
        np.histogram(scores[mask], NUM_BINS, (low, high))[0] for mask in (kind == Kind.RIGHT, kind >= Kind.DUPLICATE)
    )
    return Histogram(low, high, right, wrong)


def _table(grouping: Grouping, counted: NDArray[np.bool_], runs: Sequence[Run]) -> Table:
    allowed = np.ones_like(counted) if grouping.all_faces else counted
    members = [grouping.index == i for i in range(len(grouping.labels))]
    masks = [member & allowed for member in members]
    judge_groups = _ap_of_pictures if grouping.own_pictures else _ap_of_faces
    aps = [judge_groups(run.pairing.matched, members, masks) for run in runs]
    hits = [run.verdict.fate == Fate.FOUND for run in runs]
    rows = []
    for i, (label, member, mask) in enumerate(zip(grouping.labels, members, masks, strict=True)):
        if not member.any():
            continue
        num = int(mask.sum())
        ap = tuple(values[i] if num else None for values in aps)
        recall = tuple(int((hit & mask).sum()) / num if num else None for hit in hits)
        rows.append(Row(label, int(member.sum()), num, ap, recall))
    return Table(grouping, tuple(rows))


def _ap_of_faces(
    matched: Matched, _members: Sequence[NDArray[np.bool_]], masks: Sequence[NDArray[np.bool_]]
) -> list[float]:
    """Faces outside a group are ignored; every false alarm counts against every group."""
    asked = replace(matched, truth=matched.truth.with_counted({str(i): mask for i, mask in enumerate(masks)}))
    return [curve(asked, key).ap for key in asked.truth.counted]


def _ap_of_pictures(
    matched: Matched, members: Sequence[NDArray[np.bool_]], masks: Sequence[NDArray[np.bool_]]
) -> list[float]:
    """Each group on the pictures that hold its faces."""
    truth = matched.truth
    picture_of_face = np.repeat(np.arange(len(truth.counts)), truth.counts)
    aps = []
    for member, mask in zip(members, masks, strict=True):
        chosen = np.unique(picture_of_face[member])
        part = truth.with_counted({"": mask}).select([truth.images[i] for i in chosen])
        aps.append(average_precision(part, take(matched.found, chosen))[""].ap)
    return aps


@dataclass(frozen=True, eq=False)
class Difference:
    """Faces that count, by which of two runs found them, each at its own threshold: (F,) masks."""

    first: Run
    second: Run
    both: NDArray[np.bool_]
    only_first: NDArray[np.bool_]
    only_second: NDArray[np.bool_]
    neither: NDArray[np.bool_]


def compare(analysis: Analysis, first: Run, second: Run) -> Difference:
    """Which faces one run finds and the other does not."""
    a, b = (run.verdict.fate == Fate.FOUND for run in (first, second))
    here = analysis.counted
    return Difference(first, second, here & a & b, here & a & ~b, here & ~a & b, here & ~a & ~b)
