"""Small networks of every kind for tests of export, and what they should give."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from networks import random_net
from numpy.typing import NDArray

from scrfdkit.certificate import Certificate
from scrfdkit.export import run
from scrfdkit.export.contract import Contract
from scrfdkit.export.order import OPSET, Order
from scrfdkit.export.source import Source
from scrfdkit.export.targets import TARGETS
from scrfdkit.model.checkpoint import WeightInfo
from scrfdkit.model.net import fuse
from scrfdkit.spec import Backbone, Head, Input, ModelSpec, Neck

Array = NDArray[Any]

_ANCHORS = ((16, 32), (64, 128), (256, 512))


def _head(norm: Any, groups: int, shared: bool, depthwise: bool, scale: bool, points: int, **more: Any) -> Head:
    return Head(1, 8, norm, groups, shared, depthwise, scale, points, **more)


SPECS = {
    "separable, gn": ModelSpec(
        Backbone("separable", (4, 4), (1, 1, 1, 1), (8, 8, 8, 8)), Neck(8), _head("gn", 4, True, True, True, 0)
    ),
    "basic, bn": ModelSpec(
        Backbone("basic", (4, 4, 8), (1, 1, 1, 1), (8, 8, 8, 16)), Neck(8), _head("bn", 0, False, False, False, 5)
    ),
    "bottleneck, gn": ModelSpec(
        Backbone("bottleneck", (4, 4, 8), (1, 1, 1, 1), (4, 4, 4, 8)),
        Neck(8),
        _head("gn", 2, True, False, True, 3),
        Input(100.0, 50.0),
    ),
    "five levels": ModelSpec(
        Backbone("basic", (4, 4, 8), (1, 1, 1, 1), (8, 8, 8, 8)),
        Neck(8),
        _head(
            "bn",
            0,
            False,
            True,
            True,
            5,
            strides=(8, 16, 32, 64, 128),
            anchor_sizes=((24,), (48,), (96,), (192,), (384,)),
        ),
    ),
}


def source(spec: ModelSpec, seed: int = 0) -> Source:
    """A network of random weights, as `open_source` would give it; its outputs differ widely from cell to cell."""
    net = random_net(spec, seed)
    for name, parameter in net.named_parameters():
        if name.startswith("bbox_head.stride_") and name.endswith("weight"):
            parameter.mul_(30)
    info = WeightInfo("small", spec, True, {"hard": 1}, "mine", "a test")
    return Source(fuse(net), info, Path("small.safetensors"))


class Done(NamedTuple):
    """A file that was written, and its certificate."""

    path: Path
    certificate: Certificate

    @property
    def largest(self) -> float:
        return float(self.certificate.measured["parity"]["largest"])


def export(
    one: Source, path: Path, contract: Contract | None = None, opset: int = OPSET, to: str = "onnx", **order: Any
) -> Done:
    """As `export.run.export`."""
    return Done(path, run.export(one, path, TARGETS[to], Order(contract or Contract(), opset=opset, **order)))


def write(one: Source, path: Path, contract: Contract, to: str, **order: Any) -> Path:
    """The file alone, neither tried nor certified."""
    target = TARGETS[to]
    target.write(one, path, target.settle(Order(contract, **order)))
    return path


def session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def outputs_of(path: Path, blob: Array) -> dict[str, Array]:
    """The outputs by name."""
    loaded = session(path)
    (given,) = loaded.get_inputs()
    names = [output.name for output in loaded.get_outputs()]
    return dict(zip(names, loaded.run(None, {given.name: blob}), strict=True))


def noise(batch: int, width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """(B, H, W, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (batch, height, width, 3), np.uint8)


def sparse(spec: ModelSpec) -> Source:
    """As `source`, but with few faces in a picture, so that suppressing them takes no time."""
    one = source(spec)
    for key, bias in one.net.named_parameters():
        if key.startswith("bbox_head.stride_cls.") and key.endswith("bias"):
            bias.sub_(4)
    return one
