"""YOLO labels: a text file a picture, a line a face: class, then centre and size as fractions of the picture.

The pose variant goes on with each key point's x and y, also as fractions, and mostly its visibility (2 visible,
1 hidden, 0 not labelled). The files do not say the pictures' names and sizes: the pictures must be at hand.

The segmentation variant, a class and the corners of a polygon, has no boxes and is refused where it can be told.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from scrfdkit.data import pictures
from scrfdkit.data.labels import LabelledImage
from scrfdkit.data.reading import Collector, LabelError, Where, numbers, place, text_of
from scrfdkit.data.writing import Encoded, Losses, keypoints_of
from scrfdkit.errors import ImageError

_SHAPE_FILE = "data.yaml"
_NOT_LABELS = {"classes.txt", "train.txt", "val.txt", "test.txt"}
_MOST = 2.0
"""Parts of the picture up to this are a box or key point that reaches over the edge; more are pixels."""
_FEW = 0.1
"""Lines of another length than most, up to this part of the set, are slips; more are polygons."""


@dataclass(frozen=True)
class _File:
    """One label file: its place, its picture's path without suffix, and line number and numbers of each face."""

    name: str
    stem: str
    faces: list[tuple[int, list[float]]]


def read(path: Path, into: Collector) -> None:
    """Reads a folder into the collector; a picture without label file has no faces.

    Raises LabelError where there are no pictures to take sizes from.
    """
    folder = path / "labels" if (path / "labels").is_dir() else path
    images = into.folder
    found = pictures.by_stem(images)
    if not found and not into.told:
        raise LabelError(
            f"{path}: YOLO labels do not say the pictures' names and sizes, and {images} has none: add --images DIR"
        )
    files = [_file(place_, own, into) for place_, own in _label_files(folder, found)]
    dims = _told_point_numbers(path, folder)
    if dims is None:
        dims, files = _guess_point_numbers(files, into)
    for file in files:
        names = found.pop(file.stem, [])
        if len(names) == 1:
            _add(into, file, images, names[0], dims)
        else:
            several = f"several pictures have this name: {', '.join(names)}"
            into.broken(file.name, several if names else f"there is no picture {file.stem}.* in {images}")
    for name in sorted(name for names in found.values() for name in names):
        _add(into, _File(str(images / name), name, []), images, name, dims)


def _label_files(folder: Path, found: Mapping[str, object]) -> Iterator[tuple[Path, str]]:
    """Every label file, with its path below the folder without suffix; lists of classes and pictures are none."""
    paths = (Path(p) / name for p, _, names in os.walk(folder) for name in names if name.endswith(".txt"))
    for path in sorted(paths):
        own = pictures.stem(path.relative_to(folder).as_posix())
        if own in found or path.name not in _NOT_LABELS:
            yield path, own


def _file(path: Path, own: str, into: Collector) -> _File:
    faces: list[tuple[int, list[float]]] = []
    for number, line in enumerate(text_of(path).split("\n"), 1):
        words = line.split()
        if not words:
            continue
        values = numbers(words)
        at = place(str(path), number)
        if values is None or len(values) < 5:
            into.broken(at, f"a face is a class and at least four numbers; got {line.strip()!r:.200}")
        elif values[0] != 0:
            into.broken(at, f"class {words[0]}: a set of faces has the class 0 only; remove the others")
        else:
            faces.append((number, values))
    return _File(str(path), own, faces)


def _told_point_numbers(path: Path, folder: Path) -> int | None:
    """Numbers for each key point, 2 or 3, by data.yaml."""
    for place_ in (path, folder, folder.parent, folder.parent.parent):
        if (place_ / _SHAPE_FILE).is_file():
            told = re.search(r"^kpt_shape:\s*\[\s*\d+\s*,\s*([23])\s*\]", text_of(place_ / _SHAPE_FILE), re.MULTILINE)
            if told:
                return int(told[1])
    return None


def _guess_point_numbers(files: Sequence[_File], into: Collector) -> tuple[int, list[_File]]:
    """Numbers for each key point: 3 if that fits every line of the set, else 2; and the files without polygons."""
    extra = [values[5:] for file in files for _, values in file.faces if len(values) > 5]
    if all(len(e) % 3 == 0 and set(e[2::3]) <= {0, 1, 2} for e in extra):
        return 3, list(files)
    lengths = Counter(len(e) for e in extra if len(e) % 2 == 0)
    if len(lengths) > 1:
        files = [_without_polygons(file, lengths, into) for file in files]
    if any(len(values) > 5 for file in files for _, values in file.faces):
        into.assume(
            "numbers after the boxes were taken for key points x y, but could be polygons of segmentation labels: "
            f"'kpt_shape: [K, 2]' in {_SHAPE_FILE} says that they are K key points"
        )
    return 2, list(files)


