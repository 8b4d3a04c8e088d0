"""The network to export, from any kind of weight file, with what is known of its origin."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from scrfdkit import network, weights
from scrfdkit.atomic import exists, is_folder
from scrfdkit.detector import Detector
from scrfdkit.errors import ModelError
from scrfdkit.export.parity import compare_run
from scrfdkit.export.reference import Reference
from scrfdkit.model.checkpoint import WeightInfo, import_pth, load
from scrfdkit.model.net import SCRFD, fuse
from scrfdkit.model.onnx_import import import_onnx, onnx_metadata
from scrfdkit.model.origin import origin_of
from scrfdkit.runtime.base import within
from scrfdkit.runtime.ort import OrtRuntime

_LONGEST_NAME = 100
_SMALL = (320, 320)
_MOST = 0.1
"""Largest difference that rounding explains, of files in half precision too."""
_TRAINED_FIRST = (".safetensors", ".pth", ".onnx")


@dataclass(frozen=True, eq=False)
class Source:
    """net: fused, in eval mode, on the CPU. info: what the exported file will say of itself. path: of the weights."""

    net: SCRFD
    info: WeightInfo
    path: Path

    @property
    def safe_name(self) -> str:
        """The network's name without characters that a folder, an address or a command line may not have."""
        return re.sub(r"[^A-Za-z0-9_.-]+", "_", self.info.name).strip("._-")[:_LONGEST_NAME] or "scrfd"


def open_source(model: str | Path) -> Source:
    """Loads a network by its name in the zoo or its .json description, or from a .safetensors, .pth or .onnx file.

    Licence, source and metrics are taken over from the file, with what a description adds; InsightFace's own files are
    known and get theirs. Raises ModelError, WeightError or MissingExtraError.
    """
    path, known = _find(model)
    if path.suffix == ".safetensors":
        net, info = load(path)
        info = info if known is None else network.described(info, known)
        return Source(net if info.fused else fuse(net), replace(info, fused=True), path)
    if path.suffix == ".pth":
        net, name, spec = import_pth(path)
        net, metadata = fuse(net), {}
    else:
        net, name, spec = import_onnx(path)
        metadata = onnx_metadata(path)
        _check_same(path, net, metadata)
    origin = origin_of(path, metadata, name)
    info = WeightInfo(name, spec, True, origin.metrics, origin.licence or "unknown", origin.source)
    return Source(net, info, path)


def _check_same(path: Path, net: SCRFD, metadata: Mapping[str, str]) -> None:
    """Raises ModelError where an ONNX file does not compute what its weights compute in an SCRFD network.

    Weights are found by where convolutions stand; what happens between them only running the file can tell. An
    end-to-end file of this package gives faces, which say nothing about that.
    """
    if metadata.get("layout") == "end2end":
        return
    runtime = OrtRuntime.open(path, threads=1)
    detector = Detector(runtime)
    size, batch = within(runtime, _SMALL), runtime.batch_size or 1
    logits = detector.layout.logits
    gap = compare_run(Reference(net), runtime, size, batch, detector.input, logits=logits).largest
    if not gap <= _MOST:
        raise ModelError(
            f"{path}: has the convolutions of an SCRFD network and computes something else, up to {gap:.2g} strides"
            " away; it cannot be exported"
        )


def _find(model: str | Path) -> tuple[Path, network.Network | None]:
    """The weights, and what a description says of their network."""
    path = Path(model)
    if path.suffix in weights.SUFFIXES:
        if not exists(path):
            raise ModelError(f"{path}: there is no such file")
        return path, None
    if exists(path) and not is_folder(path) and not network.is_description(path):
        kinds = ", ".join((*weights.SUFFIXES, network.SUFFIX))
        raise ModelError(f"{path}: only {kinds} files can be exported")
    return network.find_weights(model, _TRAINED_FIRST)
