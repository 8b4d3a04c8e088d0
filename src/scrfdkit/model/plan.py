"""Every operation of a network in execution order, worked out from its spec alone: no torch, no weights.

Costs (`cost`), the names and shapes of the weights (`checkpoint`) and the structure that an ONNX graph is matched
against (`onnx_import`) all come from this one walk, so that they cannot disagree. Tests hold it to the real module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from scrfdkit.errors import ModelError
from scrfdkit.spec import ModelSpec

Kind = Literal["conv", "bn", "gn", "relu", "pool", "add", "resize", "scale"]
Shape = tuple[int, ...]

STEP = 32
"""Width and height of an input are multiples of this: the stride of the backbone's last stage."""

PARTS = ("stem", "maxpool", "C2", "C3", "C4", "C5", "neck", "head")


@dataclass(frozen=True)
class Map:
    """A feature map of one picture."""

    channels: int
    height: int
    width: int

    @property
    def size(self) -> int:
        """Numbers in it."""
        return self.channels * self.height * self.width


@dataclass(frozen=True)
class Op:
    """One operation.

    part: one of `PARTS`. name: prefix of its tensors in the state dict, "" for an operation without any.
    inputs, output: indices into `Plan.maps`; an operation in place puts out its first input.
    params: (suffix, shape) of every trained tensor; an operation used on several levels repeats them.
    stride, groups: of a convolution; groups also of a group norm.
    macs: multiply-adds of convolutions. flops: as mmcv counts them.
    """

    part: str
    kind: Kind
    name: str
    inputs: tuple[int, ...]
    output: int
    params: tuple[tuple[str, Shape], ...] = ()
    stride: int = 1
    groups: int = 1
    macs: int = 0
    flops: int = 0


@dataclass(frozen=True)
class Plan:
    """maps[0] is the input; outputs are in the order of `net.SCRFD.forward`."""

    ops: tuple[Op, ...]
    maps: tuple[Map, ...]
    outputs: tuple[int, ...]