def _without_polygons(file: _File, lengths: Mapping[int, int], into: Collector) -> _File:
    """lengths: of what follows the boxes in the whole set, in numbers -> how many lines."""
    usual = max(lengths, key=lengths.__getitem__)
    slips = sum(lengths.values()) - lengths[usual] <= _FEW * sum(lengths.values())
    kept = []
    for number, values in file.faces:
        own = len(values) - 5
        if not own or own % 2 or (slips and own == usual):
            kept.append((number, values))
            continue
        others = "most others" if slips else "others"
        into.broken(
            place(file.name, number),
            f"{len(values)} numbers, where {others} have {_other(own, usual, lengths) + 5}: lines of differing lengths "
            "look like segmentation (polygons), which are no boxes; with key points, all have as many numbers",
        )
    return replace(file, faces=kept)


def _other(own: int, usual: int, lengths: Mapping[int, int]) -> int:
    return usual if usual != own else next(length for length in lengths if length != own)


def _add(into: Collector, file: _File, images: Path, name: str, dims: int) -> None:
    try:
        width, height = pictures.size(images / name)
    except ImageError as error:
        into.broken(file.name, str(error))
        return
    kept: list[int] = []
    boxes: list[list[float]] = []
    points: list[list[float]] = []
    for number, values in file.faces:
        cx, cy, w, h = values[1:5]
        extra = values[5:]
        if len(extra) % dims:
            into.broken(place(file.name, number), f"{len(values)} numbers: 5, and {dims} more for each key point")
            continue
        if most := _too_large(values, dims):
            into.broken(
                place(file.name, number), f"{most:g}: are these pixels? YOLO wants parts of the picture, 0 to 1"
            )
            continue
        kept.append(number)
        corners = (cx - w / 2) * width, (cy - h / 2) * height, (cx + w / 2) * width, (cy + h / 2) * height
        boxes.append([_clean(v) for v in corners])
        points.append(_points(extra, dims, (width, height)))
    where = Where(file.name, 0, np.array(kept, np.int64))
    into.add(name, (width, height), where, boxes, [False] * len(boxes), points)


def _too_large(values: Sequence[float], dims: int) -> float | None:
    """The first coordinate or side that is no part of a picture."""
    parts = [*values[1:5], *(v for i, v in enumerate(values[5:]) if i % dims < 2)]
    return next((v for v in parts if abs(v) > _MOST), None)


def _clean(value: float) -> float:
    """Without the noise of fractions: an edge at 0 shall not come out at -1e-9."""
    return round(value, 4) + 0.0


def _points(extra: list[float], dims: int, size: tuple[int, int]) -> list[float]:
    out: list[float] = []
    for i in range(0, len(extra), dims):
        x, y = extra[i : i + 2]
        # Without a visibility, (0, 0) stands for a point that is not labelled.
        v = extra[i + 2] if dims == 3 else 2 * float(x != 0 or y != 0)
        out += (_clean(x * size[0]), _clean(y * size[1]), v - 1) if v else (-1, -1, -1)
    return out


def encode(labels: Sequence[LabelledImage]) -> Encoded:
    """A file for each picture, and data.yaml where there are key points; ignored faces become plain ones."""
    k = keypoints_of(labels)
    files: dict[str, bytes] = {}
    for image in labels:
        size = np.array([image.width, image.height], np.float64)
        low, high = image.boxes[:, :2].astype(np.float64), image.boxes[:, 2:].astype(np.float64)
        columns = [(low + high) / 2 / size, (high - low) / size]
        if image.keypoints is not None and k:
            columns.append(_fractions(image, size))
        rows = np.concatenate(columns, axis=1).tolist()
        if any(_too_large([0, *row], 3) is not None for row in rows):
            raise LabelError(
                f"{image.path}: a face lies so far outside the picture that YOLO's readers take it for pixels; "
                "correct or remove it, `scrfd data check` finds such faces"
            )
        lines = [" ".join(["0", *(f"{value:.10g}" for value in row)]) + "\n" for row in rows]
        files[f"{pictures.stem(image.path)}.txt"] = "".join(lines).encode()
    if k:
        files[_SHAPE_FILE] = f"kpt_shape: [{k}, 3]\nnames:\n  0: face\n".encode()
    ignored = sum(int(m.ignore.sum()) for m in labels)
    losses: Losses = {"ignore flags (the faces stay, as plain ones)": ignored} if ignored else {}
    return files, losses


def _fractions(image: LabelledImage, size: NDArray[np.float64]) -> NDArray[np.float64]:
    assert image.keypoints is not None
    points = image.keypoints.astype(np.float64)
    points[:, :, :2] /= size
    points[:, :, 2] += 1
    points[image.keypoints[:, :, 2] < 0] = 0
    return points.reshape(len(points), 3 * points.shape[1])
