"""What exported torch programs are made of: the network with the input and the outputs of each layout.

B pictures, A anchors a cell, K key points, N rows of all levels, M faces at most.
"""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._higher_order_ops import while_loop
from torch.jit._trace import TracerWarning
from torch.nn import functional as F

from scrfdkit.export.contract import Contract
from scrfdkit.layout import head_widths
from scrfdkit.model.net import SCRFD
from scrfdkit.spec import ModelSpec


def doubled(net: SCRFD) -> fx.GraphModule:
    """The network with maps enlarged by the factor 2 instead of to a size, which is the same for multiples of 32.

    So a trace holds no sizes. Weights are shared with `net`.
    """
    graph = fx.Tracer().trace(net)
    for node in graph.nodes:
        if node.target is F.interpolate:
            node.kwargs = {"scale_factor": 2.0, "mode": node.kwargs["mode"]}
    module = fx.GraphModule(net, graph)
    graph.eliminate_dead_code()
    module.recompile()
    return module.eval()


class Maps(nn.Module):
    """(B, 3, H, W) float32 -> the maps of `SCRFD.forward`, float32; with `sigmoid`, scores are probabilities.

    It computes with the type of its weights.
    """

    like: Tensor

    def __init__(self, net: SCRFD, spec: ModelSpec, *, sigmoid: bool = False, half: bool = False) -> None:
        super().__init__()
        self.net = doubled(net)
        self.sigmoid = sigmoid
        self.levels = len(spec.head.strides)
        self.half_weights = half
        # Not a type but a tensor of it, so that whoever turns the program into float32 has float32 throughout.
        self.register_buffer("like", torch.zeros(1))

    def forward(self, blob: Tensor) -> tuple[Tensor, ...]:
        maps = self.net(blob.type_as(self.like) if self.half_weights else blob)
        maps = [m.float() for m in maps] if self.half_weights else list(maps)
        if self.sigmoid:
            maps[: self.levels] = [torch.sigmoid(m) for m in maps[: self.levels]]
        return tuple(maps)


class Rows(nn.Module):
    """(B, 3, H, W) float32 -> (B, rows, 1 | 4 | 2K) float32 in the order of the official files; scores are
    probabilities."""

    def __init__(self, maps: Maps, spec: ModelSpec) -> None:
        super().__init__()
        self.maps = maps
        self.widths = head_widths(spec)

    def forward(self, blob: Tensor) -> tuple[Tensor, ...]:
        return tuple(_rows(m, width) for m, width in zip(self.maps(blob), self.widths, strict=True))


class Candidates(nn.Module):
    """Pictures (B, H, W, 3) BGR, 0 to 255 -> every row as a face before suppression, (B, N, 5 + 2K) float32, then maps.

    Columns: x1 y1 x2 y2 in pixels of the input, score, x and y of each key point.
    """

    def __init__(self, maps: Maps, spec: ModelSpec) -> None:
        super().__init__()
        self.maps = maps
        self.input = spec.input
        self.strides = spec.head.strides
        self.num_anchors = spec.head.num_anchors
        self.num_keypoints = spec.head.num_keypoints

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        # Contiguous, as maps take over the order of their input, and group norms sum less exactly over channels last.
        planes = images.float().flip(-1).permute(0, 3, 1, 2).contiguous()
        maps = self.maps((planes - self.input.mean) / self.input.std)
        levels = len(self.strides)
        kinds = [maps[i : i + levels] for i in range(0, len(maps), levels)]
        found = [self._level(stride, *parts) for stride, *parts in zip(self.strides, *kinds, strict=True)]
        return torch.cat(found, 1), *maps

    def _level(self, stride: int, scores: Tensor, boxes: Tensor, points: Tensor | None = None) -> Tensor:
        # Cells are counted, not numbered, so that neither a size nor a device is fixed in the program.
        ones = torch.ones_like(scores[:1])
        cells = torch.stack([ones.cumsum(3) - 1, ones.cumsum(2) - 1], -1)  # (1, A, h, w, 2) x, y
        middle = cells.permute(0, 2, 3, 1, 4).reshape(1, -1, 2) * stride
        reach = _rows(boxes, 4) * stride
        parts = [middle - reach[..., :2], middle + reach[..., 2:], _rows(scores, 1)]
        if points is not None:
            offsets = _rows(points, 2 * self.num_keypoints) * stride
            parts.append(middle.repeat(1, 1, self.num_keypoints) + offsets)
        return torch.cat(parts, 2)


