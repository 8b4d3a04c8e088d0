"""ncnn: runs a .param file with the .bin file of the same stem, a picture at a time, in float32 on the CPU."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import ncnn
import numpy as np

from scrfdkit import certificate
from scrfdkit.errors import ModelError
from scrfdkit.model.plan import check_size
from scrfdkit.runtime.base import Binding
from scrfdkit.runtime.ncnn_file import Graph, check_weights, read_param, shapes
from scrfdkit.types import Floats

_SHORT = ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_bf16_packed", "use_bf16_storage")
"""Options that store or compute with 16 bits where the processor can: bf16 moved outputs of scrfd_500m_kps by up to
0.48. Weights that a file holds as fp16 are enlarged when they are loaded."""


class NcnnRuntime:
    """One ncnn network. Any number of threads may call `run` at once: each call has an extractor of its own.

    metadata: of the certificate, as the format has no place for any.
    """

    device = "cpu"
    batch_size: int | None = 1

    def __init__(self, net: ncnn.Net, graph: Graph, metadata: Mapping[str, str]) -> None:
        self.metadata = dict(metadata)
        self.input_size = graph.size
        self._net, self._graph = net, graph
        self._outputs = _ordered(graph)
        self._fitting: set[tuple[int, int]] = set()

    @classmethod
    def open(cls, path: str | Path, *, device: str = "auto", threads: int | None = None) -> NcnnRuntime:
        """Loads a .param file and its .bin file, after looking through both.

        device: it runs on the CPU, whatever is asked for. threads: of one run, None for one a core.
        Raises ModelError, naming the file, where it is damaged or has layers that SCRFD networks do not need.
        """
        path = Path(path)
        weights = path.with_suffix(".bin")
        graph = read_param(path)
        check_weights(graph, weights)
        record = certificate.read(path)
        net = ncnn.Net()
        for name in _SHORT:
            setattr(net.opt, name, False)
        net.opt.use_vulkan_compute = False
        if threads is not None:
            net.opt.num_threads = threads
        # The graph as it was looked through. ncnn reads the weights anew, as its binding takes none from memory that
        # tells whether they were loaded: a .bin file must not be changed while it is opened.
        if net.load_param_mem(graph.text()) or net.load_model(str(weights)):
            raise ModelError(f"{path}: ncnn cannot load it")
        return cls(net, graph, record.metadata if record else {})

    def run(self, blob: Floats) -> list[Floats]:
        """blob: (1, 3, H, W) float32, normalised RGB, H and W multiples of 32.

        Returns maps (1, C, h, w) float32. Raises ModelError for a blob of another shape.
        """
        if blob.ndim != 4 or blob.shape[:2] != (1, 3) or blob.dtype != np.float32:
            raise ModelError(f"blob: ncnn takes (1, 3, H, W) float32, a picture a run; got {blob.shape} {blob.dtype}")
        size = blob.shape[3], blob.shape[2]
        check_size(*size)
        self._check(size)
        extractor = self._net.create_extractor()
        extractor.input(self._graph.input, ncnn.Mat(np.ascontiguousarray(blob[0])).clone())
        outputs = []
        for name in self._outputs:
            code, values = extractor.extract(name)
            if code:
                raise ModelError(f"ncnn cannot run it on a blob of {blob.shape}: {name} fails with code {code}")
            outputs.append(np.array(values)[None])
        return outputs

    def _check(self, size: tuple[int, int]) -> None:
        fixed = self.input_size
        if fixed is not None and size != fixed:
            raise ModelError(f"blob: this ncnn file takes {fixed[0]}x{fixed[1]} only, got {size[0]}x{size[1]}")
        if size not in self._fitting:
            try:
                shapes(self._graph, size)
            except ValueError as error:
                raise ModelError(f"ncnn cannot run it on {size[0]}x{size[1]}: {error}") from None
            self._fitting.add(size)


open_model = NcnnRuntime.open


def bindings(path: str | Path) -> list[Binding]:
    """The input and the output maps of a .param file. Raises ModelError."""
    graph = read_param(Path(path))
    found = shapes(graph, graph.size or (256, 256))
    width, height = graph.size or ("width", "height")

    def of(name: str) -> Binding:
        sides = found[name][1:] if graph.size else ("?", "?")
        return Binding(name, "output", "float32", (1, found[name][0], *sides))

    return [Binding(graph.input, "input", "float32", (1, 3, height, width)), *map(of, _ordered(graph))]


def _ordered(graph: Graph) -> tuple[str, ...]:
    """The outputs in the order of the official files where they have names like theirs, else in the file's order."""
    found = [re.fullmatch(r"(score|bbox|kps)_(\d{1,4})", name) for name in graph.outputs]
    parts = [(("score", "bbox", "kps").index(m[1]), int(m[2]), m[0]) for m in found if m]
    return tuple(name for _, _, name in sorted(parts)) if len(parts) == len(found) else graph.outputs
