"""An ONNX graph in the making: operations are added one by one, each gives the name of its result."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from scrfdkit import __version__

FLOAT, UINT8, INT64 = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT64

Side = int | str
"""Length of an axis: a number, or a name where it is open."""


class Graph:
    """Operations of one opset, constants, inputs and outputs, in the order in which they were added."""

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self._constants: dict[str, NDArray[Any]] = {}
        self._used: set[str] = set()

    def add(self, op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """An operation with one result, whose name is given back. name: "" for one after the operation."""
        return self.add_many(op, inputs, 1, name, **attributes)[0]

    def add_many(
        self, op: str, inputs: Sequence[str], num_results: int, name: str = "", **attributes: Any
    ) -> list[str]:
        """An operation with several results."""
        name = self._fresh(name or op.lower())
        results = [name] if num_results == 1 else [f"{name}.{i}" for i in range(num_results)]
        self.nodes.append(helper.make_node(op, list(inputs), results, name=name, **attributes))
        return results

    def constant(self, value: NDArray[Any], name: str = "") -> str:
        """A constant. One with the same name and value, or without name and of the same value, is shared."""
        value = np.asarray(value, order="C")
        if name:
            assert name not in self._constants or np.array_equal(self._constants[name], value), name
        else:
            for known, other in self._constants.items():
                if other.dtype == value.dtype and other.shape == value.shape and np.array_equal(other, value):
                    return known
            name = self._fresh("constant")
        self._constants[name] = value
        return name

    def whole(self, *values: int) -> str:
        """A constant of int64 numbers, as shapes and axes are: (N,)."""
        return self.constant(np.array(values, np.int64))

    def number(self, value: int) -> str:
        """A constant int64 number without axes."""
        return self.constant(np.array(value, np.int64))

    def floats(self, values: float | Sequence[float]) -> str:
        """A constant of float32 numbers: a scalar or (N,)."""
        return self.constant(np.array(values, np.float32))

    def input(self, name: str, kind: int, shape: Sequence[Side]) -> str:
        """kind: FLOAT, UINT8 or INT64."""
        self.inputs.append(helper.make_tensor_value_info(name, kind, list(shape)))
        return name

    def output(self, name: str, source: str, kind: int, shape: Sequence[Side]) -> None:
        """Makes a result an output, under another name."""
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [name if old == source else old for old in names]
        self.outputs.append(helper.make_tensor_value_info(name, kind, list(shape)))

    def model(self, name: str, metadata: dict[str, str]) -> Any:
        """The ModelProto, of the oldest IR version that may hold the opset."""
        initializers = [numpy_helper.from_array(value, key) for key, value in self._constants.items()]
        graph = helper.make_graph(self.nodes, name, self.inputs, self.outputs, initializers)
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="scrfdkit", producer_version=__version__)
        model.ir_version = helper.find_min_ir_version_for(opsets)
        helper.set_model_props(model, metadata)
        return model

    def _fresh(self, name: str) -> str:
        free = next(n for i in count() if (n := f"{name}_{i}" if i else name) not in self._used)
        self._used.add(free)
        return free
