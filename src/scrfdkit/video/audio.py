"""The sound of a video, carried over beside new pictures: copied as it is wherever the new container can hold it."""

from __future__ import annotations

import io
import warnings
from collections.abc import Generator
from fractions import Fraction
from pathlib import Path
from typing import Any

from scrfdkit.errors import VideoError
from scrfdkit.video.source import load_av, open_input, reason

_AAC_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


class AudioCopy:
    """Moves the audio streams of one file into an open output container, a stretch of time at a time.

    path: the file with the sound. output: the PyAV container, before its first packet. start: time stamp in
    seconds of the file's time 0. A stream whose codec the container cannot hold is encoded anew as AAC, more than
    two channels mixed down to two; one that cannot be decoded for that is left out. What is not copied is told by
    a RuntimeWarning.
    """

    def __init__(self, path: Path, output: Any, start: Fraction) -> None:
        self._av = load_av()
        self._name = str(path)
        self._input = open_input(path)
        self._output = output
        self._start = start
        self._copied: dict[int, Any] = {}
        self._encoded: dict[int, tuple[Any, Any]] = {}
        # An encoder's run-in lies before time 0. Matroska has no such times and would move all the pictures instead,
        # unless the stream comes from Matroska and so brings its own note of the run-in.
        self._no_run_in = "matroska" in output.format.name and "matroska" not in self._input.format.name
        for stream in self._input.streams.audio:
            self._add(stream)
        self._packets = self._read()
        self._waiting: Any = None

    def _add(self, stream: Any) -> None:
        context = stream.codec_context
        codec = "an unknown codec" if context is None else context.codec.canonical_name
        if codec in self._output.supported_codecs and self._fits(stream):
            self._copied[stream.index] = self._output.add_stream_from_template(stream)
        elif context is not None and context.sample_rate:
            self._warn(f"{codec} audio does not fit into {self._output.format.name}; it is encoded anew as AAC")
            self._encoded[stream.index] = self._encoder(context)
        else:
            self._warn(f"audio stream {stream.index} ({codec}) is left out: it can be neither copied nor decoded")

    def _fits(self, stream: Any) -> bool:
        """Whether the container really takes the stream: MOV claims Opus and FLAC, and refuses their first packet."""
        try:
            with self._av.open(io.BytesIO(), "w", format=self._output.format.name) as trial:
                trial.add_stream_from_template(stream)
                trial.start_encoding()
        except (self._av.FFmpegError, ValueError):
            return False
        return True

    def _encoder(self, context: Any) -> tuple[Any, Any]:
        """An AAC stream, and what brings the sound into a form that every AAC encoder takes."""
        rate = context.sample_rate if context.sample_rate in _AAC_RATES else 48_000
        layout = "mono" if context.layout.nb_channels == 1 else "stereo"
        encoder = self._output.add_stream("aac", rate=rate)
        encoder.layout = layout
        encoder.format = "fltp"
        return encoder, self._av.AudioResampler(format="fltp", layout=layout, rate=rate)

    def move(self, until: float) -> None:
        """Everything that starts up to the time `until` in seconds; infinity for all the rest."""
        while True:
            packet = self._waiting if self._waiting is not None else next(self._packets, None)
            self._waiting = None
            if packet is None:
                return
            if packet.pts * packet.time_base - self._start > until:
                self._waiting = packet
                return
            self._move(packet)

    def finish(self) -> None:
        """Empties the encoders."""
        for encoder, resampler in self._encoded.values():
            for frame in resampler.resample(None):
                self._output.mux(encoder.encode(frame))
            self._output.mux(encoder.encode(None))

    def close(self) -> None:
        self._packets.close()
        self._input.close()

    def _read(self) -> Generator[Any, None, None]:
        streams = [self._input.streams[i] for i in (*self._copied, *self._encoded)]
        if not streams:
            return
        try:
            for packet in self._input.demux(*streams):
                if packet.dts is not None and packet.pts is not None and packet.size:
                    yield packet
        except (self._av.FFmpegError, OSError) as error:
            self._warn(f"the sound ends where it could no longer be read ({reason(error)})")

    def _move(self, packet: Any) -> None:
        index, shift = packet.stream.index, round(self._start / packet.time_base)
        if index in self._copied:
            packet.pts -= shift
            packet.dts -= shift
            if packet.pts < 0 and self._no_run_in:
                return
            packet.stream = self._copied[index]
            self._output.mux(packet)
            return
        try:
            decoded = packet.decode()
        except self._av.FFmpegError:
            return  # a damaged packet is a short silence
        encoder, resampler = self._encoded[index]
        for frame in decoded:
            frame.pts = None if frame.pts is None else frame.pts - round(self._start / frame.time_base)
            for piece in resampler.resample(frame):
                self._output.mux(encoder.encode(piece))

    def _warn(self, what: str) -> None:
        warnings.warn(f"{self._name}: {what}", RuntimeWarning, stacklevel=2)


def open_audio(path: Path, output: Any, start: Fraction) -> AudioCopy | None:
    """None where the file can no longer be opened a second time, as with a pipe; told by a RuntimeWarning."""
    try:
        return AudioCopy(path, output, start)
    except VideoError as error:
        warnings.warn(f"the sound is left out: {error}", RuntimeWarning, stacklevel=2)
        return None
