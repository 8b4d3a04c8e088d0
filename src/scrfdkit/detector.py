"""The detector: one object, one verb. `Detector.open().detect("photo.jpg")`."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from scrfdkit import decode, image, letterbox, weights
from scrfdkit.errors import DeviceError, ModelError, OptionError
from scrfdkit.image import Picture, Source
from scrfdkit.layout import Layout, identify, levels_of
from scrfdkit.options import Options
from scrfdkit.runtime.base import Runtime
from scrfdkit.spec import Input, ModelSpec
from scrfdkit.types import Detections
from scrfdkit.views import View, decoding_target, restore, views

DEVICES = ("auto", "cpu", "cuda")
RUNTIMES = ("onnxruntime", "pytorch")
_PROBE = (256, 256)  # large enough for every level of a five-level head to have a size of its own


class Detector:
    """Finds faces. Safe to share between threads; holds nothing that changes.

    runtime: what runs the network. options: defaults for every call. path: the weight file, if it came from one.
    """

    def __init__(self, runtime: Runtime, options: Options | None = None, path: Path | None = None) -> None:
        self.runtime = runtime
        self.options = options or Options()
        self.path = path
        self.layout = _probe(runtime, path)
        spec = runtime.metadata.get("spec")
        self._input = ModelSpec.from_json(spec).input if spec else Input()
        self._check_size(self.options)

    @classmethod
    def open(
        cls,
        model: str | Path | None = None,
        *,
        device: str = "auto",
        strict_device: bool = False,
        runtime: str | None = None,
        threads: int | None = None,
        **options: Any,
    ) -> Detector:
        """Opens a network by name, or a weight file.

        model: a zoo name ("scrfd_2.5g_kps"), an .onnx, .safetensors or .pth file, or None for the weights that
            ship with the package.
        device: "cpu", "cuda", or "auto" for CUDA where it works and else the CPU. What runs is in `.device`.
        strict_device: raise DeviceError instead of falling back to the CPU, and instead of warning about it.
        runtime: "onnxruntime" or "pytorch"; None takes onnxruntime for .onnx and PyTorch for the others.
        threads: of one run of the network; None for one a core.
        options: fields of `Options`.

        Raises WeightError, ModelError, DeviceError, OptionError or MissingExtraError, each saying what to do.
        """
        if device not in DEVICES:
            raise OptionError(f"device: {device!r} is not one of {DEVICES}")
        if runtime not in (None, *RUNTIMES):
            raise OptionError(f"runtime: {runtime!r} is not one of {RUNTIMES}")
        if threads is not None and threads < 1:
            raise OptionError(f"threads: {threads} is not a number from 1")
        chosen = Options().override(**options)
        path = _resolve(model, runtime)
        loaded = _load(path, runtime, device, threads)
        if device == "cuda" and loaded.device != "cuda":
            reason = f"device: cuda was asked for, but {type(loaded).__name__} runs on {loaded.device} here"
            if strict_device:
                raise DeviceError(f"{reason}; `scrfd doctor` shows what is missing")
            warnings.warn(f"{reason}; strict_device=True makes this an error", RuntimeWarning, stacklevel=2)
        return cls(loaded, chosen, path)

    @property
    def device(self) -> str:
        """Where the network really runs: "cpu" or "cuda"."""
        return self.runtime.device

    @property
    def num_keypoints(self) -> int:
        """Key points a face, 0 if the network has none."""
        return self.layout.num_keypoints

    def __repr__(self) -> str:
        return f"Detector({self.path or type(self.runtime).__name__}, device={self.device!r}, {self.options})"

    def detect(self, picture: Source, **options: Any) -> Detections:
        """Faces of one picture, best first, in its own pixels (upright by EXIF).

        picture: path, bytes, uint8 BGR array, Pillow image or `Picture`. options: fields of `Options`, for this call.
        Raises ImageError for a picture that cannot be read, OptionError for an option.
        """
        return self.detect_batch([picture], **options)[0]

    def detect_batch(self, pictures: Sequence[Source], **options: Any) -> list[Detections]:
        """Faces of several pictures of any sizes, in order; each as `detect` gives it, within float rounding.

        Pictures whose canvases have the same size share a run of the network, `batch_size` at a time.
        """
        chosen = self.options.override(**options)
        self._check_size(chosen)
        target = decoding_target(chosen, self.runtime.input_size)
        loaded = [image.load(p, max_pixels=chosen.max_pixels, target=target) for p in pictures]
        jobs = [(i, v) for i, p in enumerate(loaded) for v in views(p, chosen, self.runtime.input_size)]
        found: list[list[tuple[int, Detections]]] = [[] for _ in loaded]
        for (index, view), faces in zip(jobs, self._run([v for _, v in jobs], chosen), strict=True):
            found[index].append((view.turn, restore(faces, view)))
        return [_merge(parts, picture, chosen) for parts, picture in zip(found, loaded, strict=True)]

    def _run(self, inputs: list[View], options: Options) -> list[Detections]:
        """Every view through the network, grouped by canvas; candidates in canvas pixels, in the order given."""
        results: dict[int, Detections] = {}
        by_canvas: dict[tuple[int, int], list[int]] = {}
        for index, view in enumerate(inputs):
            by_canvas.setdefault(view.placement.canvas, []).append(index)
        for canvas, group in by_canvas.items():
            for chunk in _chunks(group, self._batch_size(options)):
                found = self._run_batch([inputs[i] for i in chunk], canvas, options)
                results.update(zip(chunk, found, strict=True))
        return [results[i] for i in range(len(inputs))]

    def _run_batch(self, batch: list[View], canvas: tuple[int, int], options: Options) -> list[Detections]:
        blob = letterbox.blank(self.runtime.batch_size or len(batch), canvas)
        for slot, view in zip(blob, batch, strict=False):
            letterbox.draw(view.pixels, view.placement, slot, self._input)
        blob[len(batch) :] = 0  # a network of fixed batch size gets blank pictures for the rest
        outputs = self.runtime.run(blob)
        layout = self.layout
        return [
            decode.decode(levels_of(outputs, layout, canvas, i), options.score_threshold, logits=layout.logits)
            for i in range(len(batch))
        ]

    def _batch_size(self, options: Options) -> int:
        if not self.layout.batched:
            return 1
        return self.runtime.batch_size or options.batch_size

    def _check_size(self, options: Options) -> None:
        fixed = self.runtime.input_size
        for size in options.sizes:
            if fixed is not None and size not in ("auto", fixed):
                raise OptionError(
                    f"input_size: {size!r} was asked for, but {self.path or 'this network'} takes"
                    f" {fixed[0]}x{fixed[1]} only; leave it at 'auto' or export the network with dynamic size"
                )


def _probe(runtime: Runtime, path: Path | None) -> Layout:
    """Runs the network once on a blank picture to learn which output is what."""
    canvas = runtime.input_size or _PROBE
    try:
        outputs = runtime.run(np.zeros((runtime.batch_size or 1, 3, canvas[1], canvas[0]), np.float32))
        return identify(outputs, canvas)
    except ModelError as error:
        raise ModelError(f"{path or 'network'}: {error}") from None


def _resolve(model: str | Path | None, runtime: str | None) -> Path:
    suffixes: tuple[str, ...] = weights.SUFFIXES
    if runtime == "onnxruntime":
        suffixes = (".onnx",)
    elif runtime == "pytorch":
        suffixes = (".safetensors", ".pth", ".onnx")
    if model is None:
        return weights.embedded(suffixes[0])
    path = Path(model)
    if path.suffix in weights.SUFFIXES or path.exists():
        if not path.is_file():
            raise ModelError(f"{path}: there is no such file")
        return path
    try:
        return weights.find(str(model), suffixes)
    except ValueError as error:
        raise ModelError(str(error)) from None


def _load(path: Path, runtime: str | None, device: str, threads: int | None) -> Runtime:
    if runtime == "onnxruntime" and path.suffix != ".onnx":
        raise ModelError(f"{path}: onnxruntime reads .onnx files; leave the runtime out to run this one in PyTorch")
    if runtime == "pytorch" or path.suffix in (".safetensors", ".pth"):
        from scrfdkit.runtime.pytorch import PyTorchRuntime

        return PyTorchRuntime.open(path, device=device, threads=threads)
    from scrfdkit.runtime.ort import OrtRuntime

    return OrtRuntime.open(path, device=device, threads=threads)


def _merge(parts: list[tuple[int, Detections]], picture: Picture, options: Options) -> Detections:
    """Candidates of all views of a picture to its faces: one suppression, then the ranking."""
    turns = dict.fromkeys(turn for turn, _ in parts)
    merged = [
        decode.suppress(Detections.concatenate([d for t, d in parts if t == turn]), options.nms_threshold)
        for turn in turns
    ]
    best = max(merged, key=lambda faces: float(faces.scores.sum()))
    return decode.keep_best(best, options.max_faces, options.rank, picture.width, picture.height)


def _chunks(items: list[int], size: int) -> Iterator[list[int]]:
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk
