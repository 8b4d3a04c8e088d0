"""Writers of results: JSON Lines on standard output, CSV, COCO JSON, and WIDER FACE text.

All of them build on records, which is also what a resumed run reads back, so their files come out the same.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

from scrfdkit.atomic import growing, save, write_error
from scrfdkit.files.records import Record, encode, found_faces
from scrfdkit.types import point_names


class Sink(Protocol):
    """Takes records in input order; then exactly one of `finish` and `discard` is called."""

    def add(self, record: Record) -> None:
        """Takes one record. Raises ScrfdError where it cannot be written."""

    def finish(self) -> None:
        """Puts the whole file in its place."""

    def discard(self) -> None:
        """Leaves everything as it was before."""


class LinesSink:
    """JSON Lines on a stream that is open already; every line is sent at once."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream, self._name = stream, name

    def add(self, record: Record) -> None:
        """Raises BrokenPipeError where the reader has gone."""
        try:
            self._stream.write(encode(record))
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise write_error(self._name, error) from None

    def finish(self) -> None:
        """Nothing is left to do."""

    def discard(self) -> None:
        """What was sent cannot be taken back."""


class CsvSink:
    """One row a face, with a header. Inputs without faces and inputs that could not be read have no row.

    path: "-" is standard output. The column `bridged` is empty for pictures; in video it is 1 for a face that was
    filled in between frames and 0 for one that was found.
    """

    def __init__(self, path: Path, num_keypoints: int) -> None:
        self._file = growing(path)
        self._num_keypoints = num_keypoints
        names = [f"{name}_{axis}" for name in point_names(num_keypoints) for axis in "xy"]
        self._row("file", "frame", "time", "face", "id", "bridged", "score", "x1", "y1", "x2", "y2", *names)

    def add(self, record: Record) -> None:
        """Writes the rows of one picture or frame."""
        for i, face in enumerate(record.get("faces", ())):
            points = [value for point in face.get("keypoints", ()) for value in point]
            points += [""] * (2 * self._num_keypoints - len(points))
            frame, seconds = record.get("frame", ""), record.get("time", "")
            bridged = int(face.get("bridged", False)) if "frame" in record else ""
            which = (record["file"], frame, seconds, i, face.get("id", ""), bridged)
            self._row(*which, face["score"], *face["box"], *points)

    def _row(self, *values: Any) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values)
        self._file.write(text.getvalue().encode("utf-8", "backslashreplace"))

    def finish(self) -> None:
        """Puts the file in its place."""
        self._file.commit()

    def discard(self) -> None:
        """Removes what was written."""
        self._file.discard()


class CocoSink:
    """One COCO data set: `images`, `annotations` with `score` and key points, and the category "face".

    It loads as a COCO data set, and its `annotations` load as COCO results. A video frame is an image called
    "FILE#FRAME". Inputs that could not be read are left out, and so are faces that were filled in between frames, as
    nobody found them there. Boxes are x y w h in pixels.

    path: "-" is standard output. frame_size: tells width and height of a video's frames, which their records do not
    hold, or None.
    """

    def __init__(
        self, path: Path, num_keypoints: int, frame_size: Callable[[str], tuple[int, int] | None] = lambda _: None
    ) -> None:
        self._frame_size = frame_size
        self._video: tuple[str, tuple[int, int] | None] = ("", None)
        self._file = growing(path)
        # Images and annotations come together but lie apart in the file, so the latter wait in another one.
        self._annotations = tempfile.TemporaryFile()  # noqa: SIM115 - closed by finish or discard
        category: dict[str, Any] = {"id": 1, "name": "face", "supercategory": "person"}
        if num_keypoints:
            category |= {"keypoints": list(point_names(num_keypoints)), "skeleton": []}
        head = {"info": {"description": "faces found by scrfdkit"}, "licenses": [], "categories": [category]}
        self._file.write(json.dumps(head, indent=1).removesuffix("\n}").encode() + b',\n "images": [')
        self._num_images = self._num_annotations = 0

    def add(self, record: Record) -> None:
        """Writes one image and its annotations."""
        if "faces" not in record:
            return
        image: Record = {"id": self._num_images + 1, "file_name": record["file"]}
        if "frame" in record:
            image["file_name"] += f"#{record['frame']}"
            image |= self._size_of(record["file"])
        image |= {key: record[key] for key in ("width", "height", "frame", "time") if key in record}
        self._file.write(_element(image, self._num_images))
        self._num_images += 1
        for face in found_faces(record):
            annotation = _annotation(face, self._num_annotations + 1, image["id"])
            try:
                self._annotations.write(_element(annotation, self._num_annotations))
            except OSError as error:
                raise write_error(tempfile.gettempdir(), error) from None
            self._num_annotations += 1

    def _size_of(self, video: str) -> Record:
        if self._video[0] != video:
            self._video = (video, self._frame_size(video))
        size = self._video[1]
        return {} if size is None else {"width": size[0], "height": size[1]}

    def finish(self) -> None:
        """Joins both parts and puts the file in its place."""
        self._file.write(b'\n ],\n "annotations": [')
        self._annotations.seek(0)
        while data := self._annotations.read(1 << 20):
            self._file.write(data)
        self._annotations.close()
        self._file.write(b"\n ]\n}\n")
        self._file.commit()

    def discard(self) -> None:
        """Removes what was written."""
        with contextlib.suppress(OSError):
            self._annotations.close()
        self._file.discard()


def _element(value: Record, before: int) -> bytes:
    return b"%s\n  %s" % (b"," if before else b"", encode(value).rstrip())


def _annotation(face: Record, number: int, image: int) -> Record:
    x1, y1, x2, y2 = face["box"]
    width, height = round(x2 - x1, 2), round(y2 - y1, 2)
    annotation: Record = {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "bbox": [x1, y1, width, height],
        "area": round(width * height, 4),
        "iscrowd": 0,
        "score": face["score"],
    }
    if "keypoints" in face:
        annotation["keypoints"] = [v for point in face["keypoints"] for v in (*point, 2)]
        annotation["num_keypoints"] = len(face["keypoints"])
    if "id" in face:
        annotation["track_id"] = face["id"]
    return annotation


class WiderSink:
    """WIDER FACE results: for every picture a text file of its name, the number of faces, and `x y w h score` lines.

    names: the file to write, without suffix, and the name to put into it, for every input. A video has a folder
    with one text file a frame, without the faces that were filled in between frames.
    """

    def __init__(self, folder: Path, names: dict[str, tuple[PurePosixPath, str]]) -> None:
        self._folder, self._names = folder, names

    def add(self, record: Record) -> None:
        """Writes one text file."""
        if "faces" not in record or record["file"] not in self._names:
            return
        stem, title = self._names[record["file"]]
        if "frame" in record:
            stem, title = stem / f"{record['frame']:06d}", f"{title}#{record['frame']}"
        faces = found_faces(record)
        lines = [title, str(len(faces))]
        for face in faces:
            x1, y1, x2, y2 = face["box"]
            lines.append(f"{x1:.2f} {y1:.2f} {x2 - x1:.2f} {y2 - y1:.2f} {face['score']:g}")
        text = "\n".join(lines) + "\n"
        save(self._folder / stem.with_name(stem.name + ".txt"), text.encode("utf-8", "surrogateescape"))

    def finish(self) -> None:
        """Every file is in its place already."""

    def discard(self) -> None:
        """Whole files stay."""
