"""Frames of a video file, stream or camera: upright BGR pixels with the time at which a player shows them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from scrfdkit.errors import VideoError
from scrfdkit.types import Image
from scrfdkit.video.source import Source, load_av, local_file, name_of, open_input, promised_size, reason

MAX_PIXELS = 8192 * 8192
"""Largest frame read by default, in pixels: 8K video is half of it."""

_MICROSECOND = Fraction(1, 1_000_000)
_UNKNOWN_COLORS = 2  # "unspecified" in every one of FFmpeg's colour enumerations
_HD_WIDTH, _SD_HEIGHT = 1280, 576


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame. index: from 0, in the order of presentation. time: seconds since the start of the video as a
    player shows it. image: upright (height, width, 3) BGR."""

    index: int
    time: float
    image: Image


@dataclass(frozen=True)
class Turn:
    """How stored pixels become upright ones: transpose first, then mirror left-right, then top-bottom."""

    transpose: bool = False
    flip_x: bool = False
    flip_y: bool = False

    @property
    def degrees(self) -> int:
        """Clockwise, of the turn that is left after an even number of mirrorings: 0, 90, 180 or 270."""
        if self.transpose:
            return 90 if self.flip_x else 270
        return 180 if self.flip_y else 0

    @property
    def mirrored(self) -> bool:
        """Whether the upright picture is also a mirror image of the stored one."""
        return self.transpose ^ self.flip_x ^ self.flip_y

    def __call__(self, image: Image) -> Image:
        turned = image.transpose(1, 0, 2) if self.transpose else image
        return np.ascontiguousarray(turned[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1])


@dataclass(frozen=True)
class VideoInfo:
    """What a video says about itself.

    width, height: of the upright frames. rate: mean frames a second, None where unknown; frames may come at
    any other times. num_frames, duration (seconds): as the file claims, None where it does not say.
    rotation: degrees clockwise that the stored pixels are turned by; mirrored: and then mirrored.
    time_base: seconds a tick, the grain of the time stamps. start: time stamp in seconds of time 0.
    sample_aspect: width / height of a pixel of the upright picture.
    primaries, transfer: FFmpeg's numbers of the colour primaries and transfer curve (2 is "not said").
    """

    name: str
    width: int
    height: int
    rate: Fraction | None
    num_frames: int | None
    duration: float | None
    rotation: int
    mirrored: bool
    has_audio: bool
    codec: str
    time_base: Fraction
    start: Fraction
    sample_aspect: Fraction
    primaries: int
    transfer: int


CAMERA = VideoInfo(
    name="camera",
    width=0,
    height=0,
    rate=None,
    num_frames=None,
    duration=None,
    rotation=0,
    mirrored=False,
    has_audio=False,
    codec="",
    time_base=Fraction(1, 90_000),
    start=Fraction(0),
    sample_aspect=Fraction(1),
    primaries=_UNKNOWN_COLORS,
    transfer=_UNKNOWN_COLORS,
)
"""What is taken to hold for a camera, which is not opened only to be asked: many drivers need seconds for that."""


def probe(source: Source, *, max_pixels: int = MAX_PIXELS) -> VideoInfo:
    """Reads the headers and the first frame. Raises VideoError as `frames` does, also if no frame can be decoded."""
    with closing(open_input(source)) as container:
        stream = _video_stream(container, source, max_pixels)
        problems: list[str] = []
        first = next(_decode(container, stream, problems), None)
        if first is None:
            raise VideoError(f"{name_of(source)}: no frame can be decoded{_because(problems)}")
        _check_pixels(first.width, first.height, source, max_pixels)
        turn = _turn(first)
        width, height = (first.height, first.width) if turn.transpose else (first.width, first.height)
        aspect = Fraction(stream.sample_aspect_ratio or 1)
        seconds = None if not container.duration else container.duration / 1e6
        return VideoInfo(
            name=name_of(source),
            width=width,
            height=height,
            rate=_rate(stream),
            num_frames=stream.frames or None,
            duration=seconds,
            rotation=turn.degrees,
            mirrored=turn.mirrored,
            has_audio=bool(container.streams.audio),
            codec=stream.codec_context.codec.canonical_name,
            time_base=_time_base(stream),
            start=_start(container),
            sample_aspect=1 / aspect if turn.transpose else aspect,
            primaries=int(first.color_primaries),
            transfer=int(first.color_trc),
        )


