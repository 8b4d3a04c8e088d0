"""Every format that a network can be exported to."""

from __future__ import annotations

from scrfdkit.export import ncnn, onnx, openvino, tensorrt, tflite, torchscript, triton, vastai
from scrfdkit.export.order import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        onnx.TARGET,
        tflite.TARGET,
        tensorrt.TARGET,
        vastai.TARGET,
        triton.TARGET,
        torchscript.SCRIPT,
        torchscript.EXPORTED,
        ncnn.TARGET,
        openvino.TARGET,
    )
}
