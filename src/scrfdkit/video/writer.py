"""An H.264 file from frames at any times, with the sound of the video they came from."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np

from scrfdkit.atomic import is_folder, partial_path
from scrfdkit.errors import VideoError
from scrfdkit.types import Image
from scrfdkit.video.audio import AudioCopy, open_audio
from scrfdkit.video.reader import VideoInfo
from scrfdkit.video.source import load_av, reason

SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")
"""The kinds of file that can be written."""

_BT709, _LIMITED = 1, 1  # FFmpeg's numbers of the YUV matrix and the value range the pixels are converted to
_USUAL_RATE = Fraction(30)


def check_output(path: Path) -> None:
    """Raises VideoError where no video of that name could be written."""
    if path.suffix.lower() not in SUFFIXES:
        raise VideoError(f"{path}: a video is written as {', '.join(SUFFIXES)}; choose a name that ends so")
    if not is_folder(path.parent):
        raise VideoError(f"{path}: the folder {path.parent} does not exist; make it first")
    if is_folder(path):
        raise VideoError(f"{path}: is a folder")


class VideoWriter:
    """Writes one video. `finish` makes the file appear under its name; leaving the `with` block without it,
    by an error or not, leaves nothing behind.

    path: .mp4, .m4v, .mov or .mkv. info: of the source: its time base, rate and colours are taken over.
    audio: the file whose sound is copied. crf: x264's quality, lower is better and larger. preset: x264's speed.

    Pixels go out as 8-bit 4:2:0 with even sides: an odd last row or column is doubled. Frames of another size
    than the first are scaled to it. No other data of the source is taken over: titles, places and the like can
    name who was filmed. B-frames are not used, for with irregular times they make MP4 files end too early.
    """

    def __init__(
        self,
        path: Path,
        info: VideoInfo,
        *,
        audio: Path | None = None,
        crf: float = 20.0,
        preset: str = "veryfast",
    ) -> None:
        check_output(path)
        self._av = load_av()
        self._path, self._info, self._audio_path = path, info, audio
        self._partial = partial_path(path, keep_suffix=True)
        self._options = {"crf": str(crf), "preset": preset, "bf": "0"}
        self._container: Any = None
        self._stream: Any = None
        self._audio: AudioCopy | None = None
        self._size = (0, 0)
        self._last = -1
        self._time = 0.0

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.discard()

    def write(self, image: Image, time: float) -> None:
        """Adds a frame, shown from `time` in seconds. Raises VideoError where the file cannot be written."""
        try:
            if self._container is None:
                self._open(image)
            # Two frames of one time, as damaged files have, are kept apart by one tick.
            self._last = max(self._last + 1, round(time / self._info.time_base))
            self._time = max(time, self._time)
            self._container.mux(self._stream.encode(self._frame(image, self._last)))
            if self._audio is not None:
                self._audio.move(time)
        except (self._av.FFmpegError, OSError) as error:
            raise VideoError(f"{self._path}: the video cannot be written: {reason(error)}") from error

    def finish(self, *, whole: bool = True) -> None:
        """Ends the file and gives it its name. Raises VideoError where that fails, or where it has no frame.

        whole: take all of the sound; otherwise it ends with the pictures.
        """
        if self._container is None:
            raise VideoError(f"{self._path}: not written, for there is no frame to write")
        try:
            if self._audio is not None:
                step = 1 / (self._info.rate or _USUAL_RATE)
                self._audio.move(float("inf") if whole else self._time + float(step))
                self._audio.finish()
            self._container.mux(self._stream.encode(None))
            self._close()
            self._partial.replace(self._path)
        except (self._av.FFmpegError, OSError) as error:
            raise VideoError(f"{self._path}: the video cannot be finished: {reason(error)}") from error

    def discard(self) -> None:
        """Removes the unfinished file; does nothing after `finish`."""
        try:
            self._close()
        except (self._av.FFmpegError, OSError):
            pass  # the file is thrown away
        finally:
            self._partial.unlink(missing_ok=True)

    def _open(self, image: Image) -> None:
        height, width = image.shape[:2]
        self._size = (width + width % 2, height + height % 2)
        # The index goes to the front, so that players on the web can start before the whole file is there.
        options = {} if self._path.suffix.lower() == ".mkv" else {"movflags": "faststart"}
        self._container = self._av.open(f"file:{self._partial}", "w", options=options)
        rate = (self._info.rate or _USUAL_RATE).limit_denominator(1001)
        self._stream = self._container.add_stream("libx264", rate=rate, options=self._options)
        context = self._stream.codec_context
        context.width, context.height = self._size
        context.pix_fmt = "yuv420p"
        context.time_base = self._info.time_base
        context.sample_aspect_ratio = self._info.sample_aspect
        context.colorspace, context.color_range = _BT709, _LIMITED
        context.color_primaries, context.color_trc = self._info.primaries, self._info.transfer
        if self._audio_path is not None:
            self._audio = open_audio(self._audio_path, self._container, self._info.start)

    def _frame(self, image: Image, pts: int) -> Any:
        width, height = self._size
        if (image.shape[1] + image.shape[1] % 2, image.shape[0] + image.shape[0] % 2) != self._size:
            image = np.asarray(cv2.resize(image, self._size, interpolation=cv2.INTER_AREA), np.uint8)
        extra = ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0))
        even = np.pad(image, extra, mode="edge") if any(e[1] for e in extra) else np.ascontiguousarray(image)
        frame = self._av.VideoFrame.from_ndarray(even, format="bgr24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
        frame.pts, frame.time_base = pts, self._info.time_base
        return frame

    def _close(self) -> None:
        container, self._container = self._container, None
        audio, self._audio = self._audio, None
        if audio is not None:
            audio.close()
        if container is not None:
            container.close()
