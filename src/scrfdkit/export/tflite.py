"""TFLite: converted by litert-torch from the network as a torch module, with pictures and maps channels last."""

from __future__ import annotations

import copy
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from scrfdkit import atomic
from scrfdkit.errors import MissingExtraError, ModelError, ScrfdError
from scrfdkit.export import tflite_file, tflite_quantise
from scrfdkit.export.contract import Contract
from scrfdkit.export.heads import BLOB
from scrfdkit.export.order import Order, Target
from scrfdkit.export.source import Source
from scrfdkit.layout import head_names, head_widths
from scrfdkit.model.net import SCRFD


def write(source: Source, path: Path, order: Order) -> None:
    """Converts, quantises and describes. Raises MissingExtraError, or ModelError where a tool refuses the network."""
    info, contract = source.info, order.contract
    try:
        with quiet():
            data = convert(source.net, contract)
            if order.precision == "fp16":
                data = tflite_quantise.halved(data)
            elif order.precision == "int8":
                data = tflite_quantise.quantised(data, order, info.spec)
            data = tflite_file.named(data, BLOB, head_names(info.spec))
            data = tflite_file.described(data, info.to_metadata() | {"layout": contract.layout})
    except ModuleNotFoundError as error:
        raise MissingExtraError("exporting to tflite", "tflite-export", error.name or "litert-torch") from None
    except ScrfdError:
        raise
    except (RuntimeError, ValueError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelError(f"{path}: the TFLite converter cannot take the network: {reason}") from error
    atomic.save(path, data)


def convert(net: SCRFD, contract: Contract) -> bytes:
    """A TFLite file in float32 with the signature serving_default, args_0 to output_0, output_1 and so on."""
    import litert_torch

    assert contract.size is not None
    width, height = contract.size
    blob = torch.zeros(contract.batch or 1, height, width, 3)
    return bytes(litert_torch.convert(ChannelsLast(net, contract).eval(), (blob,)).model_content())


class ChannelsLast(nn.Module):
    """A fused network for pictures (B, H, W, 3), normalised RGB float32.

    Layout "reference": rows (B, h * w * anchors, 1 | 4 | 2K), which are the maps with another shape as channels come
    last, scores with their sigmoid. Layout "maps": (B, h, w, anchors * (1 | 4 | 2K)), scores as the contract says.
    Order of `layout.head_names`.
    """

    def __init__(self, net: SCRFD, contract: Contract) -> None:
        super().__init__()
        self.net = copy.deepcopy(net)
        self.rows = contract.layout == "reference"
        self.sigmoid = not contract.logits
        self.widths = head_widths(net.spec)
        for parent in list(self.net.modules()):
            for name, child in parent.named_children():
                if isinstance(child, nn.GroupNorm):
                    setattr(parent, name, GroupNorm(child))

    def forward(self, pictures: Tensor) -> list[Tensor]:
        maps = [values.permute(0, 2, 3, 1) for values in self.net(pictures.permute(0, 3, 1, 2))]
        if self.sigmoid:
            maps = [values.sigmoid() if width == 1 else values for values, width in zip(maps, self.widths, strict=True)]
        if self.rows:
            maps = [values.reshape(values.shape[0], -1, width) for values, width in zip(maps, self.widths, strict=True)]
        return maps


class GroupNorm(nn.Module):
    """A group norm of operations that every TFLite runtime has, over maps whose channels come last.

    Mean and variance are taken of each channel first, so that nothing large is reshaped or transposed; those of a
    group follow from its channels': its variance is the mean of theirs and the variance of their means.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.groups, self.eps = norm.num_groups, norm.eps
        shape = (1, 1, norm.num_groups, -1)
        self.weight = nn.Parameter(norm.weight.detach().reshape(shape), False)
        self.bias = nn.Parameter(norm.bias.detach().reshape(shape), False)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, C, H, W), as any torch module; the converter finds that channels stay last throughout."""
        values = maps.permute(0, 2, 3, 1)
        batch, _, _, channels = values.shape
        groups, whole = (batch, 1, self.groups, channels // self.groups), (batch, 1, 1, channels)
        means = values.mean((1, 2), keepdim=True)
        away = values - means
        variances = (away * away).mean((1, 2), keepdim=True).reshape(groups)
        mean = means.reshape(groups).mean(3, keepdim=True)
        between = means.reshape(groups) - mean
        variance = (variances + between * between).mean(3, keepdim=True)
        factor = torch.rsqrt(variance + self.eps) * self.weight
        # The mean of the channel is gone already, so only what is left of the group's is taken away.
        offset = self.bias + between * factor
        return (away * factor.reshape(whole) + offset.reshape(whole)).permute(0, 3, 1, 2)


@contextmanager
def quiet() -> Iterator[None]:
    """The converter's messages about itself are not for users: its progress, its logs, its packages' warnings."""
    os.environ.setdefault("LITERT_TORCH_SHOW_PROGRESS", "n")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # it would say that it is on
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


TARGET = Target(
    name="tflite",
    suffix=".tflite",
    layouts=("reference", "maps"),
    precisions=("fp32", "fp16", "int8"),
    open_size=False,
    open_batch=False,
    write=write,
)
