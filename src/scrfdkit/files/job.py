"""The work on one input: read it, find its faces, write its pictures, and give its records."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfdkit import draw, image
from scrfdkit.atomic import make_folder, save
from scrfdkit.errors import ImageError, MissingExtraError, ScrfdError
from scrfdkit.files.inputs import Source
from scrfdkit.files.names import Guard
from scrfdkit.files.records import Record, failure_record, frame_record, picture_record
from scrfdkit.image import Picture
from scrfdkit.types import Detections, Image

_QUALITY = {
    ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 95],
    ".jpeg": [cv2.IMWRITE_JPEG_QUALITY, 95],
    ".webp": [cv2.IMWRITE_WEBP_QUALITY, 95],
    ".png": [cv2.IMWRITE_PNG_COMPRESSION, 3],
}


class FrameFaces(Protocol):
    """What a video yields a frame: its number from 0, its time in seconds, its faces, and which were filled in."""

    @property
    def index(self) -> int: ...
    @property
    def time(self) -> float: ...
    @property
    def detections(self) -> Detections: ...
    @property
    def bridged(self) -> NDArray[np.bool_]: ...


class Process(Protocol):
    """Runs `detect` over a video, and writes it to `output` frame by frame as `render` gives it."""

    def __call__(
        self,
        source: str | Path | int,
        detect: Callable[[Image], Detections],
        *,
        output: Path | None,
        render: Callable[[Image, Detections], Image],
        max_pixels: int,
        stop: Callable[[], bool],
    ) -> Iterator[FrameFaces]: ...


@dataclass(frozen=True)
class Task:
    """One input and where its pictures go, None for nowhere.

    picture: the annotated or anonymised copy. crops: path without suffix, on which the names of the faces are built.
    """

    source: Source
    picture: Path | None = None
    crops: Path | None = None

    def crop(self, face: int, frame: int | None = None) -> Path:
        """Where one face goes: STEM_FACE.png, of a video STEM/FRAME_FACE.png."""
        assert self.crops is not None
        if frame is not None:
            return self.crops / f"{frame:06d}_{face}.png"
        return self.crops.with_name(f"{self.crops.name}_{face}.png")


@dataclass(frozen=True)
class Job:
    """What is done to every input.

    detect: from a picture to its faces. target: long side that is enough for it, None for full resolution.
    method: how faces are hidden; None draws their boxes instead.
    process: runs a detector over a video. every: which frames it looks at, for the names of crops.
    stop: once set, a camera's recording ends and is kept, and that of a video file, which would be cut, is dropped.
    """

    detect: Callable[[Picture], Detections]
    process: Process
    guard: Guard
    target: int | None = None
    max_pixels: int = image.MAX_PIXELS
    method: draw.Method | None = None
    every: int = 1
    stop: Event = field(default_factory=Event)

    def picture(self, task: Task) -> Record:
        """A still picture. Raises ScrfdError where an output cannot be written; all else becomes a failure record.

        Where its faces are found but cannot be drawn or cut out, the record has both the faces and the error.
        """
        source = task.source
        if source.kind == "nothing":
            return failure_record(source.file, source.problem)
        try:
            # Boxes are drawn, and faces cut out, at full resolution only.
            target = self.target if task.picture is None and task.crops is None else None
            loaded = _load(source, self.max_pixels, target)
            found = self.detect(loaded)
        except Exception as error:
            return failure_record(source.file, _explain(source, error))
        record = picture_record(source.file, loaded.width, loaded.height, found)
        drawn, crops = None, {}
        try:
            if task.picture is not None:
                drawn = _encode(self.render(loaded.pixels, found), task.picture)
            if task.crops is not None:
                crops = _cut(loaded.pixels, found, with_crop(record))
        except Exception as error:
            record |= failure_record(source.file, _explain(source, error))
        if task.picture is not None and drawn is not None:
            save(self.guard.check(task.picture, "--save-dir"), drawn)
        self._save_crops(task, crops)
        return record

    def video(self, task: Task) -> Generator[Record, None, None]:
        """The frames of a video or camera, and a failure record at the end if it broke off, for whatever reason."""
        source = task.source
        frame = -self.every

        def detect(pixels: Image) -> Detections:
            nonlocal frame
            frame += self.every
            found = self.detect(image.load(pixels, max_pixels=self.max_pixels))
            if task.crops is not None:
                height, width = pixels.shape[:2]
                record = picture_record(source.file, width, height, found)
                self._save_crops(task, _cut(pixels, found, with_crop(record)), frame)
            return found

        if task.picture is not None:
            make_folder(task.picture.parent)
            self.guard.check(task.picture, "--save-dir")
        camera = source.kind == "camera"
        place = int(source.file) if camera else place_of(source.file)
        frames: Iterator[FrameFaces] | None = None
        try:
            frames = self.process(
                place,
                detect,
                output=task.picture,
                render=self.render,
                max_pixels=self.max_pixels,
                stop=lambda: camera and self.stop.is_set(),
            )
            for one in frames:
                yield frame_record(source.file, one.index, one.time, one.detections, one.bridged)
                if self.stop.is_set() and not camera:
                    return
        except Exception as error:
            yield failure_record(source.file, _explain(source, error))
        finally:
            if frames is not None:
                frames.close()  # type: ignore[attr-defined]  # a generator, which only closing stops in the middle

    def render(self, pixels: Image, found: Detections) -> Image:
        """The picture to save."""
        if self.method is None:
            return draw.annotate(pixels, found)
        return draw.anonymize(pixels, found, self.method)

    def _save_crops(self, task: Task, crops: dict[int, bytes], frame: int | None = None) -> None:
        for face, data in crops.items():
            save(self.guard.check(task.crop(face, frame), "--crops"), data)


def place_of(file: str) -> str | Path:
    """An address stays text; everything else is a file, whatever its name looks like."""
    return file if "://" in file else Path(file)


def _load(source: Source, max_pixels: int, target: int | None) -> Picture:
    if source.kind != "stdin":
        return image.load(Path(source.file), max_pixels=max_pixels, target=target)
    if sys.stdin.isatty():
        raise ImageError("-: standard input is the keyboard; send a picture into it: scrfd detect - < photo.jpg")
    return image.load(sys.stdin.buffer.read(), max_pixels=max_pixels, target=target, name="standard input")


def _encode(pixels: Image, path: Path) -> bytes:
    suffix = path.suffix.lower()
    try:
        done, data = cv2.imencode(suffix, pixels, _QUALITY.get(suffix, []))
    except cv2.error:
        done = False
    if not done:
        height, width = pixels.shape[:2]
        raise ImageError(f"{path}: a picture of {width}x{height} cannot be written as {suffix}")
    return data.tobytes()


def with_crop(record: Record) -> list[int]:
    """Numbers of a picture's faces that are cut out: a face whose box lies in the padding beyond the picture is none.

    They are told from the record, so that a resumed run expects the very files that the first one wrote.
    """
    size = record["width"], record["height"]
    return [i for i, face in enumerate(record["faces"]) if draw.is_visible(face["box"], *size)]


def _cut(pixels: Image, found: Detections, which: list[int]) -> dict[int, bytes]:
    """Some faces by number, as PNG: turned upright to 112 x 112 by five key points, else their box with a margin."""
    return {i: _encode(_face(pixels, found, i), Path("face.png")) for i in which}


def _face(pixels: Image, found: Detections, i: int) -> Image:
    points = None if found.keypoints is None else found.keypoints[i]
    if points is not None and len(points) == 5:
        with suppress(ValueError):  # points that coincide say nothing about how the face is turned
            return draw.align(pixels, points)
    return draw.crop(pixels, found.boxes[i])


def _explain(source: Source, error: Exception) -> str:
    if isinstance(error, MissingExtraError):
        return f"{source.file}: {error}"
    if isinstance(error, ScrfdError):
        return str(error)
    reason = "not enough memory" if isinstance(error, MemoryError) else f"{type(error).__name__}: {error}"
    return f"{source.file}: {reason}"
