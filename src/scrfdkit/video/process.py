"""A detector over a video: faces by frame, filled in where they flicker, and a new video if one is wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from scrfdkit.atomic import exists
from scrfdkit.errors import VideoError
from scrfdkit.types import Detections, Image
from scrfdkit.video.bridge import Bools, Filled, bridge
from scrfdkit.video.reader import CAMERA, MAX_PIXELS, Frame, frames, probe
from scrfdkit.video.source import Source, local_file, name_of
from scrfdkit.video.threads import Behind, ahead
from scrfdkit.video.track import Tracker
from scrfdkit.video.writer import VideoWriter, check_output

_NO_IMAGE = np.zeros((0, 0, 3), np.uint8)

Detect: TypeAlias = Callable[[Image], Detections]
Render: TypeAlias = Callable[[Image, Detections], Image]


@dataclass(frozen=True, eq=False)
class FrameResult:
    """The faces of one frame.

    index: from 0. time: seconds. detections: all faces, found and filled in. bridged: (N,) bool, true for the
    faces that were filled in. detected: whether the detector looked at this frame.
    """

    index: int
    time: float
    detections: Detections
    bridged: Bools
    detected: bool


def process(
    source: Source,
    detect: Detect,
    *,
    every: int = 1,
    track: bool = False,
    max_gap: int = 15,
    hold: int = 0,
    output: Path | None = None,
    render: Render | None = None,
    crf: float = 20.0,
    preset: str = "veryfast",
    max_pixels: int = MAX_PIXELS,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[FrameResult]:
    """Runs `detect` on every `every`-th frame and gives one result for every frame, in order.

    track: give each face an id, and fill in faces that are missed for at most `max_gap` frames (see `bridge`).
    hold: frames for which a face is kept in place before its first and after its last sighting.
    output: write the frames there as H.264 with the sound of the source, each as `render(image, detections)`
        gives it, at the time of its original. It appears when the iterator is used up; if the iterator is closed
        or an error is raised before, there is none. `render` runs in a thread of its own.
    crf, preset: quality and speed of the encoder, see `VideoWriter`.
    stop: asked before every frame; once it says yes the source counts as ended there, and the output is finished
        whole. It is how a camera ends.

    In frames between two that were looked at, faces are where they were found on either side, or on the way
    between if `track` knows them as one: no frame goes out uncovered because nobody looked at it.

    Raises VideoError: from the call itself for a file or URL that cannot be opened or an output that cannot be
    written; from the iterator, after its last result, if the source breaks off. What could be read is then in
    the output, which is whole and playable. Raises ValueError for numbers out of range, and MissingExtraError
    without PyAV, or without trackforge for `track`.
    """
    if every < 1 or max_gap < 0 or hold < 0:
        raise ValueError(f"every must be at least 1, max_gap and hold at least 0; got {every}, {max_gap}, {hold}")
    if output is not None:
        check_output(output)
        path = local_file(source)
        if path is not None and exists(path) and exists(output) and output.samefile(path):
            raise VideoError(f"{output}: is the source itself; choose another name for the output")
    tracker = Tracker() if track else None
    info = CAMERA if isinstance(source, int) else probe(source, max_pixels=max_pixels)
    audio = local_file(source) if info.has_audio else None
    writer = None if output is None else VideoWriter(output, info, audio=audio, crf=crf, preset=preset)
    reading = _Reading(source, max_pixels, stop)
    seen = _look(reading, detect, tracker, every, keep_images=writer is not None)
    filled = bridge(seen, every=every, max_gap=max_gap if track else 0, hold=hold)
    return _run(reading, filled, writer, render or (lambda image, _: image))


class _Reading:
    """Frames read ahead by a thread, with a damaged source's error kept for later: what was read comes first."""

    def __init__(self, source: Source, max_pixels: int, stop: Callable[[], bool]) -> None:
        self._stop = stop
        self.name = name_of(source)
        self.error: VideoError | None = None
        self.frames = ahead(frames(source, max_pixels=max_pixels))

    def __iter__(self) -> Iterator[Frame]:
        try:
            for frame in self.frames:
                if self._stop():
                    return
                yield frame
        except VideoError as error:
            self.error = error


def _look(
    reading: _Reading, detect: Detect, tracker: Tracker | None, every: int, *, keep_images: bool
) -> Iterator[tuple[Frame, Detections | None]]:
    for frame in reading:
        found = None
        if frame.index % every == 0:
            found = detect(frame.image)
            found = found if tracker is None else tracker.update(found)
        yield (frame if keep_images else replace(frame, image=_NO_IMAGE)), found


def _run(
    reading: _Reading, filled: Iterator[Filled[Frame]], writer: VideoWriter | None, render: Render
) -> Iterator[FrameResult]:
    with ExitStack() as stack:
        writing: Behind[Filled[Frame]] | None = None
        stack.enter_context(closing(reading.frames))
        if writer is not None:
            sink = stack.enter_context(writer)
            writing = Behind(lambda f: sink.write(render(f.item.image, f.detections), f.item.time))
            stack.callback(writing.abandon)
        for one in filled:
            if writing is not None:
                writing.put(one)
            yield FrameResult(one.item.index, one.item.time, one.detections, one.bridged, one.detected)
        if writer is not None and writing is not None:
            writing.finish()
            writer.finish(whole=reading.error is None)
    if reading.error is not None:
        raise reading.error
