"""The network's layers as ONNX operations, found by tracing `SCRFD.forward`.

Only operations that every converter takes are used. Sizes are never computed at run time: inputs are multiples of 32,
so that a map is exactly twice as large as the next, and reshaping copies the axes it leaves alone.
"""

from __future__ import annotations

import operator
import re
from typing import Any

import numpy as np
from torch import Tensor, fx, nn
from torch.nn import functional as F

from scrfdkit.errors import ModelError
from scrfdkit.export.graph import Graph
from scrfdkit.model.net import SCRFD

_STRIDE_KEY = re.compile(r"\((\d+), \d+\)")


def add_network(graph: Graph, net: SCRFD, blob: str) -> list[str]:
    """Adds a fused network that reads `blob`, (B, 3, H, W); returns the names of its maps in the order of `forward`.

    Raises ModelError where the network has an operation that is not known here.
    """
    modules = dict(net.named_modules())
    done: dict[fx.Node, Any] = {}
    for node in fx.Tracer().trace(net).nodes:
        target = str(node.target)
        if node.op == "placeholder":
            done[node] = blob
        elif node.op == "get_attr":
            done[node] = _parameter(graph, net.get_parameter(target), target)
        elif node.op == "call_module":
            done[node] = _module(graph, modules[target], target, node.name, done[_source(node)])
        elif node.op == "call_function":
            done[node] = _function(graph, node, done)
        elif node.op == "output":
            (maps,) = node.args
            assert isinstance(maps, list)
            return [done[m] for m in maps if isinstance(m, fx.Node)]
    raise AssertionError("a trace ends with its output")


def _source(node: fx.Node) -> fx.Node:
    (source,) = node.args
    assert isinstance(source, fx.Node)
    return source


def _parameter(graph: Graph, value: Tensor, key: str) -> str:
    """A weight under its own key, without the parentheses and spaces of "(8, 8)", which some converters trip over."""
    return graph.constant(value.detach().numpy(), _STRIDE_KEY.sub(r"\1", key))


def _module(graph: Graph, module: nn.Module, key: str, name: str, x: str) -> str:
    match module:
        case nn.Identity():
            return x
        case nn.ReLU():
            return graph.add("Relu", x, name=name)
        case nn.Conv2d():
            return _conv(graph, module, key, name, x)
        case nn.GroupNorm():
            return _group_norm(graph, module, key, name, x)
        case nn.MaxPool2d() | nn.AvgPool2d():
            # Whole windows only, because sizes are even: rounding up or down is the same.
            op = "MaxPool" if isinstance(module, nn.MaxPool2d) else "AveragePool"
            assert module.padding == 0
            return graph.add(op, x, name=name, kernel_shape=_pair(module.kernel_size), strides=_pair(module.stride))
        case _:
            raise ModelError(f"{key}: {type(module).__name__} has no form in ONNX here; a fused network is needed")


def _conv(graph: Graph, conv: nn.Conv2d, key: str, name: str, x: str) -> str:
    weights = [_parameter(graph, conv.weight, f"{key}.weight")]
    if conv.bias is not None:
        weights.append(_parameter(graph, conv.bias, f"{key}.bias"))
    assert not isinstance(conv.padding, str)
    return graph.add(
        "Conv",
        x,
        *weights,
        name=name,
        kernel_shape=list(conv.kernel_size),
        strides=list(conv.stride),
        pads=list(conv.padding) * 2,
        dilations=list(conv.dilation),
        group=conv.groups,
    )


def _group_norm(graph: Graph, norm: nn.GroupNorm, key: str, name: str, x: str) -> str:
    """As an instance norm over maps in which the channels of a group lie below each other.

    GroupNormalization came with opset 18 and changed its meaning with 21; converters take this form at any. A 0 in a
    shape copies that axis, so that batch and width may stay open, and the height follows from the rest.
    """
    groups, channels = norm.num_groups, norm.num_channels
    stacked = graph.add("Reshape", x, graph.whole(0, groups, -1, 0), name=f"{name}.split")
    ones, zeros = (graph.floats([value] * groups) for value in (1.0, 0.0))
    plain = graph.add("InstanceNormalization", stacked, ones, zeros, name=f"{name}.norm", epsilon=norm.eps)
    back = graph.add("Reshape", plain, graph.whole(0, channels, -1, 0), name=f"{name}.join")
    factor, offset = (p.detach().reshape(-1, 1, 1) for p in (norm.weight, norm.bias))
    scaled = graph.add("Mul", back, _parameter(graph, factor, f"{key}.weight"), name=f"{name}.scale")
    return graph.add("Add", scaled, _parameter(graph, offset, f"{key}.bias"), name=name)


def _function(graph: Graph, node: fx.Node, done: dict[fx.Node, Any]) -> Any:
    inputs = [done[argument] for argument in node.args if isinstance(argument, fx.Node)]
    if node.target in (operator.add, operator.iadd):
        return graph.add("Add", *inputs, name=node.name)
    if node.target is operator.mul:
        return graph.add("Mul", *inputs, name=node.name)
    if node.target is F.interpolate and node.kwargs["mode"] == "nearest":
        scales = graph.constant(np.array([1, 1, 2, 2], np.float32))
        how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        unused = graph.floats([]) if graph.opset < 13 else ""
        return graph.add("Resize", inputs[0], unused, scales, name=node.name, **how)
    if node.target in (getattr, operator.getitem):
        return None  # the size that a map is enlarged to
    raise ModelError(f"{node.name}: {node.target} has no form in ONNX here")


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)
