"""OpenCV's own network runtime, for ONNX files: nothing but OpenCV is needed to run them elsewhere in the same way."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from scrfdkit.errors import ModelError
from scrfdkit.model.plan import check_size
from scrfdkit.runtime.base import Binding
from scrfdkit.runtime.ort import OrtRuntime
from scrfdkit.runtime.ort import bindings as onnx_bindings
from scrfdkit.types import Floats

_SETTINGS = threading.Lock()
"""Held while OpenCV is silent or has another number of threads: it knows one of each for the whole process, and of two
that overlap, the later would take what the earlier has set for what to put back."""


class OpenCVRuntime:
    """A network on the CPU. Threads may share it; of all networks of a process, one runs at a time.

    device: "cpu". input_size, batch_size, metadata: as the file has them.
    """

    device = "cpu"

    def __init__(self, net: cv2.dnn.Net, described: OrtRuntime, threads: int | None = None) -> None:
        self.input_size, self.batch_size = described.input_size, described.batch_size
        self.metadata: Mapping[str, str] = described.metadata
        self._net = net
        self._names = net.getUnconnectedOutLayersNames()
        self._threads = threads

    @classmethod
    def open(cls, path: str | Path, *, device: str = "auto", threads: int | None = None) -> OpenCVRuntime:
        """Loads an ONNX file. What it takes is read by onnxruntime, as OpenCV does not tell, and files that
        onnxruntime finds a fault in never reach OpenCV.

        device: only the CPU is used, whatever is asked for. threads: of one run, None for what OpenCV is set to.
        Raises ModelError, naming the file; OpenCV 4 cannot read every graph that onnxruntime can.
        """
        described = OrtRuntime.open(Path(path), threads=1)
        try:
            with _settings(None):
                net = cv2.dnn.readNetFromONNX(str(path))
        except cv2.error as error:
            raise ModelError(
                f"{path}: OpenCV {cv2.__version__} cannot read this graph: {_reason(error)}; what `scrfd export` writes"
                " of it can be read"
            ) from error
        return cls(net, described, threads)

    def run(self, blob: Floats) -> list[NDArray[Any]]:
        """Raises ModelError where OpenCV cannot run the network on such a blob."""
        wanted = (self.batch_size, 3, *(self.input_size or (None, None))[::-1])
        if blob.ndim != 4 or any(side not in (None, found) for side, found in zip(wanted, blob.shape, strict=True)):
            raise ModelError(f"blob: {wanted} is needed, None being any, got {blob.shape}")
        check_size(blob.shape[3], blob.shape[2])
        feed = np.ascontiguousarray(blob, np.float32)
        try:
            with _settings(self._threads):
                self._net.setInput(feed)
                outputs = list(self._net.forward(self._names))
        except cv2.error as error:
            raise ModelError(f"OpenCV cannot run it on a blob of {blob.shape}: {_reason(error)}") from error
        if any(len(output) != len(blob) for output in outputs if output.ndim > 2):
            raise ModelError(f"OpenCV mixes the {len(blob)} pictures of a run up; export the network with --batch 1")
        return outputs


open_model = OpenCVRuntime.open


def bindings(path: str | Path) -> list[Binding]:
    """Inputs and outputs of an ONNX file. Raises ModelError."""
    return onnx_bindings(Path(path))


@contextmanager
def _settings(threads: int | None) -> Iterator[None]:
    """Silence, as OpenCV would write what it raises to standard error too, and a number of threads, if one is given;
    both put back in the end. Its oldest versions cannot be silenced."""
    logging = getattr(getattr(cv2, "utils", None), "logging", None)
    with _SETTINGS:
        level = logging.setLogLevel(logging.LOG_LEVEL_SILENT) if logging else None
        before = cv2.getNumThreads()
        other = None if threads == before else threads
        try:
            if other is not None:
                cv2.setNumThreads(other)
            yield
        finally:
            if other is not None:
                cv2.setNumThreads(before)
            if logging:
                logging.setLogLevel(level)


def _reason(error: Exception) -> str:
    """The last line that says something, without the place in OpenCV's source."""
    lines = [line.strip("> ") for line in str(error).splitlines() if line.strip("> ")]
    return lines[-1] if lines else type(error).__name__
