"""Video: frames in, faces by time, and a video out whose faces are covered or marked.

`frames` reads, `process` runs a detector over what it reads. PyAV is loaded on first use, not by this import.
"""

from scrfdkit.video.process import FrameResult, process
from scrfdkit.video.reader import MAX_PIXELS, Frame, VideoInfo, frames, probe

__all__ = ["MAX_PIXELS", "Frame", "FrameResult", "VideoInfo", "frames", "probe", "process"]