class _Walk:
    """Collects operations; every method takes map indices and returns the index of its output."""

    def __init__(self, width: int, height: int) -> None:
        self.maps = [Map(3, height, width)]
        self.ops: list[Op] = []
        self.part = ""

    def _new(self, channels: int, height: int, width: int) -> int:
        self.maps.append(Map(channels, height, width))
        return len(self.maps) - 1

    def conv(
        self, name: str, x: int, out: int, kernel: int, stride: int = 1, groups: int = 1, bias: bool = False
    ) -> int:
        """Padding kernel // 2."""
        source = self.maps[x]
        height, width = (-(-n // stride) for n in (source.height, source.width))
        y = self._new(out, height, width)
        weight = (out, source.channels // groups, kernel, kernel)
        macs = weight[1] * kernel * kernel * self.maps[y].size
        params: tuple[tuple[str, Shape], ...] = (("weight", weight), *((("bias", (out,)),) if bias else ()))
        flops = macs + (self.maps[y].size if bias else 0)
        self.ops.append(Op(self.part, "conv", name, (x,), y, params, stride, groups, macs, flops))
        return y

    def norm(self, name: str, x: int, groups: int = 0) -> int:
        """Group norm, or batch norm for 0 groups."""
        shape = (self.maps[x].channels,)
        params = (("weight", shape), ("bias", shape))
        kind: Kind = "gn" if groups else "bn"
        flops = 2 * self.maps[x].size
        self.ops.append(Op(self.part, kind, name, (x,), x, params, groups=groups or 1, flops=flops))
        return x

    def relu(self, x: int) -> int:
        self.ops.append(Op(self.part, "relu", "", (x,), x, flops=self.maps[x].size))
        return x

    def pool(self, x: int, stride: int, ceil: bool) -> int:
        """A stride of 1 changes nothing, but mmcv counts that pool of the reference's 34G networks as well."""
        source = self.maps[x]
        extra = stride - 1 if ceil else 0
        y = x
        if stride > 1:
            y = self._new(source.channels, (source.height + extra) // stride, (source.width + extra) // stride)
        self.ops.append(Op(self.part, "pool", "", (x,), y, stride=stride, flops=source.size))
        return y

    def add(self, x: int, other: int) -> int:
        self.ops.append(Op(self.part, "add", "", (x, other), x))
        return x

    def resize(self, x: int, like: int) -> int:
        y = self._new(self.maps[x].channels, self.maps[like].height, self.maps[like].width)
        self.ops.append(Op(self.part, "resize", "", (x,), y))
        return y

    def scale(self, name: str, x: int) -> int:
        source = self.maps[x]
        y = self._new(source.channels, source.height, source.width)
        self.ops.append(Op(self.part, "scale", name, (x,), y, (("scale", ()),)))
        return y


def plan(spec: ModelSpec, width: int = 640, height: int = 640) -> Plan:
    """The operations for one picture of width x height pixels. Raises ModelError for a size below one pixel."""
    if min(width, height) < 1:
        raise ModelError(f"size {width}x{height}: width and height must be positive")
    walk = _Walk(width, height)
    stages = _backbone(walk, spec)
    outputs = _head(walk, spec, _neck(walk, spec, stages[1:]))
    return Plan(tuple(walk.ops), tuple(walk.maps), outputs)


def _separable(walk: _Walk, name: str, x: int, out: int, stride: int) -> int:
    channels = walk.maps[x].channels
    x = walk.relu(walk.norm(f"{name}.1", walk.conv(f"{name}.0", x, channels, 3, stride, groups=channels)))
    return walk.relu(walk.norm(f"{name}.4", walk.conv(f"{name}.3", x, out, 1)))


def _residual(walk: _Walk, name: str, x: int, width: int, stride: int, bottleneck: bool) -> int:
    """Kernels and strides of the paths as in `blocks.BasicBlock` and `blocks.Bottleneck`."""
    out = width * 4 if bottleneck else width
    layers = ((width, 1, 1), (width, 3, stride), (out, 1, 1)) if bottleneck else ((width, 3, stride), (out, 3, 1))
    y = x
    for i, (channels, kernel, step) in enumerate(layers, 1):
        y = walk.norm(f"{name}.bn{i}", walk.conv(f"{name}.conv{i}", y, channels, kernel, step))
        if i < len(layers):
            y = walk.relu(y)
    shortcut = x
    if stride != 1 or _differ(walk.maps[x].channels, out):
        shortcut = walk.pool(x, stride, ceil=True)
        shortcut = walk.norm(f"{name}.downsample.2", walk.conv(f"{name}.downsample.1", shortcut, out, 1))
    return walk.relu(walk.add(y, shortcut))


def _differ(channels: int, other: int) -> bool:
    """Whether a shortcut must change the number of channels. `cost.flops_of_many` walks thousands of networks at once,
    with arrays in place of numbers, of which all or none may need that."""
    differ: Any = channels != other
    if isinstance(differ, bool):
        return differ
    if differ.any() != differ.all():
        raise ValueError("networks with and without a shortcut's convolution cannot be walked together")
    return bool(differ.all())


def _backbone(walk: _Walk, spec: ModelSpec) -> list[int]:
    """Outputs of the four stages."""
    body = spec.backbone
    walk.part = "stem"
    x = 0
    if body.block == "separable":
        x = walk.relu(walk.norm("backbone.stem.0.1", walk.conv("backbone.stem.0.0", x, body.stem[0], 3, 2)))
        x = _separable(walk, "backbone.stem.1", x, body.stem[1], 1)
    else:
        for i, channels in enumerate(body.stem):
            x = walk.conv(f"backbone.stem.{3 * i}", x, channels, 3, 1 if i else 2)
            x = walk.relu(walk.norm(f"backbone.stem.{3 * i + 1}", x))
        walk.part = "maxpool"
        x = walk.pool(x, 2, ceil=False)
    outputs = []
    for stage, (count, width) in enumerate(zip(body.blocks, body.widths, strict=True), 1):
        walk.part = f"C{stage + 1}"
        for unit in range(count):
            name = f"backbone.layer{stage}.{unit}"
            if body.block == "separable":
                x = _separable(walk, name, x, width, 1 if unit else 2)
            else:
                stride = 2 if unit == 0 and stage > 1 else 1
                x = _residual(walk, name, x, width, stride, body.block == "bottleneck")
        outputs.append(x)
    return outputs


def _neck(walk: _Walk, spec: ModelSpec, inputs: list[int]) -> list[int]:
    walk.part = "neck"
    channels = spec.neck.channels

    def conv(name: str, x: int, kernel: int = 3, stride: int = 1) -> int:
        return walk.conv(f"neck.{name}.conv", x, channels, kernel, stride, bias=True)

    x = [conv(f"lateral_convs.{i}", source, 1) for i, source in enumerate(inputs)]
    for i in (1, 0):
        x[i] = walk.add(x[i], walk.resize(x[i + 1], x[i]))
    x = [conv(f"fpn_convs.{i}", level) for i, level in enumerate(x)]
    for i in (0, 1):
        x[i + 1] = walk.add(x[i + 1], conv(f"downsample_convs.{i}", x[i], stride=2))
    x = [x[0], *(conv(f"pafpn_convs.{i}", level) for i, level in enumerate(x[1:]))]
    for i in range(3, len(spec.head.strides)):
        x.append(conv(f"fpn_convs.{i}", x[-1], stride=2))
    return x


def _head(walk: _Walk, spec: ModelSpec, levels: list[int]) -> tuple[int, ...]:
    walk.part = "head"
    head = spec.head
    keys = head_keys(spec)
    outputs: tuple[list[int], list[int], list[int]] = ([], [], [])
    for level, (key, x) in enumerate(zip(keys, levels, strict=True)):
        for unit in range(head.depth):
            x = _tower_unit(walk, spec, f"bbox_head.cls_stride_convs.{key}.{unit}", x)
        outputs[0].append(walk.conv(f"bbox_head.stride_cls.{key}", x, head.num_anchors, 3, bias=True))
        boxes = walk.conv(f"bbox_head.stride_reg.{key}", x, 4 * head.num_anchors, 3, bias=True)
        outputs[1].append(walk.scale(f"bbox_head.scales.{level}", boxes) if head.scale else boxes)
        if head.num_keypoints:
            out = 2 * head.num_keypoints * head.num_anchors
            outputs[2].append(walk.conv(f"bbox_head.stride_kps.{key}", x, out, 3, bias=True))
    return tuple(index for kind in outputs for index in kind)


def _tower_unit(walk: _Walk, spec: ModelSpec, name: str, x: int) -> int:
    head = spec.head
    source = walk.maps[x].channels
    if not head.depthwise:
        return walk.relu(walk.norm(f"{name}.{head.norm}", walk.conv(f"{name}.conv", x, head.channels, 3), head.groups))
    for unit, out, kernel, groups in (
        ("depthwise_conv", source, 3, source),
        ("pointwise_conv", head.channels, 1, 1),
    ):
        x = walk.conv(f"{name}.{unit}.conv", x, out, kernel, groups=groups)
        x = walk.relu(walk.norm(f"{name}.{unit}.{head.norm}", x, head.groups))
    return x


def head_keys(spec: ModelSpec) -> list[str]:
    """The word for each level in the head's state-dict keys: "0" where levels share it, else like "(8, 8)"."""
    return ["0" if spec.head.shared else str((stride, stride)) for stride in spec.head.strides]


def state_shapes(spec: ModelSpec) -> dict[str, Shape]:
    """Name and shape of every tensor of the (unfused) state dict: the official checkpoint's keys."""
    shapes: dict[str, Shape] = {}
    for op in plan(spec, 64, 64).ops:
        for suffix, shape in op.params:
            shapes[f"{op.name}.{suffix}"] = shape
        if op.kind == "bn":
            channels = op.params[0][1]
            statistics = {"running_mean": channels, "running_var": channels, "num_batches_tracked": ()}
            shapes |= {f"{op.name}.{suffix}": shape for suffix, shape in statistics.items()}
    return shapes


def check_size(width: int, height: int) -> None:
    """Raises ModelError unless both are positive multiples of `STEP`.

    Other sizes run, but their maps overhang the picture, and decoders differ in whether they expect that.
    """
    if min(width, height) < STEP or width % STEP or height % STEP:
        near = [max(STEP, round(n / STEP) * STEP) for n in (width, height)]
        raise ModelError(
            f"input size {width}x{height}: width and height must be multiples of {STEP}; "
            f"the nearest is {near[0]}x{near[1]}"
        )