def pick(rest: Tensor, values: Tensor, nms_threshold: Tensor) -> tuple[Tensor, Tensor]:
    """The best row of each picture, (B, 1, C), zeros where none is left, and the scores of what remains, (B, N).

    rest: (B, N) scores, -1 for what is gone. values: (B, N, C) as of `Candidates`. Overlaps are those of `decode.nms`.
    """
    best, place = rest.max(1)
    row = values.gather(1, place[:, None, None].expand(-1, 1, values.shape[2]))
    across = torch.minimum(values[:, :, 2], row[:, :, 2]) - torch.maximum(values[:, :, 0], row[:, :, 0]) + 1
    down = torch.minimum(values[:, :, 3], row[:, :, 3]) - torch.maximum(values[:, :, 1], row[:, :, 1]) + 1
    shared = across.clamp(min=0) * down.clamp(min=0)
    areas = (values[:, :, 2] - values[:, :, 0] + 1) * (values[:, :, 3] - values[:, :, 1] + 1)
    area = (row[:, :, 2] - row[:, :, 0] + 1) * (row[:, :, 3] - row[:, :, 1] + 1)
    overlap = shared / (area + areas - shared)
    rest = torch.where(overlap > nms_threshold, -1.0, rest)
    rest = rest.scatter(1, place[:, None], -1.0)
    return rest, torch.where((best >= 0)[:, None, None], row, 0.0)


class Suppression(nn.Module):
    """Candidates (B, N, C) and thresholds (1,) -> faces (B, M, C), best first, zeros behind them. Plain loops, for
    `torch.jit.script`."""

    def __init__(self, max_faces: int) -> None:
        super().__init__()
        self.max_faces = max_faces

    def forward(self, values: Tensor, score_threshold: Tensor, nms_threshold: Tensor) -> Tensor:
        scores = values[:, :, 4]
        most = int((scores > score_threshold).sum(1).max())
        marked = torch.where(scores > score_threshold, scores, -1.0)
        # A stable order, as in `decode.nms`: which of two equal scores comes first can decide what else goes.
        rest, places = marked.sort(stable=True, dim=1, descending=True)
        rest = rest[:, :most]
        values = values.gather(1, places[:, :most, None].expand(-1, -1, values.shape[2]))
        faces = values.new_zeros(values.shape[0], self.max_faces, values.shape[2])
        for i in range(min(most, self.max_faces)):
            if float(rest.max()) < 0:
                break
            rest, row = pick(rest, values, nms_threshold)
            faces[:, i : i + 1] = row
        return faces


class TracedSuppression(nn.Module):
    """As `Suppression`, for `torch.export`: the loop is an operation, and all rows stay in it."""

    def __init__(self, max_faces: int) -> None:
        super().__init__()
        self.max_faces = max_faces

    def forward(self, values: Tensor, score_threshold: Tensor, nms_threshold: Tensor) -> Tensor:
        scores = values[:, :, 4]
        rest = torch.where(scores > score_threshold, scores, -1.0)
        numbers = torch.arange(self.max_faces, device=values.device)[None, :, None]
        faces = values.new_zeros(values.shape[0], self.max_faces, values.shape[2])

        def more(i: Tensor, rest: Tensor, faces: Tensor) -> Tensor:
            return (i < self.max_faces) & (rest.max() >= 0)

        def step(i: Tensor, rest: Tensor, faces: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            rest, row = pick(rest, values, nms_threshold)
            return i + 1, rest, torch.where(numbers == i, row, faces)

        first = torch.zeros((), dtype=torch.int64, device=values.device)
        found: Tensor = while_loop(more, step, (first, rest, faces))[2]  # type: ignore[no-untyped-call]
        return found


class Faces(nn.Module):
    """images (B, H, W, 3) BGR, score_threshold (1,), nms_threshold (1,) -> faces (B, M, 5 + 2K)."""

    def __init__(self, candidates: nn.Module, suppression: nn.Module) -> None:
        super().__init__()
        self.candidates = candidates
        self.suppression = suppression

    def forward(self, images: Tensor, score_threshold: Tensor, nms_threshold: Tensor) -> Tensor:
        faces: Tensor = self.suppression(self.candidates(images)[0], score_threshold, nms_threshold)
        return faces


def layout_module(net: SCRFD, spec: ModelSpec, contract: Contract, *, half: bool = False) -> nn.Module:
    """The module of a layout; `Candidates` for "end2end". half: weights in float16."""
    sigmoid = contract.layout != "maps" or contract.sigmoid
    maps = Maps(copy.deepcopy(net) if half else net, spec, sigmoid=sigmoid, half=half)
    if half:
        maps = maps.half()
    if contract.layout == "maps":
        return maps.eval()
    return (Candidates if contract.layout == "end2end" else Rows)(maps, spec).eval()


def trace(module: nn.Module, example: Tensor) -> Any:
    """The module as TorchScript, recorded from one run; sizes stay open."""
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.filterwarnings("ignore", message=".*torch.jit", category=DeprecationWarning)
        # torch's group norm refuses a single number a channel; the answer is recorded, and is always the same here.
        warnings.filterwarnings("ignore", "Converting a tensor to a Python boolean", TracerWarning)
        return torch.jit.trace(module, example, check_trace=False)  # type: ignore[no-untyped-call]


def _rows(values: Tensor, width: int) -> Tensor:
    """(B, A * width, h, w) -> (B, h * w * A, width), ordered by y, x, anchor."""
    return values.permute(0, 2, 3, 1).reshape(values.shape[0], -1, width)
