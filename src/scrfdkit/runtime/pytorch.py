"""PyTorch: runs weight files without an export, on the CPU or on CUDA."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from scrfdkit.layout import head_names, head_widths
from scrfdkit.model.checkpoint import WeightInfo, import_pth, load
from scrfdkit.model.pth import require_torch
from scrfdkit.runtime.base import Binding
from scrfdkit.types import Floats

if TYPE_CHECKING:
    from scrfdkit.model.net import SCRFD


class PyTorchRuntime:
    """A fused network in float32. Any number of threads may call `run` at once.

    device: what really runs, "cpu" or "cuda". input_size, batch_size: None, any will do. metadata: of the weight file.

    On the CPU maps are stored channels last, which took 10 to 60 % less time for every network measured. On CUDA
    (a data-centre card, float32) that was slower for most, so they are not.
    """

    input_size: tuple[int, int] | None = None
    batch_size: int | None = None

    def __init__(
        self, net: SCRFD, metadata: Mapping[str, str], device: str = "cpu", threads: int | None = None
    ) -> None:
        """net: fused and in eval mode; it is moved to `device`, "cpu" or "cuda"."""
        import torch

        self.device = device
        self.metadata = dict(metadata)
        self._threads = threads
        self._format = torch.channels_last if device == "cpu" else torch.contiguous_format
        self._net = net.to(device=device, memory_format=self._format)  # type: ignore[call-overload]

    @classmethod
    def open(cls, path: str | Path, device: str = "cpu", threads: int | None = None) -> PyTorchRuntime:
        """Loads a .safetensors weight file, or imports an official .pth or any SCRFD .onnx file.

        device: "cpu", "cuda", or "auto" for CUDA where it works. "cuda" falls back to the CPU too; `device` of the
        result says what happened. On CUDA this switches TF32 off for the whole process, because TF32 moves
        key points by up to 0.4 pixels; what wants it back can set `torch.backends.cudnn.allow_tf32` afterwards.

        threads: CPU threads of one run, None for torch's own setting. torch keeps that setting for each calling
        thread, so it is set before a run and put back after it, and others keep theirs; only a thread that uses torch
        for the first time just then starts with this number.

        Raises WeightError, ModelError or MissingExtraError.
        """
        require_torch("the PyTorch runtime")
        net, info = _network(Path(path))
        from scrfdkit.runtime.torch_device import choose_device

        return cls(net, info.to_metadata(), choose_device(device), threads)

    def run(self, blob: Floats) -> list[Floats]:
        """blob: (B, 3, H, W) float32, normalised RGB, H and W multiples of 32.

        Returns the maps of `net.SCRFD.forward` as float32 NCHW arrays: score logits, boxes, key points, finest level
        first. Raises ModelError for a blob of another shape.
        """
        import torch

        from scrfdkit.runtime.torch_device import num_threads, tensor_of

        given = tensor_of(blob)
        with num_threads(self._threads), torch.inference_mode():
            x = given.to(self.device).contiguous(memory_format=self._format)
            return [output.cpu().numpy() for output in self._net(x)]


open_model = PyTorchRuntime.open


def bindings(path: str | Path) -> list[Binding]:
    """What the network takes and gives: maps, scores as logits. Raises as `PyTorchRuntime.open`."""
    require_torch("the PyTorch runtime")
    spec = _network(Path(path))[1].spec
    maps = [
        Binding(name, "output", "float32", ("batch", width * spec.head.num_anchors, "?", "?"))
        for name, width in zip(head_names(spec), head_widths(spec), strict=True)
    ]
    return [Binding("blob", "input", "float32", ("batch", 3, "height", "width")), *maps]


def _network(path: Path) -> tuple[SCRFD, WeightInfo]:
    """A fused network, from any kind of weight file."""
    from scrfdkit.model.net import fuse

    if path.suffix == ".onnx":
        from scrfdkit.model.onnx_import import import_onnx

        net, name, spec = import_onnx(path)
        return net, WeightInfo(name, spec, fused=True, source=path.name)
    if path.suffix == ".pth":
        net, name, spec = import_pth(path)
        return fuse(net), WeightInfo(name, spec, source=path.name)
    net, info = load(path)
    return (net if info.fused else fuse(net)), info
