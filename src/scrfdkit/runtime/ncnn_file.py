"""ncnn's .param and .bin files, looked through before ncnn sees them: it reads past the end of what does not fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from scrfdkit.errors import ModelError

MAGIC = "7767517"
Shape: TypeAlias = "tuple[int, int, int]"
"""Channels, height, width."""

_MOST_BYTES, _MOST_LAYERS, _MOST_NUMBERS = 4 << 20, 4096, 1 << 29
_WORD = re.compile(r"[!-~]{1,255}")
_NUMBER = re.compile(r"-?\d{1,9}(\.\d+)?([eE][-+]?\d{1,3})?")

# What a parameter may be, by its number, for each kind of layer; those that are absent may be 0 only. Larger networks
# of this family stay far below.
_ANY, _FLAG, _SMALL, _FEW = range(1 << 30), range(2), range(1, 32), range(1, 9)
_CONV = {
    0: range(1, 1 << 16), 1: _SMALL, 11: _SMALL, 2: _FEW, 12: _FEW, 3: _FEW, 13: _FEW, 4: range(32), 14: range(32),
    15: range(32), 16: range(32), 5: _FLAG, 6: _ANY, 9: (0, 1, 4),
}  # fmt: skip
_KNOWN: Mapping[str, Mapping[int, Sequence[int] | None]] = {
    "Input": {0: _ANY, 1: _ANY, 2: (0, 3)},
    "Convolution": _CONV,
    "ConvolutionDepthWise": {**_CONV, 7: range(1, 1 << 16)},
    "Pooling": {0: _FLAG, 1: _SMALL, 11: _SMALL, 2: _FEW, 12: _FEW, 5: _FLAG, 6: _FLAG},
    "GroupNorm": {0: range(1, 1 << 16), 1: range(1, 1 << 16), 2: None, 3: _FLAG},
    "BinaryOp": {0: range(4), 1: _FLAG, 2: None},
    "Interp": {0: (1, 2), 1: None, 2: None, 6: _FLAG},
    "ReLU": {0: None},
    "Sigmoid": {},
    "Split": {},
}
"""None: any number, whole or not."""
_TAGS = {0: 4, 0x0002C056: 4, 0x01306B47: 2}
"""Bytes a number by what stands before a convolution's weights: float32, float32 again, float16."""


@dataclass(frozen=True)
class Layer:
    """kind: ncnn's name of it. sources, results: names of blobs. settings: numbers as they are written."""

    kind: str
    name: str
    sources: tuple[str, ...]
    results: tuple[str, ...]
    settings: Mapping[int, str]

    def whole(self, number: int, default: int = 0) -> int:
        """A whole number among the settings."""
        return int(self.settings.get(number, default))


@dataclass(frozen=True)
class Graph:
    """Layers in the order in which they run. The first is the one input; outputs are in the file's order."""

    layers: tuple[Layer, ...]
    outputs: tuple[str, ...]

    @property
    def input(self) -> str:
        return self.layers[0].results[0]

    @property
    def size(self) -> tuple[int, int] | None:
        """(width, height) of the input, if the file names them."""
        width, height = (self.layers[0].whole(i) for i in (0, 1))
        return (width, height) if width and height else None

    def text(self) -> str:
        """The .param file, a line a layer."""
        lines = [MAGIC, f"{len(self.layers)} {sum(len(layer.results) for layer in self.layers)}"]
        for layer in self.layers:
            counts = f"{len(layer.sources)} {len(layer.results)}"
            settings = (f"{number}={value}" for number, value in layer.settings.items())
            lines.append(" ".join([layer.kind, layer.name, counts, *layer.sources, *layer.results, *settings]))
        return "\n".join(lines) + "\n"


