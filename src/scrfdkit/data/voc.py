"""Pascal VOC xml: a file a picture, an `object` a face with its `bndbox`; `difficult` is our ignore.

Coordinates are taken as they stand. (The VOC challenge counted pixels from 1; today's label tools count from 0.)
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat
from xml.sax.saxutils import escape

import numpy as np

from scrfdkit.data import pictures
from scrfdkit.data.classes import face_class, no_choice
from scrfdkit.data.labels import LabelledImage
from scrfdkit.data.reading import Collector, LabelError, Where, numbers, place, whole
from scrfdkit.data.writing import Encoded, count_keypoints, shortest, text

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_NOT_XML = re.compile("[\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class _Object:
    line: int
    values: dict[str, str] = field(default_factory=dict)  # of name, difficult, xmin, ...


@dataclass(frozen=True)
class _File:
    name: str
    folder: str  # of the file, below the one that is read
    values: dict[str, str]  # of filename, width, height
    objects: list[_Object]


def read(path: Path, into: Collector) -> None:
    """Reads a folder, or a single file, into the collector. Raises LabelError where it cannot be opened."""
    folder = path / "Annotations" if (path / "Annotations").is_dir() else path
    places = [folder] if folder.is_file() else _xml_files(folder)
    top = folder.parent if folder.is_file() else folder
    files = [file for place_ in places if (file := _parse(place_, top, into)) is not None]
    names = {thing.values.get("name", "") for file in files for thing in file.objects}
    face = face_class(names)
    if face is None and names:
        into.broken(str(path), no_choice(names))
    for file in files:
        own = [thing for thing in file.objects if face is None or thing.values.get("name", "") == face]
        into.leave("objects of other classes", len(file.objects) - len(own))
        _add(into, file, own)


def _xml_files(folder: Path) -> list[Path]:
    return sorted(Path(p) / name for p, _, names in os.walk(folder) for name in names if name.endswith(".xml"))


def _parse(path: Path, top: Path, into: Collector) -> _File | None:
    """The few elements that matter, with the line of each object."""
    file = _File(str(path), path.relative_to(top).parent.as_posix(), {}, [])
    stack: list[str] = []
    words: list[str] = []
    parser = expat.ParserCreate()

    def start(tag: str, _: dict[str, str]) -> None:
        stack.append(tag)
        words.clear()
        if stack[1:] == ["object"]:
            file.objects.append(_Object(parser.CurrentLineNumber))

    def end(tag: str) -> None:
        told = "".join(words).strip()
        if stack[1:] == ["filename"] or (stack[1:-1] == ["size"] and tag in ("width", "height")):
            file.values[tag] = told
        elif (stack[1:-1] == ["object"] and tag in ("name", "difficult")) or (
            stack[1:-1] == ["object", "bndbox"] and tag in _CORNERS
        ):
            file.objects[-1].values[tag] = told
        stack.pop()
        words.clear()

    def refuse(*_: object) -> None:
        raise LabelError("has a document type, which labels do not need and which can be used to fill the memory")

    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = words.append
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(path.read_bytes(), True)
    except OSError as error:
        raise LabelError(f"{path}: cannot be read: {error.strerror or error}") from None
    except expat.ExpatError as error:
        into.broken(place(str(path), error.lineno), f"is not XML: {expat.ErrorString(error.code)}")
    except (LabelError, ValueError, LookupError) as error:
        into.broken(place(str(path), parser.CurrentLineNumber), str(error))
    else:
        return file
    return None


def _add(into: Collector, file: _File, objects: Sequence[_Object]) -> None:
    name = file.values.get("filename", "")
    if not name:
        into.broken(file.name, "has no <filename>")
        return
    boxes: list[list[float]] = []
    kept: list[_Object] = []
    for thing in objects:
        told = [thing.values.get(corner, "") for corner in _CORNERS]
        values = numbers(told)
        if values is None or thing.values.get("difficult", "0") not in ("", "0", "1"):
            at = place(file.name, thing.line)
            into.broken(at, f"xmin, ymin, xmax, ymax must be numbers and difficult 0 or 1; got {told!s:.200}")
            continue
        boxes.append(values)
        kept.append(thing)
    path = name if file.folder == "." or "/" in name else f"{file.folder}/{name}"
    where = Where(file.name, 1, np.array([thing.line for thing in kept], np.int64))
    ignore = [thing.values.get("difficult") == "1" for thing in kept]
    into.add(path, _size(into, file), where, boxes, ignore)


def _size(into: Collector, file: _File) -> tuple[int, int]:
    told = file.values.get("width", "0"), file.values.get("height", "0")
    width, height = whole(told[0]), whole(told[1])
    if width is not None and height is not None:
        return width, height
    into.broken(file.name, f"width and height must be whole numbers; got {told[0]!r:.50} and {told[1]!r:.50}")
    return 0, 0


def encode(labels: Sequence[LabelledImage]) -> Encoded:
    """A file for each picture, without key points."""
    files: dict[str, bytes] = {}
    for image in labels:
        name = image.path.rsplit("/", 1)[-1]
        if _NOT_XML.search(image.path):
            raise LabelError(f"{image.path!r}: XML cannot hold this name, which is not Unicode text")
        lines = [
            "<annotation>",
            f"  <filename>{escape(name)}</filename>",
            f"  <size><width>{image.width}</width><height>{image.height}</height><depth>3</depth></size>",
        ]
        for row, ignored in zip(shortest(image.boxes).tolist(), image.ignore, strict=True):
            box = "".join(f"<{corner}>{text(v)}</{corner}>" for corner, v in zip(_CORNERS, row, strict=True))
            lines += [
                f"  <object><name>face</name><difficult>{int(ignored)}</difficult>",
                f"    <bndbox>{box}</bndbox></object>",
            ]
        lines.append("</annotation>\n")
        files[f"{pictures.stem(image.path)}.xml"] = "\n".join(lines).encode()
    return files, count_keypoints(labels)
