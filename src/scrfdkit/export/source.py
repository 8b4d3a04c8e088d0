"""The network to export, from any kind of weight file, with what is known of its origin."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from scrfdkit import weights, zoo
from scrfdkit.atomic import exists, is_folder
from scrfdkit.errors import ModelError
from scrfdkit.model.checkpoint import WeightInfo, import_pth, load
from scrfdkit.model.net import SCRFD, fuse
from scrfdkit.model.onnx_import import import_onnx, onnx_metadata
from scrfdkit.model.origin import origin_of

_TRAINED_FIRST = (".safetensors", ".pth", ".onnx")


@dataclass(frozen=True, eq=False)
class Source:
    """net: fused, in eval mode, on the CPU. info: what the exported file will say of itself. path: of the weights."""

    net: SCRFD
    info: WeightInfo
    path: Path


def open_source(model: str | Path) -> Source:
    """Loads a network by its name in the zoo, or from a .safetensors, .pth or .onnx file.

    Licence, source and metrics are taken over from the file; InsightFace's own files are known and get theirs.
    Raises ModelError, WeightError or MissingExtraError.
    """
    path = _find(model)
    if path.suffix == ".safetensors":
        net, info = load(path)
        return Source(net if info.fused else fuse(net), replace(info, fused=True), path)
    if path.suffix == ".pth":
        net, name, spec = import_pth(path)
        net, metadata = fuse(net), {}
    else:
        net, name, spec = import_onnx(path)
        metadata = onnx_metadata(path)
    origin = origin_of(path, metadata, name)
    info = WeightInfo(name, spec, True, origin.metrics, origin.licence or "unknown", origin.source)
    return Source(net, info, path)


def _find(model: str | Path) -> Path:
    path = Path(model)
    if path.suffix in weights.SUFFIXES or (exists(path) and not is_folder(path)):
        if path.suffix not in weights.SUFFIXES:
            raise ModelError(f"{path}: only {', '.join(weights.SUFFIXES)} files can be exported")
        if not exists(path):
            raise ModelError(f"{path}: there is no such file")
        return path
    try:
        name = zoo.find(str(model)).name
    except ValueError as error:
        raise ModelError(f"{error}; nor is there a file of that name") from None
    return weights.find(name, _TRAINED_FIRST)
