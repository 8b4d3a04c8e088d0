"""The detector: one object, one verb. `Detector.open().detect("photo.jpg")`."""

from __future__ import annotations

import stat
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scrfdkit import image, network, steps, weights
from scrfdkit.errors import DeviceError, ImageError, ModelError, OptionError
from scrfdkit.image import Picture, Source
from scrfdkit.layout import Layout, identify
from scrfdkit.options import Options
from scrfdkit.runtime.base import Runtime, within
from scrfdkit.runtime.formats import FORMATS, RUNTIMES, SUFFIXES, choose, is_address, open_runtime
from scrfdkit.spec import Input, ModelSpec
from scrfdkit.types import Detections
from scrfdkit.views import decoding_target

DEVICES = ("auto", "cpu", "cuda", "tensorrt")
MAX_THREADS = 1024
_PROBE = (256, 256)  # large enough for every level of a five-level head to have a size of its own


class Detector:
    """Finds faces. Safe to share between threads; holds nothing that changes.

    runtime: what runs the network. options: defaults for every call. path: the file, if it came from one.
    """

    def __init__(self, runtime: Runtime, options: Options | None = None, path: Path | None = None) -> None:
        self.runtime = runtime
        self.options = options or Options()
        self.path = path
        self.layout = _probe(runtime, path)
        self.input = _input_of(runtime)
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
        """Opens a network by name, by its description, or a weight file.

        model: a zoo name ("scrfd_2.5g_kps"), a .json description that names its weights, a weight file or an exported
            one (docs/runtimes.md lists the kinds), or None for the weights that ship with the package. A file with a
            certificate is compared with it.
        device: "cpu", "cuda", "tensorrt" (through onnxruntime), or "auto" for CUDA where it works and else the CPU.
            What runs is in `.device`.
        strict_device: raise DeviceError instead of falling back, to CUDA or the CPU, and instead of warning about it.
        runtime: one of `scrfdkit.runtime.formats.RUNTIMES`; None takes what that kind of file is made for.
        threads: of one run of the network; None for one a core.
        options: fields of `Options`.

        Raises WeightError, ModelError, DeviceError, OptionError or MissingExtraError, each saying what to do.
        """
        if device not in DEVICES:
            raise OptionError(f"device: {device!r} is not one of {DEVICES}")
        if runtime not in (None, *RUNTIMES):
            raise OptionError(f"runtime: {runtime!r} is not one of {RUNTIMES}")
        if threads is not None and not (isinstance(threads, int) and 1 <= threads <= MAX_THREADS):
            raise OptionError(f"threads: {threads!r} is not a number from 1 to {MAX_THREADS}")
        if model is not None and not isinstance(model, (str, Path)):
            raise OptionError(f"model: {type(model).__name__} is neither a name nor a path")
        chosen = Options().override(**options)
        found = _resolve(model, runtime)
        loaded = open_runtime(found, runtime, device, threads)
        if device in ("cuda", "tensorrt") and device not in (loaded.device, choose(found, runtime).name):
            reason = f"device: {device} was asked for, but {type(loaded).__name__} runs on {loaded.device} here"
            if strict_device:
                raise DeviceError(f"{reason}; `scrfd doctor` shows what is missing")
            warnings.warn(f"{reason}; strict_device=True makes this an error", RuntimeWarning, stacklevel=2)
        return cls(loaded, chosen, found if isinstance(found, Path) else None)

    @property
    def device(self) -> str:
        """Where the network really runs: "cpu", "cuda" or "tensorrt"."""
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
        Raises ImageError for the first picture that cannot be read; `detect_each` goes on.
        """
        chosen = self._options(pictures, options)
        return self._detect(self.load(pictures, chosen), chosen)

    def detect_each(self, pictures: Sequence[Source], **options: Any) -> list[Detections | ImageError]:
        """As `detect_batch`, but a picture that cannot be read has its ImageError in its place."""
        chosen = self._options(pictures, options)
        loaded: list[Picture | ImageError] = []
        for picture in pictures:
            try:
                loaded += self.load([picture], chosen)
            except ImageError as error:
                loaded.append(error)
        faces = iter(self._detect([p for p in loaded if isinstance(p, Picture)], chosen))
        return [next(faces) if isinstance(p, Picture) else p for p in loaded]

    def _options(self, pictures: Sequence[Source], changes: dict[str, Any]) -> Options:
        """Checks a call once, before any picture is decoded, and gives its options."""
        if isinstance(pictures, (str, bytes, bytearray, memoryview, Path, np.ndarray)):
            raise ImageError(f"{type(pictures).__name__}: a list of pictures is needed; `detect` takes one")
        chosen = self.options.override(**changes)
        self._check_size(chosen)
        return chosen

    def _detect(self, pictures: Sequence[Picture], options: Options) -> list[Detections]:
        candidates = []
        for batch in self.plan(pictures, options):
            blob = steps.preprocess(batch, self.input, self.runtime.batch_size)
            candidates += steps.postprocess(self.runtime.run(blob), self.layout, batch, options)
        return steps.merge(candidates, pictures, options)

    def load(self, sources: Sequence[Source], options: Options) -> list[Picture]:
        """Decodes pictures, JPEGs no larger than these options need. Raises ImageError."""
        target = decoding_target(options, self.runtime.input_size)
        return [image.load(source, max_pixels=options.max_pixels, target=target) for source in sources]

    def plan(self, pictures: Sequence[Picture], options: Options) -> Iterator[steps.Batch]:
        """The runs of the network that these pictures take."""
        one_by_one = not self.layout.batched
        batch_size = 1 if one_by_one else self.runtime.batch_size or options.batch_size
        return steps.plan(pictures, options, self.runtime.input_size, batch_size)

    def _check_size(self, options: Options) -> None:
        fixed = self.runtime.input_size
        for size in options.sizes:
            if fixed is not None and size not in ("auto", fixed):
                raise OptionError(
                    f"input_size: {size!r} was asked for, but {self.path or 'this network'} takes"
                    f" {fixed[0]}x{fixed[1]} only; leave it at 'auto' or export the network with dynamic size"
                )


def _input_of(runtime: Runtime) -> Input:
    """How the network wants its pixels: as its file says, or as every official network does."""
    try:
        return ModelSpec.from_json(runtime.metadata["spec"]).input
    except (KeyError, ValueError):  # files of others may use the word for something else
        return Input()


def _probe(runtime: Runtime, path: Path | None) -> Layout:
    """Runs the network once on a blank picture to learn which output is what."""
    canvas = within(runtime, _PROBE)
    try:
        outputs = runtime.run(np.zeros((runtime.batch_size or 1, 3, canvas[1], canvas[0]), np.float32))
        return identify(outputs, canvas)
    except ModelError as error:
        raise ModelError(f"{path or 'network'}: {error}") from None


def _resolve(model: str | Path | None, runtime: str | None) -> str | Path:
    """The file or the address that a model is to be opened from."""
    suffixes: tuple[str, ...] = weights.SUFFIXES
    if runtime is not None:
        suffixes = next(row.suffixes for row in FORMATS if row.name == runtime)
    if model is None:
        return _embedded(suffixes, runtime)
    if is_address(model):
        return model
    path = Path(model)
    try:
        mode = path.stat().st_mode if str(model) else None
    except FileNotFoundError:
        mode = None
    except (OSError, ValueError) as error:
        raise ModelError(f"{model}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if mode is not None and stat.S_ISDIR(mode):
        raise ModelError(f"{path}: is a folder, not a network")
    if mode is not None and not network.is_description(path):
        return path
    if path.suffix in SUFFIXES:
        raise ModelError(f"{path}: there is no such file")
    return network.find_weights(model, suffixes)[0]


def _embedded(suffixes: tuple[str, ...], runtime: str | None) -> Path:
    for suffix in suffixes:
        if suffix in weights.EMBEDDED:
            return weights.embedded(suffix)
    raise ModelError(
        f"runtime: {runtime} has no weights that ship with the package; name a file that `scrfd export` made"
    )
