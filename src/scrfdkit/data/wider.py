"""WIDER FACE's own text files (`wider_face_val_bbx_gt.txt`): a picture's path, how many faces, a line for each.

A face is x y w h blur expression illumination invalid occlusion pose, in whole numbers; "invalid" is our ignore. A
picture without faces has the count 0 and, in the official files, one line of zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scrfdkit.data.labels import LabelledImage
from scrfdkit.data.reading import Collector, Where, numbers, place, text_of, whole
from scrfdkit.data.words import plural
from scrfdkit.data.writing import Encoded, Losses, count_keypoints

_INVALID = 7
_ATTRIBUTES = (4, 5, 6, 8, 9)


def read(path: Path, into: Collector) -> None:
    """Reads a file into the collector. Raises LabelError where it cannot be opened."""
    file = str(path)
    lines = [(n, line.strip()) for n, line in enumerate(text_of(path).split("\n"), 1) if line.strip()]
    at = 0
    while at < len(lines):
        number, name = lines[at]
        at += 1
        if numbers(name.split()) is not None:
            into.broken(
                place(file, number), f"a picture's path is needed here; got {name!r:.200}: more faces than told?"
            )
            at = _skip_numbers(lines, at)
            continue
        word = lines[at][1] if at < len(lines) else ""
        count = whole(word)
        if count is None:
            told = repr(word)[:200] if word else "the end of the file"
            into.broken(place(file, number + 1), f"the number of faces of {name} is needed here; got {told}")
            at = _skip_numbers(lines, at)
            continue
        end = _skip_numbers(lines, at + 1)
        at = _add(into, file, (number, name), count, lines[at + 1 : end]) + at + 1


def _skip_numbers(lines: list[tuple[int, str]], at: int) -> int:
    """The next line that is a picture's path."""
    while at < len(lines) and numbers(lines[at][1].split()) is not None:
        at += 1
    return at


def _add(into: Collector, file: str, picture: tuple[int, str], count: int, rows: list[tuple[int, str]]) -> int:
    """Takes one picture from the lines of numbers that follow it; returns how many of them are its own."""
    number, name = picture
    own = rows[:count]
    if len(own) < count:
        into.broken(place(file, number), f"{plural(count, 'face')} told, {plural(len(own), 'line')} of numbers follow")
    used = len(own)
    if count == 0 and rows and not any(numbers(rows[0][1].split()) or ()):
        used = 1
    values: list[list[float]] = []
    kept: list[int] = []
    for line, text in own:
        row = numbers(text.split()) or []
        if len(row) not in (4, 10):
            into.broken(place(file, line), f"{plural(len(row), 'number')}: a face has 10, or 4 without attributes")
            continue
        if len(row) == 10 and row[_INVALID] not in (0, 1):
            into.broken(place(file, line), f"the eighth number, 'invalid', must be 0 or 1; got {row[_INVALID]:g}")
            continue
        values.append(row)
        kept.append(line)
    into.leave(
        "faces' blur, expression, illumination, occlusion and pose",
        sum(len(row) == 10 and any(row[i] for i in _ATTRIBUTES) for row in values),
    )
    into.add(
        name,
        (0, 0),
        Where(file, number, np.array(kept, np.int64)),
        [(x, y, x + w, y + h) for x, y, w, h in (row[:4] for row in values)],
        [len(row) == 10 and row[_INVALID] == 1 for row in values],
    )
    return used


def encode(labels: Sequence[LabelledImage]) -> Encoded:
    """One file of whole pixels, without key points and picture sizes."""
    lines: list[str] = []
    moved = 0
    for image in labels:
        whole = np.round(image.boxes.astype(np.float64)).astype(np.int64)
        moved += int((whole != image.boxes).any(axis=1).sum())
        lines += [image.path, str(len(whole))]
        for (x1, y1, x2, y2), ignored in zip(whole.tolist(), image.ignore, strict=True):
            lines.append(f"{x1} {y1} {x2 - x1} {y2 - y1} 0 0 0 {int(ignored)} 0 0 ")
        if not len(whole):
            lines.append("0 0 0 0 0 0 0 0 0 0 ")
    sized = sum(bool(image.width and image.height) for image in labels)
    losses: Losses = {"boxes' fractions of a pixel": moved, "picture sizes": sized}
    losses = {**count_keypoints(labels), **{what: number for what, number in losses.items() if number}}
    return {"": "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")}, losses
