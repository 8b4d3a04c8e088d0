"""What TFLite itself does not look at before it runs a graph: whether operations have the tensors that they take, and
quantised tensors their scales.

Damaged or hostile files would end the process otherwise, as its kernels count on them.
"""

from __future__ import annotations

from typing import Any

from ai_edge_litert import schema_py_generated as schema

_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}

_TAKES = {
    "ADD": (2, 2), "AVERAGE_POOL_2D": (1, 1), "BATCH_MATMUL": (2, 2), "BROADCAST_TO": (2, 2), "CAST": (1, 1),
    "CONCATENATION": (1, 64), "CONV_2D": (2, 3), "DEPTHWISE_CONV_2D": (2, 3), "DEQUANTIZE": (1, 1),
    "DIV": (2, 2), "EXP": (1, 1), "EXPAND_DIMS": (2, 2), "FILL": (2, 2), "FULLY_CONNECTED": (2, 3), "GATHER": (2, 2),
    "HARD_SWISH": (1, 1), "LEAKY_RELU": (1, 1), "LOGISTIC": (1, 1), "MAXIMUM": (2, 2), "MAX_POOL_2D": (1, 1),
    "MEAN": (2, 2), "MINIMUM": (2, 2), "MIRROR_PAD": (2, 2), "MUL": (2, 2), "NEG": (1, 1), "PACK": (1, 64),
    "PAD": (2, 2), "PADV2": (3, 3), "PRELU": (2, 2), "QUANTIZE": (1, 1), "RELU": (1, 1), "RELU6": (1, 1),
    "RESHAPE": (1, 2), "RESIZE_BILINEAR": (2, 2), "RESIZE_NEAREST_NEIGHBOR": (2, 2), "RSQRT": (1, 1), "SHAPE": (1, 1),
    "SLICE": (3, 3), "SPLIT": (2, 2), "SQRT": (1, 1), "SQUARE": (1, 1), "SQUARED_DIFFERENCE": (2, 2), "SQUEEZE": (1, 1),
    "STRIDED_SLICE": (4, 4), "SUB": (2, 2), "SUM": (2, 2), "TILE": (2, 2), "TRANSPOSE": (2, 2),
    "TRANSPOSE_CONV": (3, 4), "UNPACK": (1, 1),
}  # fmt: skip
"""Least and most tensors that an operation takes: those that networks of convolutions are made of."""

_SEVERAL = ("SPLIT", "UNPACK")
"""Operations that give more than one tensor."""

_QUANTISED = (schema.TensorType.INT8, schema.TensorType.UINT8, schema.TensorType.INT16)

_SCALES = (1e-12, 1e6)
"""Of quantised tensors: kernels end the process where two are too far apart."""

_RETYPING = ("CAST", "DEQUANTIZE", "FILL", "QUANTIZE", "SHAPE", "SPLIT", "TRANSPOSE_CONV")
"""Operations whose result is of another type than what they take first."""

_OF_TWO = ("ADD", "DIV", "MAXIMUM", "MINIMUM", "MUL", "SQUARED_DIFFERENCE", "SUB")

_LEFT_OUT = -1
"""In the place of a tensor that an operation can do without."""


def fault(data: bytes) -> str:
    """What is wrong with the graph of a file that is a sound flatbuffer, "" if nothing is."""
    model = schema.Model.GetRootAs(data, 0)
    if model.SubgraphsLength() != 1:
        return f"it has {model.SubgraphsLength()} graphs, not one"
    graph = model.Subgraphs(0)
    for i in range(graph.TensorsLength()):
        if not _scaled(graph.Tensors(i)):
            return f"its tensor {i} holds whole numbers without a scale"
    codes = [model.OperatorCodes(i) for i in range(model.OperatorCodesLength())]
    kinds = [_NAMES.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "?") for code in codes]
    ready = {i for i in range(graph.TensorsLength()) if _constant(model, graph.Tensors(i))}
    ready.update(graph.Inputs(i) for i in range(graph.InputsLength()))
    for i in range(graph.OperatorsLength()):
        step = graph.Operators(i)
        kind = kinds[step.OpcodeIndex()] if step.OpcodeIndex() < len(kinds) else "?"
        takes = [step.Inputs(k) for k in range(step.InputsLength())]
        gives = [step.Outputs(k) for k in range(step.OutputsLength())]
        problem = _step_fault(kind, takes, gives, ready, graph.TensorsLength()) or _type_fault(
            kind, takes, gives, graph
        )
        if problem:
            return f"its operation {i}, {kind}, {problem}"
        ready.update(gives)
    if any(graph.Outputs(i) not in ready for i in range(graph.OutputsLength())):
        return "its outputs are given by no operation"
    return ""


def _step_fault(kind: str, takes: list[int], gives: list[int], ready: set[int], num_tensors: int) -> str:
    """ready: tensors that have a value before it."""
    if kind not in _TAKES:
        return "is none that SCRFD networks are made of"
    least, most = _TAKES[kind]
    missing = [place for place in takes if place not in ready]
    if not least <= len(takes) <= most or set(missing) - {_LEFT_OUT} or _LEFT_OUT in takes[:least]:
        return "takes tensors that are not there"
    several = len(gives) > 1 and kind not in _SEVERAL
    if not gives or several or any(not 0 <= place < num_tensors or place in ready for place in gives):
        return "gives tensors that are not there, or are somebody else's"
    return ""


def _type_fault(kind: str, takes: list[int], gives: list[int], graph: Any) -> str:
    if kind in _RETYPING:
        return ""
    alike = [*(takes if kind in _OF_TWO else takes[:1]), *gives]
    if len({graph.Tensors(place).Type() for place in alike}) > 1:
        return "takes and gives numbers of different types"
    return ""


def _scaled(tensor: Any) -> bool:
    """Whether a quantised tensor can be turned into numbers: one scale above 0, or one for each of its channels."""
    if tensor.Type() not in _QUANTISED:
        return True
    found = tensor.Quantization()
    if found is None or not 0 < found.ScaleLength() == found.ZeroPointLength():
        return False
    scales, axis = found.ScaleAsNumpy(), found.QuantizedDimension()
    fits = len(scales) == 1 or (0 <= axis < tensor.ShapeLength() and len(scales) == tensor.Shape(axis))
    return bool(fits and ((scales >= _SCALES[0]) & (scales <= _SCALES[1])).all())


def _constant(model: Any, tensor: Any) -> bool:
    if not 0 < tensor.Buffer() < model.BuffersLength():
        return False
    buffer = model.Buffers(tensor.Buffer())
    return bool(buffer.DataLength() > 0 or buffer.Size() > 1)
