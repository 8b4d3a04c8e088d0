"""Smaller numbers in a TFLite file: weights in float16, or weights and activations in int8."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from typing import Any

import numpy as np

from scrfdkit.export import calibration, tflite_file
from scrfdkit.export.order import Order
from scrfdkit.machine import usable_cores
from scrfdkit.spec import ModelSpec

_CONVOLUTIONS = {"CONV_2D", "DEPTHWISE_CONV_2D"}
_INT8 = _CONVOLUTIONS | {"ADD", "PAD", "MAX_POOL_2D", "AVERAGE_POOL_2D", "RESIZE_NEAREST_NEIGHBOR"}
"""Operations that may become int8; group norms and what follows the last convolutions stay in float."""

_FLOAT = "float/"
"""What the names of tensors begin with that operations in float give, while a file is being quantised."""


def halved(data: bytes) -> bytes:
    """A float32 file with the weights of its convolutions in float16; all is still computed in float32."""
    from ai_edge_quantizer import qtyping, quantizer

    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT),
        compute_precision=qtyping.ComputePrecision.FLOAT,
        explicit_dequantize=True,
    )
    maker = quantizer.Quantizer(bytearray(data))
    for kind in sorted(_CONVOLUTIONS):
        maker.update_quantization_recipe(
            ".*", qtyping.TFLOperationName(kind), config, quantizer.AlgorithmName.FLOAT_CASTING
        )
    return _done(maker)


def quantised(data: bytes, order: Order, spec: ModelSpec) -> bytes:
    """A float32 file with int8 convolutions, their ranges taken from the order's pictures; inputs and outputs float32.

    Weights have a scale a channel. The last convolutions, group norms and sigmoids stay in float32.
    Raises OptionError where no picture can be read.
    """
    from ai_edge_quantizer import qtyping, quantizer

    steps = tflite_file.steps(data)
    data = tflite_file.marked(data, _FLOAT, {place for i in in_float(steps) for place in steps[i].gives})
    maker = quantizer.Quantizer(bytearray(data))
    maker.add_static_config(f"^(?!{_FLOAT})", qtyping.TFLOperationName.ALL_SUPPORTED, 8, 8)
    for kind in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
        maker.update_quantization_recipe(".*", kind, None, quantizer.AlgorithmName.NO_QUANTIZE)
    return _done(maker, _ranges(data, order, spec))


def _done(maker: Any, ranges: dict[str, dict[str, Any]] | None = None) -> bytes:
    with contextlib.redirect_stderr(io.StringIO()):  # one of its progress bars cannot be switched off
        result = maker.quantize(ranges, enable_progress_report=False, enable_progress_bar=False)
    return bytes(result.quantized_model)


def in_float(steps: list[tflite_file.Step]) -> set[int]:
    """Places of the operations that are not to be int8.

    These are the last convolutions, which a score or a distance hangs on directly; operations that are no int8 ones;
    and all between them and the next convolution.

    Measured with scrfd_2.5g_kps on 401 pictures of WIDER FACE (hard AP 76.5 in float32): 74.9 with all of it in int8,
    76.2 with the last convolutions in float. Those of the scores alone give as much; with the others in float too,
    boxes are a quarter and key points a seventh nearer to those of float32, for an eighth of the time.
    """
    chosen: set[int] = set()
    made_by = {place: i for i, step in enumerate(steps) for place in step.gives}
    for i, step in enumerate(steps):
        before = {made_by[place] for place in step.takes if place in made_by}
        if step.kind not in _INT8 or (step.kind not in _CONVOLUTIONS and before & chosen):
            chosen.add(i)
    feeds: set[int] = set()  # tensors that reach another convolution
    for i, step in reversed(list(enumerate(steps))):
        further = any(place in feeds for place in step.gives)
        if step.kind in _CONVOLUTIONS and not further:
            chosen.add(i)
        if step.kind in _CONVOLUTIONS or further:
            feeds.update(step.takes)
    return chosen


def _ranges(data: bytes, order: Order, spec: ModelSpec) -> dict[str, dict[str, Any]]:
    """Least and largest value of each tensor, the mean over the pictures."""
    sums: dict[str, Any] = {}
    count = 0
    for lows_and_highs in _extremes(data, order, spec):
        count += 1
        for name, pair in lows_and_highs.items():
            sums[name] = sums.get(name, 0) + np.asarray(pair, np.float64)
    return {
        name: {"min": np.float32(pair[0] / count).reshape(1), "max": np.float32(pair[1] / count).reshape(1)}
        for name, pair in sums.items()
    }


def _extremes(data: bytes, order: Order, spec: ModelSpec) -> Iterator[dict[str, tuple[float, float]]]:
    """Of every tensor but the constants, for each calibration picture."""
    from ai_edge_litert.interpreter import Interpreter

    from scrfdkit.runtime.tflite import allocate

    loaded = Interpreter(model_content=data, num_threads=usable_cores(), experimental_preserve_all_tensors=True)
    allocate(loaded)
    (given,) = loaded.get_input_details()
    # Weights are left out: the quantiser finds their ranges itself, a channel each, where it is not given any.
    moving = {given["index"], *(place for step in tflite_file.steps(data) for place in step.gives)}
    tensors = [one for one in loaded.get_tensor_details() if one["index"] in moving and one["dtype"] == np.float32]
    batch = int(given["shape"][0])
    for blob in calibration.blobs(order, spec.input):
        pictures = np.repeat(blob.transpose(0, 2, 3, 1), batch, axis=0)
        loaded.set_tensor(given["index"], np.ascontiguousarray(pictures))
        loaded.invoke()
        found = {one["name"]: loaded.get_tensor(one["index"]) for one in tensors}
        yield {name: (float(values.min()), float(values.max())) for name, values in found.items() if values.size}
