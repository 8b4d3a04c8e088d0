"""Real videos for tests, made from a photograph: a window that moves over it, each frame marked with its number."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

CELL = 8  # side in pixels of the marks; two codec blocks, so that compression cannot hide them
BITS = 10
AUDIO_RATE = 48_000


@cache
def photograph() -> NDArray[np.uint8]:
    """The astronaut of scikit-image, (512, 512, 3) RGB: a public-domain NASA photograph with one face."""
    from skimage import data

    return np.asarray(data.astronaut(), np.uint8)


def picture(number: int, width: int, height: int) -> NDArray[np.uint8]:
    """Frame `number`: (height, width, 3) RGB with the number in black and white cells along the top."""
    left = number * 2 % max(1, 512 - width)
    window = photograph()[:height, left : left + width].copy()
    for bit in range(BITS):
        window[:CELL, bit * CELL : (bit + 1) * CELL] = 255 * (number >> bit & 1)
    return window


def number_of(image: NDArray[np.uint8]) -> int:
    """The number that `picture` wrote into an upright frame."""
    half = CELL // 2
    return sum(int(image[half, bit * CELL + half].mean() > 127) << bit for bit in range(BITS))


def make_video(
    path: Path,
    times: Sequence[Fraction | float] | int = 30,
    *,
    size: tuple[int, int] = (160, 120),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    audio: str | None = None,
    time_base: Fraction = Fraction(1, 15_360),
    b_frames: int = 2,
    options: dict[str, str] | None = None,
) -> Path:
    """A video with a frame at each of `times` in seconds (a number: so many at 30 a second), and a sine tone."""
    stamps = [Fraction(i, 30) for i in range(times)] if isinstance(times, int) else [Fraction(t) for t in times]
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = time_base
        if codec == "libx264":
            stream.options = {"bf": str(b_frames), "crf": "16", "g": "12", "preset": "veryfast"}
        sound = container.add_stream(audio, rate=AUDIO_RATE) if audio else None
        if sound is not None:
            sound.layout = "mono"
        heard = round(stamps[0] * AUDIO_RATE)
        for i, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(picture(i, *size), format="rgb24")
            frame.pts, frame.time_base = round(stamp / time_base), time_base
            container.mux(stream.encode(frame))
            until = stamps[i + 1] if i + 1 < len(stamps) else stamp + Fraction(1, 30)
            if sound is not None:
                heard = _tone(container, sound, heard, round(until * AUDIO_RATE))
        container.mux(stream.encode(None))
        if sound is not None:
            container.mux(sound.encode(None))
    return path


def make_sound(path: Path, codec: str = "aac", seconds: int = 1) -> Path:
    """A file with nothing but a tone."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream(codec, rate=AUDIO_RATE)
        sound.layout = "mono"
        _tone(container, sound, 0, AUDIO_RATE * seconds)
        container.mux(sound.encode(None))
    return path


def _tone(container: av.container.OutputContainer, sound: av.AudioStream, start: int, end: int) -> int:
    wave = (np.sin(np.arange(start, end) * (2 * np.pi * 440 / AUDIO_RATE)) * 8000).astype(np.int16)
    frame = av.AudioFrame.from_ndarray(wave[None], format="s16p", layout="mono")
    frame.sample_rate, frame.pts, frame.time_base = AUDIO_RATE, start, Fraction(1, AUDIO_RATE)
    container.mux(sound.encode(frame))
    return end


def rotate(path: Path, degrees: int, *, mirror: bool = False) -> Path:
    """Writes a turn into an MP4's track header (ISO 14496-12, 8.3.2: nine numbers a b u c d v x y w), clockwise."""
    a, b, c, d = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    if mirror:  # the shown picture is mirrored left-right on top of the turn: x changes its sign
        a, c = -a, -c
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: 40 bytes of flags, times, number, duration, layer, volume
    fixed = [v * 65536 for v in (a, b, 0, c, d, 0, 0, 0)] + [1 << 30]
    data[at : at + 36] = b"".join(v.to_bytes(4, "big", signed=True) for v in fixed)
    path.write_bytes(data)
    return path


def cut(path: Path, part: float, to: Path) -> Path:
    """The first `part` of a file's bytes."""
    data = path.read_bytes()
    to.write_bytes(data[: int(len(data) * part)])
    return to


def audio_packets(path: Path) -> list[bytes]:
    """The compressed sound, packet by packet."""
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(audio=0) if p.size]
