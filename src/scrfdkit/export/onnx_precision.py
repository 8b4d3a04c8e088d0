"""Which part of an ONNX graph is the network, and that part in float16.

The part runs from the first convolution to the last. What makes the blob before it, and sigmoids, decoding and
suppression behind it, stay in float32: they cost little, and half precision would round pixels of a box away.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from scrfdkit.errors import ModelError

HALF = ".half"
"""Ends the name of a tensor's float16 twin."""


@dataclass(frozen=True, eq=False)
class Part:
    """The network in a graph. nodes: in order. blob: the one tensor that it reads. shared: what it makes or reads and
    the rest of the graph reads too, or puts out. constants: all of the graph, by name."""

    nodes: list[Any]
    blob: str
    shared: frozenset[str]
    constants: dict[str, NDArray[Any]]


def network_of(model: Any) -> Part:
    """The network in a graph that `export.onnx.build` made: its convolutions and whatever lies between two of them."""
    nodes = list(model.graph.node)
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    behind: set[str] = set()  # tensors that come from a convolution
    for node in nodes:
        if node.op_type == "Conv" or behind.intersection(node.input):
            behind.update(node.output)
    before: set[str] = set()  # tensors that one comes from
    for node in reversed(nodes):
        if node.op_type == "Conv" or before.intersection(node.output):
            before.update(node.input)
    inner = [n for n in nodes if n.op_type == "Conv" or (behind & set(n.output) and before & set(n.output))]
    names = {node.name for node in inner}
    shared = {name for node in nodes if node.name not in names for name in node.input}
    shared.update(output.name for output in model.graph.output)
    made = {name for node in inner for name in node.output}
    (blob,) = {name for node in inner for name in node.input if name} - made - set(constants)
    return Part(inner, blob, frozenset(shared), constants)


def halve(model: Any) -> Any:
    """A copy whose network has weights and arithmetic in float16; inputs and outputs stay as they are.

    Raises ModelError, naming the weight, for one that is too large for float16.
    """
    part = network_of(model)
    constants = dict(part.constants)
    nodes = [helper.make_node("Cast", [part.blob], [part.blob + HALF], part.blob + HALF, to=TensorProto.FLOAT16)]

    def half(name: str) -> str:
        twin = name + HALF if name in part.shared or name == part.blob else name
        value = part.constants.get(name)
        if value is None:
            return twin
        if value.dtype != np.float32:
            return name
        constants[twin] = _half(value, name)
        return twin

    for node in part.nodes:
        halved = 1 if node.op_type == "Resize" else len(node.input)  # its factors must be float32
        inputs = [half(name) if name and i < halved else name for i, name in enumerate(node.input)]
        outputs = [half(name) for name in node.output]
        nodes.append(rewired(node, inputs, outputs))
        borders = [(twin, name) for twin, name in zip(outputs, node.output, strict=True) if twin != name]
        nodes += [helper.make_node("Cast", [twin], [name], twin, to=TensorProto.FLOAT) for twin, name in borders]
    return replaced(model, part, nodes, constants)


def rewired(node: Any, inputs: Iterable[str], outputs: Iterable[str]) -> Any:
    """A copy of an operation between other tensors."""
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.input[:] = inputs
    copy.output[:] = outputs
    return copy


def _half(value: NDArray[np.float32], name: str) -> NDArray[np.float16]:
    with np.errstate(over="ignore"):
        found = value.astype(np.float16)
    if not np.isfinite(found).all():
        raise ModelError(f"{name}: has a weight of {np.abs(value).max():.3g}, and float16 ends at 65504")
    return found


def replaced(model: Any, part: Part, nodes: Iterable[Any], constants: dict[str, NDArray[Any]]) -> Any:
    """A copy of a graph with other operations in place of its network, and those of the constants that are read."""
    names = {node.name for node in part.nodes}
    every: list[Any] = []
    for node in model.graph.node:
        if node.name not in names:
            every.append(node)
        elif node.name == part.nodes[0].name:
            every += nodes
    read = {name for node in every for name in node.input}
    copy = ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:], copy.graph.initializer[:]
    copy.graph.node.extend(every)
    copy.graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in constants.items() if name in read)
    return copy
