"""Official and own weight files, in our network and in onnxruntime, on a real picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
import torch
from networks import gap, random_net
from numpy.typing import NDArray

from scrfdkit.model.checkpoint import import_pth, load, save
from scrfdkit.model.net import fuse
from scrfdkit.model.onnx_import import import_onnx
from scrfdkit.runtime.pytorch import PyTorchRuntime
from scrfdkit.zoo import ZOO

Array = NDArray[np.float32]

FILES = {
    "official/scrfd_500m.onnx": "scrfd_500m",
    "official/scrfd_500m_kps.onnx": "scrfd_500m_kps",
    "official/det_500m.onnx": "scrfd_500m_kps",
    "official/scrfd_1g.onnx": "scrfd_1g",
    "official/scrfd_2.5g.onnx": "scrfd_2.5g",
    "official/scrfd_2.5g_kps.onnx": "scrfd_2.5g_kps",
    "own/scrfd_500m_kps.onnx": "scrfd_500m_kps",
}
SCALES = {
    "official/scrfd_500m.onnx": (0.79578, 1.20193, 1.99202),
    "official/scrfd_1g.onnx": (0.82008, 1.22565, 1.84238),
    "official/scrfd_2.5g.onnx": (0.83942, 1.25133, 1.96194),
    "official/scrfd_2.5g_kps.onnx": (0.88073, 0.93155, 1.14237),
}
"""The learnt factors of strides 8, 16 and 32, which identify a weight file."""


def blob_of(shared: Path, index: int, width: int, height: int) -> Array:
    """A picture of WIDER FACE, fitted into the top left corner of a black canvas: (1, 3, height, width)."""
    pictures = sorted((shared / "data/widerface/val/images").rglob("*.jpg"))
    picture = cv2.imread(str(pictures[index]))
    assert picture is not None
    factor = min(width / picture.shape[1], height / picture.shape[0])
    resized = cv2.resize(picture, (int(picture.shape[1] * factor), int(picture.shape[0] * factor)))
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[: resized.shape[0], : resized.shape[1]] = resized
    blob: Array = (canvas[None, :, :, ::-1].transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 128
    return np.ascontiguousarray(blob)


def onnx_rows(path: Path, blob: Array) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    if session.get_inputs()[0].shape[0] == 1:  # without a batch axis in its outputs
        pictures = [session.run(None, {name: blob[i : i + 1]}) for i in range(len(blob))]
        return [np.stack(rows) for rows in zip(*pictures, strict=True)]
    outputs: list[Array] = session.run(None, {name: blob})
    return outputs


def rows_of(maps: list[Array]) -> list[Array]:
    """Raw maps as the official files put them out: sigmoid, and (B, rows, numbers)."""
    rows = []
    for i, array in enumerate(maps):
        numbers = array.shape[1] // 2
        flat = array.transpose(0, 2, 3, 1).reshape(len(array), -1, numbers)
        rows.append(1 / (1 + np.exp(-flat)) if i < 3 else flat)
    return rows


def largest_gap(first: list[Array], second: list[Array]) -> float:
    assert [a.shape for a in first] == [b.shape for b in second]
    return max(float(np.abs(a - b).max()) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("file", FILES)
def test_imported_network_gives_what_onnxruntime_gives(file: str, shared: Path) -> None:
    path = shared / "weights" / file
    runtime = PyTorchRuntime.open(path, threads=1)
    assert runtime.metadata["name"] == FILES[file]
    picture = blob_of(shared, 0, 640, 640)
    batch = np.concatenate([picture, blob_of(shared, 100, 640, 640)])
    for blob in (picture, batch, blob_of(shared, 200, 320, 256)):
        reference = onnx_rows(path, blob)
        found = rows_of(runtime.run(blob))
        assert largest_gap(found, reference) <= 1e-4
    if FILES[file] != "scrfd_1g":
        assert max(float(scores.max()) for scores in reference[:3]) > 0.3, "a picture with a face was wanted"


def test_own_safetensors_is_its_onnx(shared: Path) -> None:
    folder = shared / "weights" / "own"
    blob = blob_of(shared, 0, 640, 640)
    runtime = PyTorchRuntime.open(folder / "scrfd_500m_kps.safetensors", threads=1)
    assert largest_gap(rows_of(runtime.run(blob)), onnx_rows(folder / "scrfd_500m_kps.onnx", blob)) <= 1e-4


@pytest.mark.parametrize("file", SCALES)
def test_scales_are_the_published_fingerprint(file: str, shared: Path) -> None:
    net, _, _ = import_onnx(shared / "weights" / file)
    assert net.bbox_head.scales is not None
    assert [float(s.scale) for s in net.bbox_head.scales] == pytest.approx(SCALES[file], abs=6e-6)


@pytest.mark.parametrize("file", FILES)
def test_saving_an_import_keeps_every_bit(file: str, shared: Path, tmp_path: Path) -> None:
    net, name, spec = import_onnx(shared / "weights" / file)
    save(tmp_path / "w.safetensors", net, spec, name=name, fused=True)
    again, info = load(tmp_path / "w.safetensors")
    assert (info.name, info.spec, info.fused) == (name, spec, True)
    x = torch.from_numpy(blob_of(shared, 0, 320, 256))
    assert gap(net(x), again(x)) == 0


@pytest.mark.parametrize("name", ZOO)
def test_checkpoints_with_the_official_keys_load(name: str, shared: Path, tmp_path: Path) -> None:
    """Written as mmcv does, with the reference's own list of keys; running variances are made positive."""
    keys = json.loads((shared / "reference/keys" / f"sd_{ZOO[name].config}.json").read_text())
    generator = torch.Generator().manual_seed(0)
    state: dict[str, torch.Tensor] = {}
    for key, shape in keys.items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(640)
        else:
            state[key] = torch.rand(shape, generator=generator) + 0.1
    meta: dict[str, Any] = {"mmdet_version": "2.7.0", "CLASSES": ("FG",), "epoch": 640, "iter": 10, "config": "..."}
    optimizer = {"state": {}, "param_groups": [{"lr": 0.01, "params": list(range(4))}]}
    torch.save({"meta": meta, "state_dict": state, "optimizer": optimizer}, tmp_path / "model.pth")
    net, found, spec = import_pth(tmp_path / "model.pth")
    assert (found, spec) == (name, ZOO[name].spec)
    loaded = net.state_dict()
    assert set(keys) - set(loaded) == {"bbox_head.integral.project"}
    assert all(torch.equal(loaded[key], state[key]) for key in loaded)


@pytest.mark.parametrize("name", ZOO)
def test_folding_batch_norms_keeps_the_scores(name: str, shared: Path) -> None:
    net = random_net(ZOO[name].spec)
    x = torch.from_numpy(blob_of(shared, 0, 128, 96))
    kept, folded = net(x), fuse(net)(x)
    size = max(1.0, *(float(o.abs().max()) for o in kept))
    assert gap(kept, folded) <= 1e-4 * size
    assert gap([o.sigmoid() for o in kept[:3]], [o.sigmoid() for o in folded[:3]]) <= 1e-4
