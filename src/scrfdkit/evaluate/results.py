"""Detections of a whole data set as a value: from a detector, from result files and back, made fit for scoring.

Two forms are read and written: WIDER FACE's own, a folder of `event/picture.txt` files, and one .npz file.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from scrfdkit.data.pictures import SUFFIXES
from scrfdkit.data.words import plural
from scrfdkit.errors import ScrfdError
from scrfdkit.evaluate.cleaning import clean
from scrfdkit.evaluate.overlap import as_xywh
from scrfdkit.evaluate.widerface import Found, GroundTruth
from scrfdkit.types import Detections

Missing = Literal["skip", "empty", "error"]


class ResultError(ScrfdError):
    """Result files that cannot be scored: the message names the file, and the line where there is one."""


@dataclass(frozen=True, eq=False)
class Results:
    """What one detector found.

    images: names of the pictures, relative, with or without suffix. counts: (I,) detections a picture.
    boxes: (D, 4) x y w h in pixels, picture after picture. scores: (D,). notes: what was found odd on reading.
    source: the file or folder they come from, for messages.
    """

    images: tuple[str, ...]
    counts: NDArray[np.int64]
    boxes: NDArray[Any]
    scores: NDArray[Any]
    notes: tuple[str, ...] = ()
    source: str = ""

    @property
    def found(self) -> Found:
        """The same without names."""
        return Found(self.counts, self.boxes, self.scores)

    def error(self, text: str) -> ResultError:
        """What is wrong with them, with their place."""
        return ResultError(f"{self.source}: {text}" if self.source else text)

    def without(self, pictures: Set[str]) -> Results:
        """The same without those of some pictures, given by names without suffix."""
        kept = [i for i, name in enumerate(self.images) if bare(name) not in pictures]
        found = take(self.found, kept)
        images = tuple(self.images[i] for i in kept)
        return replace(self, images=images, counts=found.counts, boxes=found.boxes, scores=found.scores)


def bare(name: str) -> str:
    """A picture's name without the suffix of a picture format."""
    suffix = PurePosixPath(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in SUFFIXES else name


def collect(images: Iterable[str], detections: Iterable[Detections], notes: Sequence[str] = ()) -> Results:
    """What a detector found, picture by picture. Raises ValueError for lists of different length."""
    names, found = tuple(images), list(detections)
    if len(names) != len(found):
        raise ValueError(f"{len(names)} pictures, detections of {len(found)}")
    every = Detections.concatenate([replace(d, keypoints=None, ids=None) for d in found])
    counts = np.array([len(d) for d in found], np.int64)
    return Results(names, counts, as_xywh(every.boxes), every.scores, tuple(notes))


def align(truth: GroundTruth, results: Results, missing: Missing = "skip") -> tuple[GroundTruth, Found, list[str]]:
    """Ground truth and detections of the same pictures, ready for `average_precision`, and what the user must know.

    missing: what becomes of pictures without results: "skip" leaves them out of the score, "empty" counts their
        faces as missed, "error" refuses. Results of pictures that the ground truth does not have are left out.
    Boxes that are not finite, lie beyond 1e8 pixels or have a negative size become false alarms with their score, as
    they are no faces; a detection whose score is no number has no rank, and is left out. All are counted in the notes.
    Raises ResultError where no picture is in both, or one occurs twice in the results.
    """
    names = [bare(name) for name in results.images]
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        such = plural(len(twice), "such picture")
        raise results.error(f"the results have {twice[0]} twice ({such}); keep one of them")
    place = {name: i for i, name in enumerate(names)}
    absent = [name for name in truth.images if name not in place]
    extra = len(names) - (len(truth.images) - len(absent))
    if len(absent) == len(truth.images):
        raise results.error(
            f"none of {plural(len(names), 'picture')} with results is in the ground truth;"
            f" names must be as {truth.images[0] if truth.images else 'event/picture'!r} there"
        )
    notes = list(results.notes)
    if absent:
        if missing == "error":
            raise results.error(f"{len(absent)} of {len(truth.images)} pictures without results, {absent[0]} for one")
        notes.append(_absent(len(absent), len(truth.images), missing))
    if extra:
        notes.append(f"left out: results of {plural(extra, 'picture')} that the ground truth does not have")
    if missing == "skip" and absent:
        truth = truth.select([name for name in truth.images if name in place])
    found = take(results.found, [place.get(name, -1) for name in truth.images])
    found, more = clean(found)
    return truth, found, notes + more


def _absent(absent: int, total: int, missing: Missing) -> str:
    if missing == "empty":
        return f"{absent} of {total} pictures without results: their faces count as missed"
    return (
        f"scored on {total - absent} of {total} pictures, as the others have no results:"
        " not comparable with figures of the whole set"
    )


def take(found: Found, chosen: Sequence[int] | NDArray[np.int64]) -> Found:
    """The pictures of these numbers, in this order; -1 stands for one without detections."""
    index = np.array(chosen, np.int64)
    if np.array_equal(index, np.arange(len(found.counts))):
        return found
    starts = np.append(np.cumsum(found.counts) - found.counts, 0)  # the last one is that of -1
    counts = np.append(found.counts, 0)[index]
    rows = np.arange(int(counts.sum())) + np.repeat(starts[index] - (np.cumsum(counts) - counts), counts)
    return Found(counts, found.boxes[rows], found.scores[rows])


def read(path: Path) -> Results:
    """Results from a folder of `event/picture.txt` files or an .npz file. Raises ResultError."""
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise ResultError(f"{path}: there is no such file or folder")
    if path.suffix.lower() != ".npz":
        raise ResultError(f"{path}: results are a folder of event/picture.txt files, or an .npz file")
    return _read_npz(path)


def _read_folder(folder: Path) -> Results:
    files = sorted(p for p in folder.rglob("*.txt") if p.is_file())
    if not files:
        raise ResultError(f"{folder}: holds no result files; they lie in it as event/picture.txt")
    names, rows, odd = [], [], Counter[str]()
    for file in files:
        numbers, note = _read_text(file)
        names.append(bare(file.relative_to(folder).with_suffix("").as_posix()))
        rows.append(numbers)
        odd[note] += 1
    del odd[""]
    every = np.concatenate(rows)
    notes = tuple(f"{what}: {plural(count, 'result file')}" for what, count in odd.items())
    counts = np.array([len(r) for r in rows], np.int64)
    return Results(tuple(names), counts, every[:, :4], every[:, 4], notes, str(folder))


def _read_text(path: Path) -> tuple[NDArray[np.float64], str]:
    """(N, 5) x y w h score of one result file: its name, the number of faces, a line a face; and what is odd."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ResultError(f"{path}: cannot be read: {error}") from None
    while lines and not lines[-1].strip():
        lines.pop()
    if not lines:
        return np.zeros((0, 5)), "empty, counted as pictures without detections"
    note = ""
    if PurePosixPath(bare(lines[0].strip())).name != bare(path.stem):
        note = "with another picture in the first line than in the name, which was taken"
    try:
        count = int(lines[1])
    except (IndexError, ValueError):
        raise ResultError(f"{path}:2: the number of faces is missing") from None
    if count != len(lines) - 2:
        told, lines_left = plural(count, "face"), plural(len(lines) - 2, "line")
        raise ResultError(f"{path}:2: says {told}, but {lines_left} after it; was writing it broken off?")
    try:
        numbers = np.array([list(map(float, line.split())) for line in lines[2:]], np.float64).reshape(-1, 5)
        if len(numbers) != count:
            raise ValueError
    except ValueError:
        raise _wrong_line(path, lines) from None
    return numbers, note


def _wrong_line(path: Path, lines: Sequence[str]) -> ResultError:
    for number, line in enumerate(lines[2:], 3):
        try:
            good = len(list(map(float, line.split()))) == 5
        except ValueError:
            good = False
        if not good:
            return ResultError(f"{path}:{number}: five numbers, x y w h score, are needed; it is {line[:60]!r}")
    return ResultError(f"{path}: five numbers a line, x y w h score, are needed")


def _read_npz(path: Path) -> Results:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise ValueError("it is a single array, as in .npy files; np.savez writes several")
        with loaded as file:
            content: dict[str, NDArray[Any]] = {key: file[key] for key in file.files}
        if foreign := [key for key, value in content.items() if not isinstance(value, np.ndarray)]:
            raise ValueError(f"{foreign[0]} is no array")
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
        raise ResultError(f"{path}: cannot be read as an .npz file: {error}") from None
    missing = [key for key in ("images", "counts", "scores") if key not in content]
    form = next((key for key in ("xywh", "xywh_eighths", "boxes") if key in content), None)
    if missing or form is None:
        lacking = missing[0] if missing else "xywh (x y w h) or boxes (x1 y1 x2 y2)"
        raise ResultError(f"{path}: has no array {lacking}; it has {sorted(content)}")
    images, counts, scores, boxes = (content[key] for key in ("images", "counts", "scores", form))
    numbers = counts.dtype.kind in "iu" and scores.dtype.kind in "iuf" and boxes.dtype.kind in "iuf"
    if images.dtype.kind != "U" or not numbers:
        raise ResultError(f"{path}: images must be text, counts whole numbers, boxes and scores numbers")
    if images.shape != counts.shape or images.ndim != 1 or (counts < 0).any():
        raise ResultError(f"{path}: images and counts must be lists of the same length, counts from 0")
    num = sum(counts.tolist())  # of Python's numbers, which do not overflow
    if scores.shape != (num,) or boxes.shape != (num, 4):
        detections = plural(num, "detection")
        raise ResultError(f"{path}: counts say {detections}, {form} is {boxes.shape} and scores {scores.shape}")
    boxes = _as_floats(boxes)
    if form == "xywh_eighths":
        boxes = boxes / 8
    elif form == "boxes":
        boxes = as_xywh(boxes)
    return Results(tuple(images.tolist()), counts.astype(np.int64), boxes, _as_floats(scores), source=str(path))


def _as_floats(values: NDArray[Any]) -> NDArray[Any]:
    """float32 and float64 as they are; of other numbers, differences would wrap around or overflow."""
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float64)


def to_npz(results: Results) -> bytes:
    """The content of an .npz file: images, counts, xywh, scores."""
    buffer = io.BytesIO()
    xywh, scores = np.asarray(results.boxes, np.float32), np.asarray(results.scores, np.float32)
    images = np.array(results.images, dtype=str)
    np.savez_compressed(buffer, images=images, counts=results.counts, xywh=xywh, scores=scores)
    return buffer.getvalue()


def to_text(results: Results) -> Iterator[tuple[str, str]]:
    """Name, relative, and content of every result file, as WIDER FACE takes them."""
    start = 0
    for name, count in zip(results.images, results.counts.tolist(), strict=True):
        boxes, scores = results.boxes[start : start + count].tolist(), results.scores[start : start + count].tolist()
        lines = [f"{x:.5f} {y:.5f} {w:.5f} {h:.5f} {s:.9g}" for (x, y, w, h), s in zip(boxes, scores, strict=True)]
        yield f"{bare(name)}.txt", "\n".join([f"{bare(name)}.jpg", str(count), *lines, ""])
        start += count
