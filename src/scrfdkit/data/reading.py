"""What every label reader shares: where a label stood, what was wrong with it, and the checks all formats need."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scrfdkit.data import pictures
from scrfdkit.data.labels import LabelledImage
from scrfdkit.data.words import plural
from scrfdkit.errors import ImageError, ScrfdError

# Bytes that are not UTF-8 become U+DC80 to U+DCFF and back; no file name holds other halves of surrogate pairs.
_CONTROL = re.compile("[\x00-\x1f\ud800-\udc7f\udd00-\udfff]")
_LONGEST = 255  # bytes of a file name, in every common file system
_LONGEST_PATH = 2048  # bytes; systems end at 4096, the folder included
_DIGITS = 10  # of the whole numbers below 2^31


class LabelError(ScrfdError):
    """Labels that cannot be read or written: the message names the file and line, and what is wrong there."""


@dataclass(frozen=True, eq=False)
class Where:
    """Where the labels of one picture stood.

    image: line of the picture. faces: (N,) int64, lines of its faces. unit: what is counted, "line", or "annotation"
    in COCO files, where the numbers are ids. 0 stands for no line.
    """

    file: str
    image: int
    faces: NDArray[np.int64]
    unit: str = "line"

    def of(self, face: int | None = None) -> str:
        """The place of the picture or of one of its faces, for messages: `file:line` or `file: annotation 7`."""
        number = self.image if face is None else int(self.faces[face])
        return place(self.file, number, self.unit if face is not None or self.unit == "line" else "image")


def place(file: str, number: int, unit: str = "line") -> str:
    """A place in a file as editors and people know it."""
    if not number:
        return file
    return f"{file}:{number}" if unit == "line" else f"{file}: {unit} {number}"


@dataclass(frozen=True)
class Problem:
    """A label that could not be read and was left out."""

    place: str
    text: str


@dataclass(frozen=True, eq=False)
class Reading:
    """Labels as read. places: one for each of `images`. not_read: what the file has and labels cannot hold, counted.
    notes: what had to be assumed to read them.
    """

    images: list[LabelledImage]
    places: list[Where]
    problems: list[Problem]
    not_read: dict[str, int]
    notes: tuple[str, ...] = ()


class Collector:
    """Takes what a reader finds, picture by picture. A broken label raises LabelError, or, where not strict, is noted
    and left out.

    folder: where the pictures are, to look up sizes that the labels do not hold. told: somebody said so; else it is a
        guess, and a picture that is not there has an unknown size.
    """

    def __init__(self, folder: Path, *, told: bool, strict: bool) -> None:
        self.folder = folder
        self.told = told
        self._strict = strict
        self._images: list[LabelledImage] = []
        self._places: list[Where] = []
        self._problems: list[Problem] = []
        self._not_read: Counter[str] = Counter()
        self._notes: list[str] = []
        self._num_keypoints = 0

    def broken(self, at: str, text: str) -> None:
        """Tells of a label that makes no sense."""
        if self._strict:
            raise LabelError(f"{at}: {text}")
        self._problems.append(Problem(at, text))

    def leave(self, what: str, number: int = 1) -> None:
        """Counts something that labels cannot hold."""
        if number:
            self._not_read[what] += number

    def assume(self, what: str) -> None:
        """Tells of something that the labels leave open and that was decided."""
        self._notes.append(what)

    def add(
        self,
        path: str,
        size: tuple[int, int],
        where: Where,
        boxes: Sequence[Sequence[float]],
        ignore: Sequence[bool],
        points: Sequence[Sequence[float]] = (),
    ) -> None:
        """Takes one picture.

        size: width and height, (0, 0) where the labels do not say. boxes: x1 y1 x2 y2 of every face.
        points: for every face x y v, x y v, ... or nothing; v as in LabelledImage. Empty if no face has any.
        """
        problem = path_problem(path)
        if problem:
            self.broken(where.of(), problem)
            return
        counts = [len(p) // 3 for p in points] or [0] * len(boxes)
        self._num_keypoints = self._num_keypoints or next((count for count in counts if count), 0)
        k = self._num_keypoints
        rows = [i for i, count in enumerate(counts) if count in (0, k)]
        for i in sorted(set(range(len(counts))) - set(rows)):
            self.broken(where.of(i), f"{plural(counts[i], 'key point')}, where earlier faces have {k}")
        with np.errstate(over="ignore", invalid="ignore"):
            corners = np.array([boxes[i] for i in rows], np.float32).reshape(-1, 4)
            landmarks = None
            if any(counts):
                nothing = [-1.0] * (3 * k)
                landmarks = np.array([points[i] or nothing for i in rows], np.float32).reshape(-1, k, 3)
        keep = self._sound(corners, landmarks, where, rows)
        width, height = size if all(size) else self._look_up(path)
        faces = [i for i, fine in zip(rows, keep, strict=True) if fine]
        flags = np.array([ignore[i] for i in faces], bool)
        landmarks = None if landmarks is None else landmarks[keep]
        self._images.append(LabelledImage(tidy(path), width, height, corners[keep], flags, landmarks))
        self._places.append(replace(where, faces=where.faces[faces]))

    def _sound(
        self, corners: NDArray[np.float32], points: NDArray[np.float32] | None, where: Where, rows: list[int]
    ) -> NDArray[np.bool_]:
        """(N,) which faces are made of numbers and of key points that are labelled or not."""
        keep = np.asarray(np.isfinite(corners).all(axis=1), bool)
        for i in np.flatnonzero(~keep):
            self.broken(where.of(rows[i]), "the box is not made of finite numbers")
        if points is None:
            return keep
        finite = np.asarray(np.isfinite(points).all(axis=(1, 2)), bool)
        flags = points[:, :, 2]
        known = np.asarray(((flags == 0) | (flags == 1) | (points == -1).all(axis=2)).all(axis=1), bool)
        for i in np.flatnonzero(keep & ~(finite & known)):
            reason = "a key point's flag is neither 1, 0 nor, with both coordinates -1 too, -1"
            self.broken(where.of(rows[i]), reason if finite[i] else "a key point is not made of finite numbers")
        return np.asarray(keep & finite & known, bool)

    def _look_up(self, path: str) -> tuple[int, int]:
        file = self.folder / tidy(path)
        try:
            return pictures.size(file) if self.told or file.is_file() else (0, 0)
        except ImageError:
            if self._strict and self.told:
                raise
            return 0, 0

    def finish(self) -> Reading:
        """All pictures; where one face of the set has key points, every picture has them."""
        k = self._num_keypoints
        images = self._images
        if k:
            images = [
                replace(m, keypoints=np.full((len(m.boxes), k, 3), -1, np.float32)) if m.keypoints is None else m
                for m in images
            ]
        return Reading(images, self._places, self._problems, dict(self._not_read), tuple(self._notes))


def path_problem(path: str) -> str:
    """Why a path cannot be one below a picture folder; empty where it can."""
    if not path or path != path.strip() or _CONTROL.search(path):
        return f"{path!r} is not a picture's path: it is empty, has spaces at an end or control characters"
    slashed = path.replace("\\", "/")
    if slashed.startswith("/") or ":/" in slashed or ".." in slashed.split("/"):
        return f"{path!r} leads out of the picture folder: paths must be relative to it"
    if len(os.fsencode(path)) > _LONGEST_PATH:
        return f"{path[:50]!r}... is no picture's path: it is longer than {_LONGEST_PATH} bytes"
    if any(len(os.fsencode(part)) > _LONGEST for part in slashed.split("/")):
        return f"{path[:50]!r}... is no picture's path: a name in it is longer than {_LONGEST} bytes"
    return ""


def tidy(path: str) -> str:
    """With forward slashes, without `./` and doubled ones."""
    return "/".join(part for part in path.replace("\\", "/").split("/") if part not in ("", "."))


def text_of(path: Path) -> str:
    """A text file; bytes that are not UTF-8, as in old file names, survive. Raises LabelError."""
    try:
        return path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except FileNotFoundError:
        raise LabelError(f"{path}: there is no such file") from None
    except OSError as error:
        raise LabelError(f"{path}: cannot be read: {error.strerror or error}") from None


def numbers(words: Sequence[str]) -> list[float] | None:
    """The words as numbers, None where one of them is none."""
    try:
        return list(map(float, words))
    except ValueError:
        return None


def whole(word: str) -> int | None:
    """The word as a whole number from 0 to 2^31 - 1, None where it is none. (Python refuses thousands of digits.)"""
    if not (word.isascii() and word.isdigit()) or len(word.lstrip("0")) > _DIGITS:
        return None
    value = int(word.lstrip("0") or "0")
    return value if value < 1 << 31 else None
