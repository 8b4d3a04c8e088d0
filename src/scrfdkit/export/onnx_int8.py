"""Static int8 for an ONNX graph: weights in 8 bits a channel, activations in 8 bits a tensor, as pairs of
QuantizeLinear and DequantizeLinear that runtimes turn into arithmetic on integers.

Activations are unsigned, which is what the instructions of CPUs multiply with signed weights, and asymmetric, so that
no half of the numbers is wasted behind a ReLU. Their ranges are the least and the largest value that a tensor has on
the calibration pictures: cutting off rare values costs accuracy in these networks, because these are large faces.
The last convolutions, whose results are distances and logits, stay in float, and so do group norms.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from scrfdkit.errors import ModelError
from scrfdkit.export.onnx_precision import Part, network_of, replaced, rewired
from scrfdkit.runtime.ort import start
from scrfdkit.types import Floats

OPSET = 13
"""The first in which weights can have a scale a channel."""

_LEVELS = 255
_STEEPEST = 127  # of weights: -128 is left out, so that they are symmetric
_LARGEST_BIAS = 2**30  # in steps of an int32 accumulator, which holds the products beside it


@dataclass(frozen=True)
class Steps:
    """A tensor's numbers are scale * (uint8 - zero)."""

    scale: float
    zero: int

    @staticmethod
    def over(least: float, largest: float) -> Steps:
        """From least to largest, with 0 exactly on a step, as padding needs it."""
        least, largest = min(least, 0.0), max(largest, 0.0)
        scale = float(np.float32(largest - least) / np.float32(_LEVELS)) or 1.0
        return Steps(scale, round(-least / scale))


def quantise(model: Any, blobs: Iterable[Floats]) -> Any:
    """A copy of a graph that `export.onnx.build` made, with its network in int8.

    blobs: (B, 3, H, W) float32 of typical pictures, which are looked at one after the other. The same blobs give the
    same bytes. Raises ModelError where the network gives no numbers for them.
    """
    part = network_of(model)
    inner = [node for node in part.nodes if node.name not in _last(part)]
    names = held(inner)
    ranges = observe(model, part, names, blobs)
    steps = {name: Steps.over(*ranges[name]) for name in names}
    for node in inner:
        if node.op_type in ("MaxPool", "Resize"):  # these only move numbers, and runtimes want to see that
            steps[node.output[0]] = steps[node.input[0]]
    return _rewrite(model, part, {node.name for node in inner}, steps)


def _last(part: Part) -> set[str]:
    """Names of the convolutions that no other one reads from."""
    read: set[str] = set()
    found = set()
    for node in reversed(part.nodes):
        if node.op_type == "Conv" and not read.intersection(node.output):
            found.add(node.name)
        read.update(node.input)
    return found


def held(nodes: list[Any]) -> list[str]:
    """Names of the tensors that are kept in 8 bits: what convolutions read and write, and what additions, pools and
    enlargements make of such. Of a result that only a ReLU reads, what that one makes of it."""
    readers: dict[str, list[Any]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)

    def settled(name: str) -> str:
        after = readers.get(name, [])
        return str(after[0].output[0]) if [n.op_type for n in after] == ["Relu"] else name

    found: dict[str, None] = {}
    for node in nodes:
        sources = node.input[:1] if node.op_type != "Add" else node.input
        if node.op_type == "Conv":
            found |= dict.fromkeys((node.input[0], settled(node.output[0])))
        elif node.op_type in ("Add", "MaxPool", "AveragePool", "Resize") and all(name in found for name in sources):
            found[settled(node.output[0])] = None
    return list(found)


