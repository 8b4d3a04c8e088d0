"""Scores as tables on a terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from scrfdkit.evaluate.landmarks import LandmarkScore
    from scrfdkit.evaluate.leaderboard import Board, Row


def show(
    board: Board,
    rough: Mapping[str, Mapping[str, Mapping[str, Any]]],
    landmarks: Mapping[str, LandmarkScore],
    coco: Mapping[str, Mapping[str, float]],
) -> None:
    """Prints the board, then whatever else was asked for."""
    from rich.console import Console

    # Brackets in names and intervals are no markup; nobody wraps a file.
    console = Console(markup=False, highlight=False, width=None if Console().is_terminal else 160)
    _main(console, board)
    if board.differences:
        _differences(console, board)
    if rough:
        _rough(console, board, rough)
    if landmarks:
        _landmarks(console, landmarks)
    if coco:
        _coco(console, coco)


def _main(console: Console, board: Board) -> None:
    from rich.table import Table

    settings = list(board.truth.counted)
    faces = ", ".join(f"{int(mask.sum()):,} {setting}" for setting, mask in board.truth.counted.items())
    table = Table()
    console.print(f"AP in percent on {len(board.truth.images):,} of {board.total:,} pictures; faces: {faces}")
    table.add_column("detector", overflow="fold")
    costs = any(row.entry.milliseconds is not None for row in board.rows)
    for column in (*settings, *(("ms a picture", "M parameters", "GFLOPs at 640x480") if costs else ())):
        table.add_column(column, justify="right")
    for row in board.rows:
        cells = [_ap(row, setting) for setting in settings]
        entry = row.entry
        if costs:
            cells.append(_number(entry.milliseconds, 1.0, 1))
            cells += [_number(entry.parameters, 1e6, 2), _number(entry.flops, 1e9, 2)]
        table.add_row(entry.name, *cells)
    console.print(table)


def _ap(row: Row, setting: str) -> str:
    text = f"{100 * row.curves[setting].ap:.2f}"
    if bounds := row.intervals.get(setting):
        text += f" [{100 * bounds.low:.2f}, {100 * bounds.high:.2f}]"
    return text


def _number(value: float | None, unit: float, digits: int) -> str:
    return "-" if value is None else f"{value / unit:.{digits}f}"


def _differences(console: Console, board: Board) -> None:
    from rich.table import Table

    console.print("difference in AP, first less second, with 95 % bounds; * where 0 is outside them")
    table = Table()
    for column in ("first", "second"):
        table.add_column(column, overflow="fold")
    for setting in board.truth.counted:
        table.add_column(setting, justify="right")
    for (a, b), each in (board.differences or {}).items():
        cells = []
        for difference in each.values():
            low, value, high = (f"{100 * x:+.2f}" for x in (difference.low, difference.value, difference.high))
            cells.append(f"{value} [{low}, {high}]" + ("*" if difference.certain else ""))
        table.add_row(board.rows[a].entry.name, board.rows[b].entry.name, *cells)
    console.print(table)


def _rough(console: Console, board: Board, rough: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    from rich.table import Table

    console.print("coarser questions, AP in percent")
    table = Table()
    table.add_column("detector", overflow="fold")
    table.add_column("question")
    for setting in board.truth.counted:
        table.add_column(setting, justify="right")
    for name, questions in rough.items():
        for question, values in questions.items():
            table.add_row(name, question, *(_answer(value) for value in values.values()))
    console.print(table)


def _answer(value: Any) -> str:
    if not isinstance(value, dict):
        return f"{value:.2f}"
    total = value["right_yes"] + value["missed"] + value["false_alarm"] + value["right_no"]
    right = value["right_yes"] + value["right_no"]
    return f"{right}/{total} right at {value['threshold']:g}"


def _landmarks(console: Console, landmarks: Mapping[str, LandmarkScore]) -> None:
    from rich.table import Table

    console.print("landmark error in distances between the eyes (NME), detections from a score of 0.5")
    table = Table()
    table.add_column("detector", overflow="fold")
    for column in ("mean", "median", "over 0.1", "faces", "not found", "without both eyes"):
        table.add_column(column, justify="right")
    for name, score in landmarks.items():
        counts = (score.faces, score.missed, score.unusable)
        table.add_row(
            name, f"{score.mean:.4f}", f"{score.median:.4f}", f"{100 * score.failures:.2f} %", *map(str, counts)
        )
    console.print(table)


def _coco(console: Console, coco: Mapping[str, Mapping[str, float]]) -> None:
    from rich.table import Table

    console.print("COCO's average precision and recall in percent, up to 1,000 detections a picture")
    table = Table("measure")
    for name in coco:
        table.add_column(name, justify="right", overflow="fold")
    for measure in dict.fromkeys(key for row in coco.values() for key in row):
        values = [row.get(measure, math.nan) for row in coco.values()]
        table.add_row(measure, *("-" if math.isnan(value) else f"{100 * value:.2f}" for value in values))
    console.print(table)
