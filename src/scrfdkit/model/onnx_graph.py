"""Reads the convolutions of an ONNX graph, whatever its names, node order, layout and degree of folding.

A convolution is known by its structure: the shape of its weight, stride, groups, the groups of the norm behind it,
and, recursively, the convolutions and pools that its input comes from. Pools count because only a pool tells the
convolution of a shortcut from that of the neck where both read the same map (base_10g, stage 3). `plan_sites` gives
the same for a spec, so that equal signatures mean the same place in the network.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scrfdkit.errors import MissingExtraError, WeightError
from scrfdkit.model.header import PathLike
from scrfdkit.model.plan import Plan

Array = NDArray[np.float32]
Signature = Hashable


_MOVING = {"Reshape", "Transpose", "Identity", "Cast", "Flatten", "Unsqueeze", "Squeeze"}
_STANDARD = {"", "ai.onnx"}
_OLDEST_OPSET = 7
_ROUNDED = {"QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger"}
_NORMS = {"BatchNormalization", "InstanceNormalization", "GroupNormalization"}


@dataclass
class Site:
    """A convolution of a graph with what follows it up to the next activation.

    scale: product of the constant single numbers that multiply its output. norm: weight and bias of a group norm.
    groups: of that norm, 0 without one.
    """

    weight: Array
    bias: Array
    scale: float = 1.0
    norm: tuple[Array, Array] | None = None
    groups: int = 0


@dataclass
class Signatures:
    """Hands out one small number a structure; graphs that are compared share one object."""

    known: dict[Signature, int] = field(default_factory=dict)

    def of(self, weight: tuple[int, ...], stride: int, groups: int, norm: int, sources: frozenset[int]) -> int:
        """Of a convolution that reads from `sources`."""
        return self.known.setdefault((weight, stride, groups, norm, sources), len(self.known))

    def of_pool(self, stride: int, sources: frozenset[int]) -> frozenset[int]:
        """What reads from a pool reads from this; a pool of stride 1 is nothing."""
        return sources if stride == 1 else frozenset({self.known.setdefault((stride, sources), len(self.known))})


def plan_sites(walked: Plan, signatures: Signatures) -> dict[int, tuple[str, str, str]]:
    """Signature -> names of the convolution, of its norm and of its scale ("" for none), for every use in a plan."""
    follower = {op.inputs[0]: op for op in walked.ops if op.kind in ("bn", "gn", "scale")}
    sources: dict[int, frozenset[int]] = {0: frozenset()}
    sites: dict[int, tuple[str, str, str]] = {}
    for op in walked.ops:
        if op.kind != "conv":
            incoming = frozenset().union(*(sources[i] for i in op.inputs))
            sources[op.output] = signatures.of_pool(op.stride, incoming) if op.kind == "pool" else incoming
            continue
        after = follower.get(op.output)
        norm = after.groups if after and after.kind == "gn" else 0
        number = signatures.of(op.params[0][1], op.stride, op.groups, norm, sources[op.inputs[0]])
        assert number not in sites, f"two convolutions look alike: {op.name}"
        scale = after.name if after and after.kind == "scale" else ""
        sites[number] = (op.name, after.name if norm and after else "", scale)
        sources[op.output] = frozenset({number})
    return sites


def read_sites(path: PathLike, signatures: Signatures) -> dict[int, Site]:
    """Signature -> convolution, for every convolution of an ONNX file that shares no structure with another.

    Raises WeightError for a file that is no ONNX network, or whose convolutions cannot be told apart, and
    MissingExtraError without the package onnx.
    """
    graph = _Graph(path)
    sources: dict[str, frozenset[int]] = {}
    sites: dict[int, Site] = {}
    for node in graph.ordered():
        incoming = frozenset().union(*(sources.get(name, frozenset()) for name in node.input))
        if node.op_type in ("Shape", "Size"):
            incoming = frozenset()  # sizes, as resizing and reshaping use them, carry no features
        stride = graph.attribute(node, "strides", [1, 1])[0]
        if node.op_type in ("AveragePool", "MaxPool"):
            incoming = signatures.of_pool(stride, incoming)
        if node.op_type == "Conv":
            site = graph.site(node)
            groups = graph.attribute(node, "group", 1)
            number = signatures.of(site.weight.shape, stride, groups, site.groups, incoming)
            if number in sites:
                raise WeightError(f"{path}: not an SCRFD network: two of its convolutions have the same place")
            sites[number] = site
            incoming = frozenset({number})
        sources.update(dict.fromkeys(node.output, incoming))
    return sites


def load_onnx(path: PathLike) -> Any:
    """The parsed file. Raises WeightError where it is no ONNX file, and MissingExtraError without the package onnx."""
    try:
        import onnx
    except ImportError:
        raise MissingExtraError("importing the weights of an ONNX file", "torch", "onnx") from None
    try:
        return onnx.load(str(path))
    except Exception as error:  # protobuf and onnx raise many kinds
        raise WeightError(f"{path}: not a readable ONNX file: {str(error)[:200]}") from None


def _check(path: PathLike, model: Any) -> None:
    """Raises WeightError for operations and inputs that no exported network has: their meaning would be a guess."""
    import onnx

    if not model.graph.node:
        raise WeightError(f"{path}: not an ONNX network: it has no operations")
    for entry in model.opset_import:
        if entry.domain in _STANDARD and not _OLDEST_OPSET <= entry.version <= onnx.defs.onnx_opset_version():
            newest = onnx.defs.onnx_opset_version()
            raise WeightError(f"{path}: its operator set is {entry.version}; {_OLDEST_OPSET} to {newest} can be read")
    foreign = sorted({node.domain for node in model.graph.node} - _STANDARD)
    if foreign:
        raise WeightError(f"{path}: has operations of {', '.join(foreign)}, which are not ONNX's own")
    if any(node.op_type in _ROUNDED for node in model.graph.node):
        raise WeightError(f"{path}: its weights are rounded to 8 bits; use the file that it was made from")
    known = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in known]
    if len(inputs) != 1:
        raise WeightError(f"{path}: one input is needed, for pictures; it has {len(inputs)}: {', '.join(inputs[:5])}")


class _Graph:
    def __init__(self, path: PathLike) -> None:
        self.path = path
        model = load_onnx(path)
        _check(path, model)
        self.graph: Any = model.graph
        from onnx import numpy_helper

        try:
            arrays = {i.name: numpy_helper.to_array(i) for i in self.graph.initializer}
        except Exception as error:
            raise WeightError(f"{path}: not a readable ONNX file: {str(error)[:200]}") from None
        self.constants: dict[str, NDArray[Any]] = arrays
        self.readers: dict[str, list[Any]] = {}
        for node in self.ordered():
            if node.op_type == "Constant":
                value = [a for a in node.attribute if a.name == "value"]
                if value:
                    arrays[node.output[0]] = numpy_helper.to_array(value[0].t)
            elif node.op_type in _MOVING - {"Transpose"} and node.input[0] in arrays:
                array = arrays[node.input[0]]
                arrays[node.output[0]] = array if node.op_type in ("Identity", "Cast") else array.reshape(-1)
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def ordered(self) -> Iterator[Any]:
        """Nodes, each after those it reads from."""
        nodes = list(self.graph.node)
        maker = {name: i for i, node in enumerate(nodes) for name in node.output if name}
        links = {i: [maker[name] for name in node.input if name in maker] for i, node in enumerate(nodes)}
        try:
            return iter([nodes[i] for i in TopologicalSorter(links).static_order()])
        except CycleError:
            raise WeightError(f"{self.path}: not an ONNX network: its operations run in a circle") from None

    def attribute(self, node: Any, name: str, default: Any) -> Any:
        from onnx import helper

        found = [helper.get_attribute_value(a) for a in node.attribute if a.name == name]
        return found[0] if found else default

    def constant(self, name: str) -> Array | None:
        array = self.constants.get(name)
        return None if array is None else array.astype(np.float32)

    def site(self, node: Any) -> Site:
        """A convolution and all constants between it and the next activation, folded into what they belong to."""
        inputs = [self.constant(name) for name in node.input[1:3]]
        weight = inputs[0] if inputs else None
        if weight is None or weight.ndim != 4:
            raise WeightError(f"{self.path}: its convolution {node.name!r} has no constant float weight")
        bias = inputs[1] if len(inputs) > 1 else None
        site = Site(weight, np.zeros(len(weight), np.float32) if bias is None else bias)
        after = list(self._chain(node.output[0]))
        for op, value in after:
            self._absorb(site, op, value)
        kinds = [op.op_type for op, _ in after]
        if "InstanceNormalization" in kinds and not {"Mul", "Add"} <= set(kinds):
            raise WeightError(f"{self.path}: a group norm without constant weight and bias follows {node.name!r}")
        return site

    def _chain(self, name: str) -> Iterator[tuple[Any, Array | None]]:
        """The affine operations that a convolution's output runs through, each Mul and Add with its constant."""
        while True:
            readers = [node for node in self.readers.get(name, []) if node.op_type not in ("Shape", "Size")]
            if len(readers) != 1:
                return
            node = readers[0]
            if node.op_type in ("Mul", "Add"):
                (other,) = [i for i in node.input if i != name] or [name]
                value = self.constant(other)
                if value is None and node.op_type == "Mul":
                    raise WeightError(f"{self.path}: not an SCRFD network: two feature maps are multiplied")
                if value is None:
                    return
                yield node, value
            elif node.op_type in _NORMS:
                yield node, None
            elif node.op_type not in _MOVING:
                return
            name = node.output[0]

    def _absorb(self, site: Site, node: Any, value: Array | None) -> None:
        channels = len(site.weight)
        if value is not None:
            if node.op_type == "Mul" and value.size == 1 and site.norm is None:
                site.scale *= float(value.reshape(()))
                return
            self._affine(site, *((value, None) if node.op_type == "Mul" else (None, value)))
            return
        if node.op_type == "BatchNormalization":
            gamma, beta, mean, variance = (self._vector(name, channels) for name in node.input[1:5])
            factor = gamma / np.sqrt(variance + self.attribute(node, "epsilon", 1e-5))
            self._affine(site, factor, beta - mean * factor)
            return
        gamma, beta = (self._vector(name, None) for name in node.input[1:3])
        site.groups = self.attribute(node, "num_groups", len(gamma))
        site.norm = (np.repeat(gamma, channels // len(gamma)), np.repeat(beta, channels // len(beta)))

    def _affine(self, site: Site, factor: Array | None, offset: Array | None) -> None:
        """y -> factor y + offset, into the norm behind the convolution if there is one, else into the convolution."""
        channels = len(site.weight)
        a = np.float32(1) if factor is None else self._spread(factor, channels)
        b = np.float32(0) if offset is None else self._spread(offset, channels)
        if site.norm is not None:
            site.norm = (site.norm[0] * a, site.norm[1] * a + b)
        else:
            column = np.broadcast_to(a, channels)
            site.weight = site.weight * column[:, None, None, None]
            site.bias = site.bias * column + b / np.float32(site.scale)

    def _spread(self, value: Array, channels: int) -> Array:
        if value.size not in (1, channels):
            raise WeightError(
                f"{self.path}: not an SCRFD network: {value.size} constants follow a convolution of {channels} channels"
            )
        return np.broadcast_to(value.reshape(-1), channels)

    def _vector(self, name: str, length: int | None) -> Array:
        value = self.constant(name)
        if value is None or value.ndim != 1 or (length is not None and len(value) != length):
            raise WeightError(f"{self.path}: a norm of this network has no constant weights of the right length")
        return value