def frames(source: Source, *, max_pixels: int = MAX_PIXELS) -> Generator[Frame, None, None]:
    """Every frame that can be decoded, in the order of presentation.

    Times are exact to the file's own clock, also where frames come irregularly. Rotation and mirroring of the
    file are applied to the pixels. A stream that changes its size midway gives frames of both sizes.
    max_pixels: the largest frame that is read.

    Raises VideoError: at once if there is nothing to read, naming the reason; after the last frame that could be
    read if the file is damaged or was cut off, saying how many frames there were and up to which time. A format
    that does not say how long it is (MPEG-TS, GIF, a bare stream) cannot be known to be cut off.
    """
    name = name_of(source)
    count, time = 0, 0.0
    problems: list[str] = []
    with closing(open_input(source)) as container:
        stream = _video_stream(container, source, max_pixels)
        # FFmpeg's other kind, threads by frame, is faster and drops the frames before a damaged one without a word.
        stream.thread_type = "SLICE"
        start, step = _start(container), 1 / (_rate(stream) or Fraction(25))
        for decoded in _decode(container, stream, problems):
            _check_pixels(decoded.width, decoded.height, source, max_pixels)
            if decoded.pts is not None:
                time = float(decoded.pts * decoded.time_base - start)
            elif count:  # a bare stream has no clock: its frames follow each other at its nominal rate
                time += float(step)
            yield Frame(count, time, _turn(decoded)(_pixels(decoded)))
            count += 1
    problems = _missing(source) + problems
    if isinstance(source, int) and not problems:
        problems = ["the camera stopped"]
    if count and problems:
        raise VideoError(f"{name}: {count} frames up to {time:.3f} s were read, then it broke off{_because(problems)}")
    if not count:
        raise VideoError(f"{name}: no frame can be decoded{_because(problems)}")


def _video_stream(container: Any, source: Source, max_pixels: int) -> Any:
    """The first stream of moving pictures; the cover picture of a song is none."""
    av = load_av()
    cover = av.stream.Disposition.attached_pic
    streams = [s for s in container.streams.video if not s.disposition & cover]
    if not streams:
        held = sorted({s.type for s in container.streams}) or ["nothing"]
        raise VideoError(f"{name_of(source)}: no video in it, only {' and '.join(held)}")
    stream = streams[0]
    if stream.codec_context is None:
        raise VideoError(f"{name_of(source)}: its video codec is unknown to this build of FFmpeg")
    _check_pixels(stream.codec_context.width, stream.codec_context.height, source, max_pixels)
    return stream


def _check_pixels(width: int, height: int, source: Source, limit: int) -> None:
    if width * height > limit:
        raise VideoError(f"{name_of(source)}: frames of {width} x {height} pixels are over the limit of {limit} pixels")


def _decode(container: Any, stream: Any, problems: list[str]) -> Iterator[Any]:
    """Decoded frames; packets that cannot be read or decoded are noted and left out."""
    av = load_av()
    packets = container.demux(stream)
    bad, why = 0, ""
    while True:
        try:
            packet = next(packets, None)
        except (av.FFmpegError, OSError) as error:
            problems.append(f"reading stopped: {reason(error)}")
            packet = None
        try:
            # None asks the decoder for the frames it still holds; at an orderly end the last packet does that.
            yield from () if packet is None and not problems else stream.decode(packet)
        except EOFError:
            pass  # already emptied
        except av.FFmpegError as error:
            bad, why = bad + 1, reason(error)
        if packet is None:
            break
    if bad:
        problems.append(f"{bad} packet{'s' * (bad > 1)} could not be decoded ({why})")


def _missing(source: Source) -> list[str]:
    path = local_file(source)
    if path is None or not path.is_file():
        return []
    size, promised = path.stat().st_size, promised_size(path)
    if promised is None or size >= promised:
        return []
    return [f"the file is cut off: {size} of its {promised} bytes are there"]


def _because(problems: list[str]) -> str:
    return f" ({'; '.join(problems)})" if problems else ""


def _rate(stream: Any) -> Fraction | None:
    rate = stream.average_rate or stream.guessed_rate
    return Fraction(rate) if rate else None


def _time_base(stream: Any) -> Fraction:
    return Fraction(stream.time_base or stream.codec_context.time_base or Fraction(1, 90_000))


def _start(container: Any) -> Fraction:
    """Time stamp of time 0 in seconds. A negative one is an audio encoder's run-in, which no player shows."""
    return max(Fraction(0), (container.start_time or 0) * _MICROSECOND)


def _turn(frame: Any) -> Turn:
    """From the display matrix, which maps stored x y to shown x y (ISO 14496-12, 8.3.2), as 16.16 numbers.

    A turn that is not by a multiple of 90 degrees is rounded to one.
    """
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return Turn()
    a, b, _, c, d, *_ = np.frombuffer(bytes(data), np.int32).tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Turn(False, a < 0, d < 0)
    return Turn(True, c < 0, b < 0)


def _pixels(frame: Any) -> Image:
    """BGR. Where the file does not name its YUV matrix it is the one usual for the size, as players have it."""
    hd = frame.width >= _HD_WIDTH or frame.height > _SD_HEIGHT
    guess = None if frame.colorspace != _UNKNOWN_COLORS else ("ITU709" if hd else "ITU601")
    pixels: Image = frame.to_ndarray(format="bgr24", src_colorspace=guess)
    return pixels
