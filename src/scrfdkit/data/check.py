"""What is wrong with a set of labels and its pictures before a training finds out."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from scrfdkit import image
from scrfdkit.data.formats import scan
from scrfdkit.data.labels import LabelledImage
from scrfdkit.data.reading import Reading, Where
from scrfdkit.data.summary import Summary, summarize
from scrfdkit.errors import ImageError

KINDS = {
    "broken": "a label that cannot be read",
    "missing": "a picture that is not there",
    "unreadable": "a picture that cannot be decoded",
    "size": "a picture of another size than its label says",
    "inverted": "a box whose right or lower edge lies before the left or upper one",
    "empty": "a box without width or height",
    "outside": "a box with no part inside the picture",
    "over-edge": "a box that reaches over the picture's edge by more than a pixel",
    "far-point": "a key point outside its box by more than half the box's size",
    "twice-labelled": "a picture that is listed twice",
    "twice-boxed": "a box that is listed twice in one picture",
    "same-picture": "two files with the same content",
    "no-faces": "a picture without faces",
    "tiny": "a face whose sides' geometric mean is below 4 pixels",
    "not-read": "something that is left out",
    "assumed": "something that the labels leave open",
}
"""Every kind of finding, and what it is."""

_REMARKS = {"no-faces", "tiny"}
TINY = 4.0

Watch = Callable[[int, int], None]
"""Told how many pictures have been looked at, of how many."""


@dataclass(frozen=True)
class Finding:
    """One thing found. level: "problem" breaks or distorts a training, "remark" is good to know."""

    kind: str
    level: Literal["problem", "remark"]
    place: str
    picture: str
    text: str


@dataclass(frozen=True)
class Report:
    """Findings in the order of the labels, and the summary."""

    findings: tuple[Finding, ...]
    summary: Summary

    @property
    def problems(self) -> int:
        """How many findings are not mere remarks."""
        return sum(finding.level == "problem" for finding in self.findings)


def check(
    path: Path | str,
    *,
    format: str | None = None,
    images: Path | str | None = None,
    jobs: int = 1,
    watch: Watch | None = None,
) -> Report:
    """Looks at all labels and, where `images` is given, decodes every picture, `jobs` at a time.

    Raises LabelError only where there is nothing to look at: no such file, an unknown format.
    """
    reading = scan(path, format=format, images=images)
    findings = [Finding("broken", "problem", p.place, "", p.text) for p in reading.problems]
    for labels, where in zip(reading.images, reading.places, strict=True):
        findings += _boxes(labels, where)
    findings += _listed_twice(reading)
    findings += [
        Finding("not-read", "remark", str(path), "", f"{number:,} x {what}")
        for what, number in reading.not_read.items()
    ]
    findings += [Finding("assumed", "remark", str(path), "", note) for note in reading.notes]
    if images is not None:
        findings += _pictures(reading, Path(images), jobs, watch)
    return Report(tuple(findings), summarize(reading.images))


def _finding(kind: str, labels: LabelledImage, where: Where, text: str, face: int | None = None) -> Finding:
    # An ignored face is not trained on: what is wrong with it does no harm.
    harmless = kind in _REMARKS or (face is not None and bool(labels.ignore[face]))
    return Finding(kind, "remark" if harmless else "problem", where.of(face), labels.path, text)


def _boxes(labels: LabelledImage, where: Where) -> Iterator[Finding]:
    if not len(labels.boxes):
        yield _finding("no-faces", labels, where, "no faces")
        return
    for kind, mask in _masks(labels):
        for i in np.flatnonzero(mask).tolist():
            x1, y1, x2, y2 = labels.boxes[i].tolist()
            limits = f" of a picture of {labels.width}x{labels.height}" if kind in ("outside", "over-edge") else ""
            yield _finding(kind, labels, where, f"box {x1:g} {y1:g} {x2:g} {y2:g}{limits}", i)
    seen: dict[bytes, int] = {}
    for i, box in enumerate(labels.boxes):
        first = seen.setdefault(box.tobytes(), i)
        if first != i:
            yield _finding("twice-boxed", labels, where, f"the box of {where.of(first)} again", i)


def _masks(labels: LabelledImage) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """(N,) for each kind, which faces have that fault; a box has the worst one only."""
    boxes = labels.boxes.astype(np.float64)
    size = boxes[:, 2:] - boxes[:, :2]
    inverted = np.asarray((size < 0).any(axis=1), bool)
    empty = ~inverted & (size == 0).any(axis=1)
    sound = ~inverted & ~empty
    yield "inverted", inverted
    yield "empty", empty
    if labels.width and labels.height:
        limit = np.array([labels.width, labels.height], np.float64)
        outside = sound & ((boxes[:, 2:] <= 0) | (boxes[:, :2] >= limit)).any(axis=1)
        over = sound & ~outside & ((boxes[:, :2] < -1) | (boxes[:, 2:] > limit + 1)).any(axis=1)
        yield "outside", outside
        yield "over-edge", over
    if labels.keypoints is not None:
        points = labels.keypoints.astype(np.float64)
        reach = size[:, None] / 2
        low, high = boxes[:, None, :2] - reach, boxes[:, None, 2:] + reach
        far = ((points[:, :, :2] < low) | (points[:, :, :2] > high)).any(axis=2) & (points[:, :, 2] >= 0)
        yield "far-point", sound & far.any(axis=1)
    small = np.asarray(np.clip(size, 0, None).prod(axis=1) < TINY**2, bool)
    yield "tiny", sound & ~labels.ignore & small


def _listed_twice(reading: Reading) -> Iterator[Finding]:
    first: dict[str, Where] = {}
    for labels, where in zip(reading.images, reading.places, strict=True):
        before = first.setdefault(labels.path, where)
        if before is not where:
            yield _finding("twice-labelled", labels, where, f"{labels.path} is at {before.of()} already")


def _pictures(reading: Reading, folder: Path, jobs: int, watch: Watch | None) -> Iterator[Finding]:
    content: dict[bytes, str] = {}
    looked: set[str] = set()
    pairs = [pair for pair in zip(reading.images, reading.places, strict=True) if not _seen(pair[0].path, looked)]
    paths = [folder / labels.path for labels, _ in pairs]
    for done, ((labels, where), (digest, size, problem)) in enumerate(
        zip(pairs, _look_at_all(paths, jobs), strict=True), 1
    ):
        if watch is not None:
            watch(done, len(pairs))
        if problem:
            there = (folder / labels.path).exists()
            yield _finding("unreadable" if there else "missing", labels, where, problem)
            continue
        told = (labels.width, labels.height)
        if all(told) and told != size:
            hint = "; its EXIF data turns it on its side" if told == size[::-1] else ""
            yield _finding("size", labels, where, f"{told[0]}x{told[1]} told, the picture is {size[0]}x{size[1]}{hint}")
        before = content.setdefault(digest, labels.path)
        if before != labels.path:
            yield _finding("same-picture", labels, where, f"{labels.path} is the same picture as {before}")


def _seen(path: str, looked: set[str]) -> bool:
    before = path in looked
    looked.add(path)
    return before


_Look = tuple[bytes, tuple[int, int], str]


def _look_at_all(paths: Sequence[Path], jobs: int) -> Iterator[_Look]:
    """In the order of the paths, a few ahead at a time."""
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        waiting: deque[Future[_Look]] = deque()
        try:
            for path in paths:
                waiting.append(pool.submit(_look_at, path))
                if len(waiting) > 2 * jobs:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _look_at(path: Path) -> _Look:
    """Digest of the file, size of the upright picture, and why it cannot be read."""
    try:
        data = path.read_bytes() if path.is_file() else None
        picture = image.load(path if data is None else data, name=str(path))
    except (ImageError, OSError) as error:
        return b"", (0, 0), str(error)
    return hashlib.blake2b(data or os.fsencode(path), digest_size=16).digest(), (picture.width, picture.height), ""
