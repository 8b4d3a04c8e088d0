"""TensorRT and TensorRT-RTX: an engine, built from the ONNX graph for a range of batches and sizes.

Networks are strongly typed, which every version from 10 on can do and newer ones must: the graph says what is float16.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scrfdkit import atomic
from scrfdkit.errors import DeviceError, ModelError, OptionError, ScrfdError
from scrfdkit.export import heads
from scrfdkit.export.contract import Contract
from scrfdkit.export.graph import Graph
from scrfdkit.export.onnx import build
from scrfdkit.export.onnx_precision import halve
from scrfdkit.export.order import USUAL_SIZE, Order, Target
from scrfdkit.export.source import Source
from scrfdkit.layout import head_names
from scrfdkit.letterbox import MULTIPLE
from scrfdkit.runtime.base import Binding, Side
from scrfdkit.runtime.engine import KEY, RTX, Engine, Library, gpu, library
from scrfdkit.spec import ModelSpec

MAX_BATCH = 8
SIZES = ((MULTIPLE, MULTIPLE), (1280, 1280))
"""Smallest and largest (width, height) unless told otherwise: all that the detector makes of pictures by itself is in
it."""
_BEST_BATCH = 4
_SETTINGS = ("max_batch", "min_size", "max_size", "timing_cache", "compute_capability")


@dataclass(frozen=True)
class Profile:
    """The batches and (width, height) that an engine takes, and those that it is made fastest for."""

    batches: tuple[int, int, int]
    sizes: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]

    @property
    def contracts(self) -> list[Contract]:
        """Of the smallest, best and largest run."""
        return [Contract(batch=b, size=size) for b, size in zip(self.batches, self.sizes, strict=True)]


def profile_of(order: Order) -> Profile:
    """Raises OptionError, naming the setting, for one that means nothing."""
    contract, given = order.contract, order.settings
    for name, fixed in (("max_batch", contract.batch), ("min_size", contract.size), ("max_size", contract.size)):
        if fixed is not None and given.get(name) is not None:
            raise OptionError(f"{name}: means nothing where the {name[4:]} is fixed; leave one of them out")
    largest = given.get("max_batch", MAX_BATCH)
    try:
        most = contract.batch or Contract(batch=largest).batch or 1
    except OptionError:
        raise OptionError(f"max_batch: {largest!r} is no number of pictures a run") from None
    batches = (most,) * 3 if contract.batch else (1, min(most, _BEST_BATCH), most)
    if contract.size:
        return Profile(batches, (contract.size,) * 3)
    low = _size("min_size", given.get("min_size"), SIZES[0])
    high = _size("max_size", given.get("max_size"), SIZES[1])
    if low[0] > high[0] or low[1] > high[1]:
        name = "min_size" if given.get("min_size") else "max_size"
        raise OptionError(f"{name}: the smallest size, {_text(low)}, is not within the largest, {_text(high)}")
    best = [min(max(a, usual), b) for a, usual, b in zip(low, USUAL_SIZE, high, strict=True)]
    return Profile(batches, (low, (best[0], best[1]), high))


def _size(name: str, value: Any, usual: tuple[int, int]) -> tuple[int, int]:
    try:
        return Contract(size=tuple(value) if value is not None else usual).size or usual
    except OptionError as error:
        raise OptionError(f"{name}:{str(error).partition(':')[2]}") from None


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def write(source: Source, path: Path, order: Order) -> Mapping[str, str]:
    """Builds an engine. Returns what its certificate must say of it.

    Raises OptionError for a setting, ModelError where TensorRT refuses the graph, DeviceError where TensorRT has no GPU
    to build for (TensorRT-RTX needs none), MissingExtraError.
    """
    profile, found = profile_of(order), library()
    gpus = _gpus(path, found, order.settings.get("compute_capability"))
    model = build(source.net, source.info, order.contract, order.opset)
    if order.precision == "fp16":
        model = halve(model)
    cache = order.settings.get("timing_cache")
    data = _build(path, found, model.SerializeToString(), profile, gpus, Path(cache) if cache else None)
    atomic.save(path, data)
    bindings = _bindings(source.info.spec, order.contract, profile)
    return {KEY: Engine(found.name, found.version, gpus, bindings).to_json()}


def _gpus(path: Path, found: Library, wanted: str | None) -> tuple[str, ...]:
    """Compute capabilities to build for; none for those that TensorRT-RTX takes by itself."""
    if found.name != RTX:
        if wanted:
            raise OptionError(f"compute_capability: {found.name} builds for the GPU of this machine only")
        return (gpu(path)[1],)
    known = [name[2:-1] + "." + name[-1] for name in found.module.ComputeCapability.__members__ if name[:2] == "SM"]
    chosen = tuple(dict.fromkeys(word.strip() for word in wanted.split(","))) if wanted else ()
    for one in chosen:
        if one not in known:
            raise OptionError(f"compute_capability: {one!r} is not one of {', '.join(known)}")
    return chosen


def _build(
    path: Path, found: Library, model: bytes, profile: Profile, gpus: Sequence[str], cache: Path | None
) -> bytes:
    trt = found.module
    found.complaint()
    try:
        builder = trt.Builder(found.logger())
    except TypeError:  # pybind11's word for an object that could not be made
        raise DeviceError(f"{path}: {found.name} cannot build here: {found.complaint()}") from None
    # Version 11 takes the flag and does without it; one without the flag will have no other kind of network.
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, found.logger())
    if not parser.parse(model) or not network.num_outputs:
        reason = parser.get_error(0).desc() if parser.num_errors else found.complaint()
        raise ModelError(f"{path}: {found.name} cannot read the graph: {reason}")
    config = builder.create_builder_config()
    if hasattr(trt.BuilderFlag, "TF32"):  # it rounds to 10 bits what is called float32
        config.clear_flag(trt.BuilderFlag.TF32)
    if gpus and found.name == RTX:  # TensorRT has no choice but this machine's
        config.num_compute_capabilities = len(gpus)
        for index, one in enumerate(gpus):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{one.replace('.', '')}"), index)
    _add_profile(builder, config, network.get_input(0), profile)
    if cache is not None:
        _use_cache(found, config, cache)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise ModelError(f"{path}: {found.name} cannot build the engine: {found.complaint()}")
    if cache is not None:
        _save_cache(config, cache)
    return bytes(engine)


def _add_profile(builder: Any, config: Any, given: Any, profile: Profile) -> None:
    shapes = [(b, 3, height, width) for b, (width, height) in zip(profile.batches, profile.sizes, strict=True)]
    if len(set(shapes)) == 1:
        return  # nothing is open
    made = builder.create_optimization_profile()
    made.set_shape(given.name, *shapes)
    config.add_optimization_profile(made)


def _use_cache(found: Library, config: Any, path: Path) -> None:
    """Reads a timing cache, or begins one: also where another version or GPU has left the file, which TensorRT refuses
    as a whole."""
    if not hasattr(config, "create_timing_cache"):
        raise OptionError(f"timing_cache: {found.name} {found.version} has none; leave it out")
    with _deprecated():
        empty = bytes(config.create_timing_cache(b"").serialize())
    data = b""
    if atomic.exists(path):
        try:
            data = path.read_bytes()
        except OSError as error:
            raise OptionError(f"timing_cache: {path} cannot be read: {error.strerror or error}") from None
        if data and data[:4] != empty[:4]:
            raise OptionError(f"timing_cache: {path} is no timing cache, and would be overwritten; name another file")
    with _deprecated():
        read = config.create_timing_cache(data)
        if read is None or not config.set_timing_cache(read, False):
            config.set_timing_cache(config.create_timing_cache(b""), False)


def _save_cache(config: Any, path: Path) -> None:
    """Warns where it cannot be kept: the engine, which may have taken long, is there."""
    with _deprecated():
        cache = config.get_timing_cache()
        data = None if cache is None else bytes(cache.serialize())
    try:
        if data is None:
            raise ScrfdError("TensorRT has kept no times")
        atomic.save(path, data)
    except ScrfdError as error:
        warnings.warn(f"timing_cache: {error}; the next engine takes as long to build", RuntimeWarning, stacklevel=2)


def _deprecated() -> warnings.catch_warnings[None]:
    """TensorRT-RTX times nothing while it builds; its cache remains empty, and it warns about that."""
    return warnings.catch_warnings(action="ignore", category=DeprecationWarning)


def _bindings(spec: ModelSpec, contract: Contract, profile: Profile) -> tuple[Binding, ...]:
    """What the engine takes and gives, with all shapes from the smallest to the largest run."""
    spans = [_shapes(spec, replace(contract, batch=one.batch, size=one.size)) for one in profile.contracts]
    rows = []
    for (name, shape), least, best, most in zip(_shapes(spec, contract), *spans, strict=True):
        kind: Any = "input" if name == heads.BLOB else "output"
        sides = tuple(tuple(int(side) for side in span[1]) for span in (least, best, most))
        rows.append(Binding(name, kind, "float32", shape, *sides))
    return tuple(rows)


def _shapes(spec: ModelSpec, contract: Contract) -> list[tuple[str, tuple[Side, ...]]]:
    """Names and shapes of input and outputs, as the graph declares them."""
    graph = Graph(Order().opset)
    heads.add_blob(graph, contract)
    values = [f"map_{i}" for i in range(len(head_names(spec)))]
    (heads.add_maps if contract.layout == "maps" else heads.add_rows)(graph, spec, contract, values)
    declared = [(value.name, value.type.tensor_type.shape.dim) for value in (*graph.inputs, *graph.outputs)]
    return [(name, tuple(dim.dim_param or dim.dim_value for dim in dims)) for name, dims in declared]


TARGET = Target(
    name="tensorrt",
    suffix=".engine",
    layouts=("reference", "maps"),
    precisions=("fp32", "fp16"),
    open_size=True,
    open_batch=True,
    write=write,
    settings=_SETTINGS,
)
