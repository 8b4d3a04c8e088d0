"""The graph in the making: names never clash, constants are shared, scalars stay scalars."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime

from scrfdkit.export.graph import FLOAT, Graph


def test_names_never_clash() -> None:
    graph = Graph(17)
    names = [graph.add("Relu", "x", name=name) for name in ("relu", "relu_1", "", "relu", "relu_1", "")]
    assert len(set(names)) == len(names)
    assert names[:2] == ["relu", "relu_1"]


def test_constants_of_one_value_are_one() -> None:
    graph = Graph(17)
    assert graph.whole(1, 2) == graph.whole(1, 2)
    assert len({graph.whole(1), graph.whole(2), graph.number(1), graph.floats(1.0), graph.floats([1.0])}) == 5
    weight = np.ones(2, np.float32)
    assert graph.constant(weight, "a") == graph.constant(weight.copy(), "a") == "a"


def test_a_small_model() -> None:
    graph = Graph(13)
    graph.input("x", FLOAT, ["n", 3])
    high, places = graph.add_many("TopK", ["x", graph.whole(1)], 2, axis=1)
    graph.add("Range", graph.number(0), graph.number(3), graph.number(1))
    graph.output("best", graph.add("Reshape", high, graph.whole(-1)), FLOAT, ["n"])
    graph.output("where", graph.add("Cast", places, to=FLOAT), FLOAT, ["n", 1])
    model = graph.model("small", {"key": "value"})
    onnx.checker.check_model(model, full_check=True)
    assert (model.opset_import[0].version, model.metadata_props[0].value) == (13, "value")
    assert {tuple(i.dims) for i in model.graph.initializer} == {(1,), ()}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    best, where = session.run(None, {"x": np.array([[1, 5, 2], [7, 0, 1]], np.float32)})
    assert (best.tolist(), where.tolist()) == ([5, 7], [[1], [0]])


def test_an_output_may_be_read_by_others_too() -> None:
    graph = Graph(17)
    graph.input("x", FLOAT, [1])
    middle = graph.add("Relu", "x")
    last = graph.add("Neg", middle)
    graph.output("middle", middle, FLOAT, [1])
    graph.output("last", last, FLOAT, [1])
    onnx.checker.check_model(graph.model("small", {}), full_check=True)
