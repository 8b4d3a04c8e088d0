"""Files that torch's own two exporters make of the networks: found to be SCRFD, run with any batch and size, and
imported again, next to those of the graph writer of this package."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from export_files import SPECS, export, noise, source

from scrfdkit.detector import Detector
from scrfdkit.export.parity import blob_of, difference, levels
from scrfdkit.export.source import Source, open_source
from scrfdkit.runtime.ort import OrtRuntime
from scrfdkit.weights import embedded


def by_torch(one: Source, path: Path, *, dynamo: bool) -> Path:
    blob = torch.zeros(2, 3, 256, 320)
    if dynamo:
        down, across = (32 * torch.export.Dim(name, min=2, max=64) for name in ("down", "across"))
        how = {"dynamic_shapes": ({0: torch.export.Dim("batch"), 2: down, 3: across},), "verbose": False}
    else:
        how = {"dynamic_axes": {"blob": {0: "batch", 2: "height", 3: "width"}}, "opset_version": 17}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter announces its end
        torch.onnx.export(one.net, (blob,), path, input_names=["blob"], dynamo=dynamo, **how)
    return path


@pytest.mark.parametrize("dynamo", [True, False], ids=["dynamo", "torchscript"])
@pytest.mark.parametrize("kind", ["embedded", "bottleneck, gn"])
def test_files_of_both_exporters_are_read_and_give_the_same(
    kind: str, dynamo: bool, tmp_path: Path, examples: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("onnxscript")
    caplog.set_level(logging.CRITICAL)
    one = open_source(embedded(".safetensors")) if kind == "embedded" else source(SPECS[kind])
    theirs = OrtRuntime.open(by_torch(one, tmp_path / "theirs.onnx", dynamo=dynamo))
    ours = OrtRuntime.open(export(one, tmp_path / "ours.onnx").path)
    assert (theirs.input_size, theirs.batch_size) == (None, None)
    for batch, size in ((1, (320, 320)), (3, (192, 256))):
        blob = blob_of(noise(batch, *size), one.info.spec.input)
        found, wanted = (levels(runtime.run(blob), size, batch, logits=runtime is theirs) for runtime in (theirs, ours))
        assert difference(found, wanted).largest < 1e-3
    if kind == "embedded":
        picture = examples / "solvay_1927.jpg"
        boxes = [Detector(runtime).detect(picture).boxes for runtime in (theirs, ours)]
        assert len(boxes[0]) == 29
        np.testing.assert_allclose(*boxes, atol=0.01)
        assert open_source(tmp_path / "theirs.onnx").info.name == "scrfd_500m_kps"
