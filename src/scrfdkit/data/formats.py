"""Label files of every format to labelled pictures and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scrfdkit import atomic
from scrfdkit.data import coco, labelv2, table, voc, wider, yolo
from scrfdkit.data.labels import LabelledImage
from scrfdkit.data.pictures import SUFFIXES, folder_of, stem
from scrfdkit.data.reading import Collector, LabelError, Reading, path_problem
from scrfdkit.data.writing import Encode, Losses
from scrfdkit.errors import OptionError


@dataclass(frozen=True)
class Format:
    """One way to write labels down. folder: a file a picture, else one file. sized: it cannot do without the pictures'
    sizes. pictured: it cannot be read without the pictures."""

    read: Callable[[Path, Collector], None]
    encode: Encode
    folder: bool
    sized: bool
    pictured: bool = False


FORMATS = {
    "labelv2": Format(labelv2.read, labelv2.encode, folder=False, sized=True),
    "wider": Format(wider.read, wider.encode, folder=False, sized=False),
    "coco": Format(coco.read, coco.encode, folder=False, sized=True),
    "yolo": Format(yolo.read, yolo.encode, folder=True, sized=True, pictured=True),
    "voc": Format(voc.read, voc.encode, folder=True, sized=True),
    "csv": Format(table.read, table.encode, folder=False, sized=False),
}


def read(path: Path | str, *, format: str | None = None, images: Path | str | None = None) -> list[LabelledImage]:
    """All pictures with their faces.

    path: a label file, a folder of them (YOLO, VOC), or a folder with a `labelv2.txt`. format: one of FORMATS, by
    default guessed. images: folder of the pictures, for formats that do not tell sizes; by default it is
    `pictures.folder_of(path)`, and the size of a picture that is not there is 0.
    Raises LabelError, naming file and line, for the first label that makes no sense; OptionError for an unknown format;
    ImageError for a picture whose size is needed and cannot be read.
    """
    return _read(Path(path), format, images, strict=True).images


def scan(
    path: Path | str, *, format: str | None = None, images: Path | str | None = None, strict: bool = False
) -> Reading:
    """As `read`, with the place of every label; broken ones are told in `problems` and left out, unless strict."""
    return _read(Path(path), format, images, strict=strict)


def _read(path: Path, name: str | None, images: Path | str | None, *, strict: bool) -> Reading:
    name = name or guess(path)
    kind = find(name, "format")
    folder = Path(images) if images is not None else folder_of(path)
    if not kind.folder and (path / "labelv2.txt").is_file():
        path = path / "labelv2.txt"
    if images is not None and not Path(images).is_dir():
        raise LabelError(f"{images}: is not a folder of pictures")
    if not path.exists():
        raise LabelError(f"{path}: there is no such file")
    if path.is_dir() and not kind.folder:
        raise LabelError(f"{path}: is a folder; {name} labels are one file")
    into = Collector(folder, told=images is not None, strict=strict)
    kind.read(path, into)
    return into.finish()


def find(name: str, option: str) -> Format:
    """A format by its name. Raises OptionError, naming the option it came from."""
    if name not in FORMATS:
        raise OptionError(f"{option}: {name!r} is not one of {', '.join(FORMATS)}")
    return FORMATS[name]


def guess(path: Path | str) -> str:
    """The format of a file or folder by its suffix and first lines. Raises LabelError where it fits none."""
    path = Path(path)
    if (path / "labelv2.txt").is_file():
        return "labelv2"
    if path.is_dir():
        for suffix, name in ((".xml", "voc"), (".txt", "yolo")):
            if next(path.rglob(f"*{suffix}"), None) is not None:
                return name
        raise LabelError(f"{path}: holds neither .xml nor .txt label files")
    if not path.exists():
        raise LabelError(f"{path}: there is no such file or folder")
    by_suffix = {".json": "coco", ".csv": "csv", ".xml": "voc"}
    if path.suffix.lower() in by_suffix:
        return by_suffix[path.suffix.lower()]
    with path.open("rb") as file:
        lines = [line.decode("utf-8", "replace").strip() for line in file.read(1 << 16).split(b"\n")]
    lines = [line.removeprefix("\ufeff") for line in lines if line]
    if lines and lines[0].startswith("#"):
        return "labelv2"
    if len(lines) > 1 and lines[1].isdigit() and Path(lines[0]).suffix.lower() in SUFFIXES:
        return "wider"
    raise LabelError(
        f"{path}: is in no label format that can be told by looking: say which with --format (for convert: --from)"
    )


def write(labels: Sequence[LabelledImage], path: Path | str, format: str) -> Losses:
    """Writes labels, and tells what this format could not carry: what -> how many.

    path: the file, or for YOLO and VOC the folder.
    Raises LabelError, before anything is written, for labels that this format cannot hold at all.
    """
    kind = find(format, "format")
    _check_writable(labels, format, kind)
    files, losses = kind.encode(labels)
    if kind.folder and Path(path).exists() and not Path(path).is_dir():
        raise LabelError(f"{path}: is a file; {format} labels need a folder")
    for name, data in files.items():
        atomic.save(Path(path) / name if name else Path(path), data)
    return losses


def _check_writable(labels: Sequence[LabelledImage], name: str, kind: Format) -> None:
    seen: set[str] = set()
    if len({m.keypoints.shape[1] for m in labels if m.keypoints is not None}) > 1:
        raise LabelError("the pictures' faces differ in their number of key points")
    for image in labels:
        if problem := path_problem(image.path):
            raise LabelError(problem)
        if kind.sized and not (image.width > 0 and image.height > 0):
            raise LabelError(f"{image.path}: {name} needs the picture's size, which is not known: add --images DIR")
        points = image.keypoints
        if not np.isfinite(image.boxes).all() or (points is not None and not np.isfinite(points).all()):
            raise LabelError(f"{image.path}: box or key points are not finite numbers")
        # One file a picture is named after it; a table and WIDER's list tell pictures apart by name alone.
        key = stem(image.path) if kind.folder else image.path
        if key in seen and name in ("yolo", "voc", "csv"):
            raise LabelError(f"{image.path}: {name} cannot hold two pictures of this name")
        seen.add(key)