def observe(model: Any, part: Part, names: list[str], blobs: Iterable[Floats]) -> dict[str, tuple[float, float]]:
    """The least and the largest value of each of a network's tensors over all blobs. Only these leave the runtime, so
    that memory does not grow. Raises ModelError for what is no number."""
    nodes = list(part.nodes)
    for kind in ("Min", "Max"):
        nodes += [helper.make_node(f"Reduce{kind}", [name], [f"{name}.{kind}"], keepdims=0) for name in names]
    outputs = [f"{name}.{kind}" for name in names for kind in ("Min", "Max")]
    graph = helper.make_graph(
        nodes,
        "ranges",
        [helper.make_tensor_value_info(part.blob, TensorProto.FLOAT, ["batch", 3, "height", "width"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, []) for name in outputs],
        list(model.graph.initializer),
    )
    probe = helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    session = start(probe.SerializeToString())
    found = np.array([np.inf, -np.inf]) * np.ones((len(names), 1))
    for blob in blobs:
        values = np.array(session.run(outputs, {part.blob: blob}), np.float64).reshape(-1, 2)
        found[:, 0] = np.minimum(found[:, 0], values[:, 0])
        found[:, 1] = np.maximum(found[:, 1], values[:, 1])
    for name, row in zip(names, found, strict=True):
        if not np.isfinite(row).all():
            raise ModelError(f"{name}: is not finite on the calibration pictures, so that it has no range for int8")
    return {name: (float(row[0]), float(row[1])) for name, row in zip(names, found, strict=True)}


def _rewrite(model: Any, part: Part, inner: set[str], steps: Mapping[str, Steps]) -> Any:
    constants, nodes = dict(part.constants), []
    places: dict[str, str] = {}

    def pair(source: str, result: str, name: str) -> list[Any]:
        rule = steps[name]
        constants[f"{name}.scale"] = np.array(rule.scale, np.float32)
        constants[f"{name}.zero"] = np.array(rule.zero, np.uint8)
        extra = [f"{name}.scale", f"{name}.zero"]
        return [
            helper.make_node("QuantizeLinear", [source, *extra], [f"{name}.int8"], f"{name}.int8"),
            helper.make_node("DequantizeLinear", [f"{name}.int8", *extra], [result], f"{name}.float"),
        ]

    if part.blob in steps:
        places[part.blob] = f"{part.blob}.held"
        nodes += pair(part.blob, places[part.blob], part.blob)
    for node in part.nodes:
        inputs = [places.get(name, name) for name in node.input]
        if node.op_type == "Conv" and node.name in inner:
            made, inputs[1:] = _weights(node, part.constants, steps[node.input[0]].scale, constants)
            nodes += made
        (result,) = node.output
        if result not in steps:
            nodes.append(rewired(node, inputs, [result]))
            continue
        nodes.append(rewired(node, inputs, [f"{result}.exact"]))
        nodes += pair(f"{result}.exact", result, result)
    return replaced(model, part, nodes, constants)


def _weights(
    conv: Any, given: Mapping[str, NDArray[Any]], scale: float, constants: dict[str, NDArray[Any]]
) -> tuple[list[Any], list[str]]:
    """The operations that give a convolution its weight and bias, and the names of these. scale: of its input.

    A bias counts in products of a step of the input and one of the weights. Where levels share weights, each has a
    copy.
    """
    weight = given[conv.input[1]].astype(np.float64)
    bias = given[conv.input[2]].astype(np.float64) if len(conv.input) > 2 else np.zeros(len(weight))
    largest = np.abs(weight.reshape(len(weight), -1)).max(axis=1)
    # A channel with hardly any weights may have a bias that int32 cannot count in such small steps.
    least = np.maximum(np.abs(bias) / (scale * _LARGEST_BIAS), 1e-12)
    steps = np.maximum(largest / _STEEPEST, least).astype(np.float32)
    products = steps * np.float32(scale)
    whole = np.rint(weight / steps[:, None, None, None]).clip(-_STEEPEST, _STEEPEST).astype(np.int8)
    values = {"weight": (whole, steps)}
    if len(conv.input) > 2:
        values["bias"] = (np.rint(bias / products).astype(np.int32), products)
    nodes = []
    for kind, (numbers, factors) in values.items():
        name = f"{conv.name}.{kind}"
        zeros = np.zeros(len(factors), numbers.dtype)
        constants |= {f"{name}.int": numbers, f"{name}.scale": factors, f"{name}.zero": zeros}
        parts = [f"{name}.int", f"{name}.scale", f"{name}.zero"]
        nodes.append(helper.make_node("DequantizeLinear", parts, [name], f"{name}.float", axis=0))
    return nodes, [str(node.output[0]) for node in nodes]
