"""The head's outputs of an ONNX graph: rows as in the official files, or plain maps."""

from __future__ import annotations

from scrfdkit.export.contract import Contract
from scrfdkit.export.graph import FLOAT, Graph, Side
from scrfdkit.layout import head_names, head_widths
from scrfdkit.spec import ModelSpec

BLOB = "input.1"
"""The input's name in the official files."""


def add_blob(graph: Graph, contract: Contract) -> str:
    """The input (batch, 3, height, width) float32: normalised RGB."""
    width, height = contract.size or ("width", "height")
    return graph.input(BLOB, FLOAT, [contract.batch or "batch", 3, height, width])


def rows_of(graph: Graph, values: str, width: int) -> str:
    """(B, anchors * width, h, w) -> (B, h * w * anchors, width), ordered by y, x, anchor."""
    last = graph.add("Transpose", values, perm=[0, 2, 3, 1])
    return graph.add("Reshape", last, graph.whole(0, -1, width))


def add_rows(graph: Graph, spec: ModelSpec, contract: Contract, maps: list[str]) -> None:
    """The outputs of layout "reference": names, order and axes of the official files, and a batch axis that is true."""
    strides = spec.head.strides * (len(maps) // len(spec.head.strides))
    for name, width, stride, values in zip(head_names(spec), head_widths(spec), strides, maps, strict=True):
        scores = name.startswith("score")
        rows = rows_of(graph, graph.add("Sigmoid", values) if scores else values, width)
        graph.output(name, rows, FLOAT, [contract.batch or "batch", _num_rows(spec, contract, stride), width])


def add_maps(graph: Graph, spec: ModelSpec, contract: Contract, maps: list[str]) -> None:
    """The outputs of layout "maps"; scores are logits if the contract says so."""
    strides = spec.head.strides * (len(maps) // len(spec.head.strides))
    for name, width, stride, values in zip(head_names(spec), head_widths(spec), strides, maps, strict=True):
        if name.startswith("score") and not contract.logits:
            values = graph.add("Sigmoid", values)
        across, down = cells(contract, stride)
        graph.output(name, values, FLOAT, [contract.batch or "batch", width * spec.head.num_anchors, down, across])


def cells(contract: Contract, stride: int) -> tuple[Side, Side]:
    """Width and height of a level's map. A side of 32 pixels has one cell on the levels above stride 32 too."""
    if contract.size is None:
        return f"width_{stride}", f"height_{stride}"
    return -(-contract.size[0] // stride), -(-contract.size[1] // stride)


def _num_rows(spec: ModelSpec, contract: Contract, stride: int) -> Side:
    across, down = cells(contract, stride)
    if isinstance(across, str) or isinstance(down, str):
        return f"rows_{stride}"
    return across * down * spec.head.num_anchors
