"""Labels as CSV: a row a face, a row with an empty box for a picture without faces.

Columns, in any order: file, x1, y1, x2, y2; if wanted width, height, ignore (1 or 0); and for each key point NAME_x,
NAME_y and, if wanted, NAME_visible (1 visible, 0 hidden, empty not labelled). Others are not read.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from scrfdkit.data.labels import LabelledImage
from scrfdkit.data.reading import Collector, Where, numbers, place, text_of, whole
from scrfdkit.data.words import plural
from scrfdkit.data.writing import Encoded, keypoints_of, shortest, text
from scrfdkit.types import point_names

_CORNERS = ("x1", "y1", "x2", "y2")
_NEEDED = ("file", *_CORNERS)
_NOT_LABELLED = ("-1", "-1", "-1")


@dataclass
class _Picture:
    line: int
    size: tuple[int, int]
    lines: list[int] = field(default_factory=list)
    boxes: list[list[float]] = field(default_factory=list)
    ignore: list[bool] = field(default_factory=list)
    points: list[list[float]] = field(default_factory=list)


@dataclass(frozen=True)
class _Columns:
    """Which column is what; None for one that is not there."""

    file: int
    width: int | None
    height: int | None
    corners: list[int]
    ignore: int | None
    points: list[tuple[int, int, int | None]]  # x, y, visible

    def known(self) -> int:
        """How many there are."""
        single = [self.file, self.width, self.height, *self.corners, self.ignore]
        return sum(c is not None for c in (*single, *(c for point in self.points for c in point)))


def read(path: Path, into: Collector) -> None:
    """Reads a file into the collector. Raises LabelError where it cannot be opened."""
    file = str(path)
    rows = csv.reader(io.StringIO(text_of(path), newline=""), strict=True)
    pictures: dict[str, _Picture] = {}
    try:
        header = [name.strip().lower() for name in next(rows, [])]
        missing = [name for name in _NEEDED if name not in header]
        if missing:
            into.broken(place(file, 1), f"the first line must name the columns; {', '.join(missing)} missing")
            return
        columns = _columns(header)
        into.leave("columns with other names", len(header) - columns.known())
        for row in rows:
            if len(row) == len(header):
                problem = _take(row, columns, pictures, rows.line_num)
            else:
                problem = f"{plural(len(row), 'column')}, where the first line has {len(header)}" if row else ""
            if problem:
                into.broken(place(file, rows.line_num), problem)
    except csv.Error as error:
        into.broken(place(file, rows.line_num), f"is not CSV: {error}")
    for name, found in pictures.items():
        where = Where(file, found.line, np.array(found.lines, np.int64))
        into.add(name, found.size, where, found.boxes, found.ignore, found.points)


def _columns(header: list[str]) -> _Columns:
    def at(name: str) -> int | None:
        return header.index(name) if name in header else None

    names = [name[:-2] for name in header if name.endswith("_x") and f"{name[:-2]}_y" in header]
    points = [(header.index(f"{name}_x"), header.index(f"{name}_y"), at(f"{name}_visible")) for name in names]
    corners = [header.index(name) for name in _CORNERS]
    return _Columns(header.index("file"), at("width"), at("height"), corners, at("ignore"), points)


def _take(row: list[str], columns: _Columns, pictures: dict[str, _Picture], line: int) -> str:
    """Puts one row where its picture is; returns what is wrong with it."""

    def cell(column: int | None) -> str:
        return "0" if column is None else row[column].strip() or "0"

    told = cell(columns.width), cell(columns.height)
    width, height = whole(told[0]), whole(told[1])
    if width is None or height is None:
        return f"width and height must be whole numbers; got {told[0]!r:.50} and {told[1]!r:.50}"
    size = width, height
    picture = pictures.get(row[columns.file])
    if picture is None:
        picture = pictures[row[columns.file]] = _Picture(line, size)
    if picture.size != size:
        return f"{size[0]}x{size[1]}, where line {picture.line} says {picture.size[0]}x{picture.size[1]}"
    corners = [row[i] for i in columns.corners]
    if not any(corners):
        return ""
    box, points, ignored = numbers(corners), _points(row, columns), cell(columns.ignore)
    if box is None or points is None or ignored not in ("0", "1"):
        return "box and key points must be numbers, and ignore 0 or 1"
    picture.lines.append(line)
    picture.boxes.append(box)
    picture.ignore.append(ignored == "1")
    picture.points.append(points)
    return ""


def _points(row: list[str], columns: _Columns) -> list[float] | None:
    words: list[str] = []
    for x, y, v in columns.points:
        if v is None:
            words += (row[x], row[y], "1") if row[x] or row[y] else _NOT_LABELLED
        else:
            words += (row[x], row[y], row[v]) if row[v] else _NOT_LABELLED
    return numbers(words)


def encode(labels: Sequence[LabelledImage]) -> Encoded:
    """One file; nothing is lost."""
    k = keypoints_of(labels)
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n").writerow
    names = [f"{name}_{part}" for name in point_names(k) for part in ("x", "y", "visible")]
    write(["file", "width", "height", *_CORNERS, "ignore", *names])
    for image in labels:
        start: list[str | int] = [image.path, image.width or "", image.height or ""]
        rows = shortest(image.boxes).tolist()
        points = [["", "", ""] * k] * len(rows) if image.keypoints is None else _cells(image)
        for row, ignored, landmarks in zip(rows, image.ignore, points, strict=True):
            write([*start, *map(text, row), int(ignored), *landmarks])
        if not rows:
            write([*start, *[""] * (5 + 3 * k)])
    return {"": out.getvalue().encode("utf-8", "surrogateescape")}, {}


def _cells(image: LabelledImage) -> list[list[str]]:
    """Empty cells for a key point that is not labelled."""
    assert image.keypoints is not None
    rows: list[list[list[float]]] = shortest(image.keypoints).tolist()
    return [[cell for p in row for cell in (map(text, p) if p[2] >= 0 else ("", "", ""))] for row in rows]
