"""Everything in one ONNX graph: pixels to blob before the network, distances to suppressed faces behind it.

The rules are those of `letterbox` and `decode`: normalised RGB, centres without a half-cell offset, widths and heights
one pixel larger when boxes are compared. B pictures, N rows of all levels, K faces at most, P key points.
"""

from __future__ import annotations

import numpy as np

from scrfdkit.decode import centres
from scrfdkit.export.contract import FACE_OUTPUTS, Contract
from scrfdkit.export.graph import FLOAT, INT64, UINT8, Graph
from scrfdkit.export.heads import rows_of
from scrfdkit.layout import head_names, head_widths
from scrfdkit.spec import ModelSpec

IMAGES = "images"


def add_pictures(graph: Graph, spec: ModelSpec, contract: Contract) -> str:
    """The input (batch, height, width, 3) uint8 BGR, and the blob that is made of it."""
    width, height = contract.size or ("width", "height")
    pixels = graph.input(IMAGES, UINT8, [contract.batch or "batch", height, width, 3])
    # Cast first: TensorRT takes uint8 only as an input that is cast at once. The weights stay as they are, although
    # the first convolution could do the rest, so that the file can be imported again.
    planes = graph.add("Transpose", graph.add("Cast", pixels, to=FLOAT), perm=[0, 3, 1, 2])
    colours = graph.add("Gather", planes, graph.whole(2, 1, 0), axis=1)
    centred = graph.add("Sub", colours, graph.floats(spec.input.mean))
    return graph.add("Mul", centred, graph.floats(1 / spec.input.std))


def add_faces(graph: Graph, spec: ModelSpec, contract: Contract, maps: list[str], *, probe: bool = False) -> None:
    """The outputs boxes, scores, keypoints and counts, from raw maps in the order of `SCRFD.forward`.

    probe: for tests of the graph; the score threshold is an input of its own, and the maps, scores with
    their sigmoid, are outputs too.
    """
    levels = len(spec.head.strides)
    widths = head_widths(spec)
    rows = [rows_of(graph, values, width) for values, width in zip(maps, widths, strict=True)]
    kinds = [graph.add("Concat", *rows[i : i + levels], axis=1) for i in range(0, len(rows), levels)]
    scores = graph.add("Sigmoid", graph.add("Reshape", kinds[0], graph.whole(0, -1)))  # (B, N)
    middle, strides = _grid(graph, spec, contract, maps[:levels])  # (N, 2), (N, 1)
    signs = graph.floats([-1, -1, 1, 1])
    boxes = _away(graph, kinds[1], middle, graph.add("Mul", strides, signs), 2)
    kept, places = _suppress(graph, contract, boxes, scores, probe)
    best = {"boxes": _take(graph, contract, boxes, kept, places, 4)}
    points = spec.head.num_keypoints
    if points:
        flat = _away(graph, kinds[2], middle, strides, points)
        flat = _take(graph, contract, flat, kept, places, 2 * points)
        best["keypoints"] = graph.add("Reshape", flat, graph.whole(0, 0, points, 2))
    real = graph.add("Cast", graph.add("Greater", kept, graph.floats(0.0)), to=INT64)
    best |= {"scores": kept, "counts": graph.add("ReduceSum", real, graph.whole(1), keepdims=0)}
    batch, most = contract.batch or "batch", contract.suppression.max_faces
    shapes = {"boxes": [most, 4], "scores": [most], "keypoints": [most, points, 2], "counts": []}
    for name in FACE_OUTPUTS:
        if name in best:
            graph.output(name, best[name], INT64 if name == "counts" else FLOAT, [batch, *shapes[name]])
    for name, values in zip(head_names(spec), maps, strict=True) if probe else ():
        values = graph.add("Sigmoid", values) if name.startswith("score") else values
        graph.output(name, values, FLOAT, [f"{name}.{axis}" for axis in range(4)])


