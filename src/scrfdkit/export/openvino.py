"""OpenVINO files: an .xml with the graph and what it says of itself, and a .bin with the weights.

fp16 halves the .bin; both are calculated in float32. int8 has 8-bit weights and activations, all layers included:
keeping the last convolutions in float made scrfd_2.5g_kps slower and no more precise.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scrfdkit.errors import MissingExtraError, ModelError
from scrfdkit.export.calibration import blobs
from scrfdkit.export.onnx import build
from scrfdkit.export.order import Order, Target
from scrfdkit.export.source import Source
from scrfdkit.spec import Input
from scrfdkit.types import Floats


def write(source: Source, path: Path, order: Order) -> None:
    """Writes the .xml and the .bin beside it. Raises OptionError, MissingExtraError or ModelError."""
    ov = _package("openvino")
    contract = order.contract
    # Pictures are looked at one by one for their ranges, whatever the number that the file will take.
    graph = build(source.net, source.info, replace(contract, batch=None), order.opset)
    try:
        model = ov.convert_model(io.BytesIO(graph.SerializeToString()))
        if order.precision == "int8":
            model = _quantised(model, _Pictures(order, source.info.spec.input))
        if contract.batch is not None:
            width, height = contract.size or (-1, -1)
            model.reshape([contract.batch, 3, height, width])
        ov.save_model(model, str(path), compress_to_fp16=order.precision == "fp16")
    except RuntimeError as error:
        raise ModelError(f"{path}: OpenVINO cannot convert the graph: {error}") from error


@dataclass(frozen=True)
class _Pictures:
    """Blobs for nncf, made when it asks for them: together they would take gigabytes."""

    order: Order
    spec: Input

    def __iter__(self) -> Iterator[Floats]:
        return blobs(self.order, self.spec)

    def __len__(self) -> int:
        return len(self.order.calibration)


def _quantised(model: Any, pictures: _Pictures) -> Any:
    nncf = _package("nncf")
    nncf.set_log_level(logging.ERROR)
    with contextlib.redirect_stdout(io.StringIO()):  # progress bars
        return nncf.quantize(
            model,
            nncf.Dataset(pictures),
            # As fast as symmetric activations, and of scrfd_1g these lost 0.65 percent of AP (hard), not 0.21.
            preset=nncf.QuantizationPreset.MIXED,
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(pictures),
        )


def _package(name: str) -> Any:
    """openvino or nncf, without their telemetry, which the runtime's module switches off for both."""
    try:
        from scrfdkit.runtime.openvino import ov

        if name == "openvino":
            return ov
        import nncf
    except ModuleNotFoundError as error:
        raise MissingExtraError("exporting to OpenVINO", "openvino", error.name or name) from None
    return nncf


TARGET = Target(
    name="openvino",
    suffix=".xml",
    layouts=("reference", "maps"),
    precisions=("fp32", "fp16", "int8"),
    open_size=True,
    open_batch=True,
    write=write,
)