def read_param(path: Path) -> Graph:
    """The graph of a .param file. Raises ModelError where it is none, or has layers that are not known here."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it is larger than {_MOST_BYTES} bytes, and a network's is much smaller")
        graph = _graph(path.read_bytes().decode("ascii"))
        shapes(graph, graph.size or (256, 256))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ModelError(f"{path}: is no ncnn .param file: it is no plain text") from None
    except ValueError as error:
        raise ModelError(f"{path}: is damaged, or no ncnn network that can be run here: {error}") from None
    return graph


def check_weights(graph: Graph, path: Path) -> None:
    """Whether a .bin file has the weights of all layers, and nothing else. Raises ModelError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read, and a .param file needs it: {error.strerror or error}") from None
    place = 0
    for layer in graph.layers:
        if layer.kind.startswith("Convolution"):
            tag = int.from_bytes(data[place : place + 4], "little")
            if tag not in _TAGS:
                raise ModelError(f"{path}: is damaged, or quantised: the weights of {layer.name} are of no known kind")
            place += 4 + -(-layer.whole(6) * _TAGS[tag] // 4) * 4 + 4 * layer.whole(5) * layer.whole(0)
        elif layer.kind == "GroupNorm":
            place += 8 * layer.whole(1) * layer.whole(3, 1)
        if place > len(data):
            raise ModelError(f"{path}: is cut off, or of another network: it ends within the weights of {layer.name}")
    if place != len(data):
        raise ModelError(f"{path}: is of another network: it has {len(data)} bytes, and {place} are needed")


def shapes(graph: Graph, size: tuple[int, int]) -> dict[str, Shape]:
    """The shape of every blob for an input of (width, height). Raises ValueError where layers do not fit together."""
    found: dict[str, Shape] = {graph.input: (3, size[1], size[0])}
    for layer in graph.layers[1:]:
        shape = _SHAPES[layer.kind](layer, [found[name] for name in layer.sources])
        if min(shape) < 1 or shape[0] * shape[1] * shape[2] > _MOST_NUMBERS:
            raise ValueError(f"{layer.name} would give {shape[0]} maps of {shape[2]}x{shape[1]}")
        found |= dict.fromkeys(layer.results, shape)
    return found


def _graph(text: str) -> Graph:
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if not lines or lines[0] != [MAGIC]:
        raise ValueError(f"it does not begin with {MAGIC}")
    if len(lines) > _MOST_LAYERS:
        raise ValueError(f"it has more than {_MOST_LAYERS} layers")
    layers = tuple(_layer(words) for words in lines[2:])
    made = [name for layer in layers for name in layer.results]
    if lines[1:2] != [[str(len(layers)), str(len(made))]]:
        raise ValueError(f"its head tells another number than {len(layers)} layers and {len(made)} blobs: lines miss")
    if not layers or [layer.kind == "Input" for layer in layers] != [True, *[False] * (len(layers) - 1)]:
        raise ValueError("one input is needed, as the first layer")
    unused: dict[str, None] = {}
    for layer in layers:
        for name in layer.sources:
            if name not in unused:
                raise ValueError(f"{layer.name} reads {name}, which no layer before it makes, or another reads")
            del unused[name]
        unused |= dict.fromkeys(layer.results)
    if len(set(made)) < len(made):
        raise ValueError("two layers make a blob of one name")
    return Graph(layers, tuple(unused))


def _layer(words: Sequence[str]) -> Layer:
    if len(words) < 4 or not all(_WORD.fullmatch(word) for word in words):
        raise ValueError(f"{' '.join(words)[:60]!r} is no layer")
    kind, name, *counts = words[:4]
    if kind not in _KNOWN:
        raise ValueError(f"{name} is a layer of the kind {kind[:40]}, and these are known: {', '.join(_KNOWN)}")
    if not all(re.fullmatch(r"\d{1,2}", count) for count in counts):
        raise ValueError(f"{name} does not say how many blobs it reads and makes")
    middle = 4 + int(counts[0])
    end = middle + int(counts[1])
    layer = Layer(kind, name, tuple(words[4:middle]), tuple(words[middle:end]), dict(_settings(kind, words[end:])))
    many = 1 if kind != "BinaryOp" or layer.whole(1) else 2
    if len(layer.sources) != (0 if kind == "Input" else many) or len(words) < end:
        raise ValueError(f"{name} reads {len(layer.sources)} blobs")
    if not layer.results or (len(layer.results) > 1 and kind != "Split"):
        raise ValueError(f"{name} makes {len(layer.results)} blobs")
    return layer


def _settings(kind: str, words: Sequence[str]) -> Iterator[tuple[int, str]]:
    for word in words:
        key, _, value = word.partition("=")
        if not re.fullmatch(r"\d{1,2}", key) or not _NUMBER.fullmatch(value):
            raise ValueError(f"{kind} has the setting {word[:40]}, which is not known")
        allowed = _KNOWN[kind].get(int(key), (0,))
        if allowed is not None and not (re.fullmatch(r"\d+", value) and int(value) in allowed):
            raise ValueError(f"{kind} has the setting {word[:40]}, which cannot be run here")
        yield int(key), value


def _window(layer: Layer, shape: Shape, pads: tuple[int, int]) -> tuple[int, int]:
    """Height and width of what a convolution or pooling gives. pads: above and below, left and right, together."""
    sides = []
    for side, pad, first in zip(shape[1:], pads, (10, 0), strict=True):
        kernel, stride = (layer.whole(first + i, layer.whole(i, 1)) for i in (1, 2 if layer.kind == "Pooling" else 3))
        reach = 1 if layer.kind == "Pooling" else layer.whole(first + 2, layer.whole(2, 1))
        rest = side + pad - reach * (kernel - 1) - 1
        if rest < 0:
            raise ValueError(f"{layer.name} has a window larger than its maps")
        up = stride - 1 if layer.kind == "Pooling" and not layer.whole(5) else 0
        sides.append((rest + up) // stride + 1)
    return sides[0], sides[1]


def _convolved(layer: Layer, sources: Sequence[Shape]) -> Shape:
    (shape,) = sources
    out, groups = layer.whole(0), layer.whole(7, 1)
    width = layer.whole(1)
    height = layer.whole(11, width)
    if shape[0] % groups or out % groups or layer.whole(6) != shape[0] // groups * out * width * height:
        raise ValueError(f"{layer.name} has {layer.whole(6)} weights, which do not fit {shape[0]} and {out} maps")
    left = layer.whole(4)
    top = layer.whole(14, left)
    return out, *_window(layer, shape, (top + layer.whole(16, top), left + layer.whole(15, left)))


def _pooled(layer: Layer, sources: Sequence[Shape]) -> Shape:
    (shape,) = sources
    return shape[0], *_window(layer, shape, (0, 0))


def _normed(layer: Layer, sources: Sequence[Shape]) -> Shape:
    (shape,) = sources
    if layer.whole(1) != shape[0] or shape[0] % layer.whole(0, 1):
        raise ValueError(f"{layer.name} is for {layer.whole(1)} maps in {layer.whole(0, 1)} groups, not for {shape[0]}")
    return shape


def _same(layer: Layer, sources: Sequence[Shape]) -> Shape:
    if len(set(sources)) > 1:
        raise ValueError(f"{layer.name} reads blobs of different shapes: {' and '.join(map(str, sources))}")
    return sources[0]


def _enlarged(layer: Layer, sources: Sequence[Shape]) -> Shape:
    (shape,) = sources
    down, across = (float(layer.settings.get(i, "1")) for i in (1, 2))
    if not all(factor in (1, 2, 4) for factor in (down, across)):
        raise ValueError(f"{layer.name} enlarges {across:g} and {down:g} times; only 1, 2 and 4 can be run here")
    return shape[0], shape[1] * int(down), shape[2] * int(across)


_SHAPES: Mapping[str, Callable[[Layer, Sequence[Shape]], Any]] = {
    "Convolution": _convolved,
    "ConvolutionDepthWise": _convolved,
    "Pooling": _pooled,
    "GroupNorm": _normed,
    "Interp": _enlarged,
    "BinaryOp": _same,
    "ReLU": _same,
    "Sigmoid": _same,
    "Split": _same,
}