def _grid(graph: Graph, spec: ModelSpec, contract: Contract, maps: list[str]) -> tuple[str, str]:
    """Centre x, y in pixels and stride of every row: (N, 2) and (N, 1)."""
    if contract.size is not None:
        width, height = contract.size
        fixed = [
            centres(-(-height // stride), -(-width // stride), stride, spec.head.num_anchors)
            for stride in spec.head.strides
        ]
        steps = np.repeat(spec.head.strides, [len(grid) for grid in fixed]).astype(np.float32)
        return graph.constant(np.concatenate(fixed)), graph.constant(steps[:, None])
    grids = [
        _open_grid(graph, stride, spec.head.num_anchors, values)
        for stride, values in zip(spec.head.strides, maps, strict=True)
    ]
    places, strides = (graph.add("Concat", *parts, axis=0) for parts in zip(*grids, strict=True))
    return places, strides


def _open_grid(graph: Graph, stride: int, num_anchors: int, values: str) -> tuple[str, str]:
    """As `decode.centres`, from the size that the map of a level turns out to have."""
    shape = graph.add("Shape", values)
    down, across = (graph.add("Gather", shape, graph.number(axis)) for axis in (2, 3))
    anchors, column = graph.number(num_anchors), graph.whole(-1, 1)
    num_rows = graph.add("Mul", graph.add("Mul", down, across), anchors)
    row = graph.add("Range", graph.number(0), num_rows, graph.number(1))
    cell = graph.add("Div", row, anchors)
    y = graph.add("Div", cell, across)
    x = graph.add("Sub", cell, graph.add("Mul", y, across))
    cells = graph.add("Concat", *(graph.add("Reshape", v, column) for v in (x, y)), axis=1)
    step = graph.floats([float(stride)])
    steps = graph.add("Expand", step, graph.add("Shape", graph.add("Reshape", row, column)))
    return graph.add("Mul", graph.add("Cast", cells, to=FLOAT), step), steps


def _away(graph: Graph, distances: str, middle: str, steps: str, repeats: int) -> str:
    """centre + distance * step for x and y in turn, `repeats` times: (B, N, 2 * repeats) pixels."""
    start = graph.add("Concat", *[middle] * repeats, axis=1)
    return graph.add("Add", graph.add("Mul", distances, steps), start)


def _suppress(graph: Graph, contract: Contract, boxes: str, scores: str, probe: bool) -> tuple[str, str]:
    """Scores of the remaining faces, best first, then zeros: (B, K); and their rows: (B, K, 1)."""
    rule = contract.suppression
    # A pixel larger, as in `decode.nms`. A box that is turned inside out has no area there and here: NonMaxSuppression
    # would turn it back, and let it suppress others.
    low, high = (graph.add("Gather", boxes, graph.whole(i, i + 1), axis=2) for i in (0, 2))
    high = graph.add("Max", low, graph.add("Add", high, graph.floats(1.0)))
    grown = graph.add("Concat", low, high, axis=2)
    single = graph.add("Reshape", scores, graph.whole(0, 1, -1))
    # Constants, as other runtimes than onnxruntime take thresholds for that even where they are inputs.
    least = graph.input("score_threshold", FLOAT, [1]) if probe else graph.floats([rule.score_threshold])
    overlap = graph.floats([rule.nms_threshold])
    most = graph.whole(rule.max_faces)
    chosen = graph.add("NonMaxSuppression", grown, single, most, overlap, least)  # (M, 3): picture, class, row
    where = graph.add("Gather", chosen, graph.whole(0, 2), axis=1)
    blank = graph.add("ConstantOfShape", graph.add("Shape", scores))
    kept = graph.add("ScatterND", blank, where, graph.add("GatherND", scores, where))
    # A small input may have fewer rows than faces are asked for.
    padded = graph.add("Pad", kept, graph.whole(0, 0, 0, rule.max_faces))
    best, places = graph.add_many("TopK", [padded, most], 2, axis=1)
    rows = graph.add("Gather", graph.add("Shape", scores), graph.whole(1))
    places = graph.add("Min", places, graph.add("Sub", rows, graph.whole(1)))
    return best, graph.add("Reshape", places, graph.whole(0, rule.max_faces, 1))


def _take(graph: Graph, contract: Contract, values: str, kept: str, places: str, width: int) -> str:
    """The rows of the remaining faces, zeros behind them: (B, K, width)."""
    taken = graph.add("GatherND", values, places, batch_dims=1)
    column = graph.add("Reshape", kept, graph.whole(0, contract.suppression.max_faces, 1))
    return graph.add("Where", graph.add("Greater", column, graph.floats(0.0)), taken, graph.floats(0.0))
