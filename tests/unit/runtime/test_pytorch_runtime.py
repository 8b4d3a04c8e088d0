"""The PyTorch runtime: what it opens, that threads may share it, and that it leaves torch's settings alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import random_net

from scrfdkit.errors import ModelError, WeightError
from scrfdkit.model.checkpoint import save
from scrfdkit.runtime.pytorch import PyTorchRuntime
from scrfdkit.spec import ModelSpec
from scrfdkit.weights import embedded
from scrfdkit.zoo import ZOO

SPEC = ZOO["scrfd_500m_kps"].spec


@pytest.fixture(scope="module")
def runtime() -> PyTorchRuntime:
    return PyTorchRuntime.open(embedded(".safetensors"), threads=1)


def blob(batch: int = 1, height: int = 96, width: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(batch, 3, height, width)).astype(np.float32)


def test_it_says_what_it_is(runtime: PyTorchRuntime) -> None:
    assert (runtime.device, runtime.input_size, runtime.batch_size) == ("cpu", None, None)
    assert runtime.metadata["name"] == "scrfd_500m_kps"
    assert ModelSpec.from_json(runtime.metadata["spec"]) == SPEC


def test_maps_come_as_float32_scores_boxes_keypoints(runtime: PyTorchRuntime) -> None:
    outputs = runtime.run(blob(batch=3))
    assert [o.shape for o in outputs] == [(3, c, 96 // s, 64 // s) for c in (2, 8, 20) for s in (8, 16, 32)]
    assert {o.dtype for o in outputs} == {np.dtype(np.float32)}


def test_a_batch_is_its_pictures(runtime: PyTorchRuntime) -> None:
    both = blob(batch=2)
    for i in range(2):
        for whole, alone in zip(runtime.run(both), runtime.run(both[i : i + 1]), strict=True):
            np.testing.assert_allclose(whole[i : i + 1], alone, atol=1e-5)


def test_opening_keeps_the_weights(tmp_path: Path) -> None:
    """Folded or not, from .pth or .safetensors: the same network."""
    net = random_net(SPEC)
    wanted = [o.numpy() for o in net(torch.from_numpy(blob()))]
    save(tmp_path / "kept.safetensors", net, SPEC, name="scrfd_500m_kps", licence="free")
    torch.save({"state_dict": net.state_dict()}, tmp_path / "model.pth")
    for name in ("kept.safetensors", "model.pth"):
        found = PyTorchRuntime.open(tmp_path / name, threads=1)
        for a, b in zip(found.run(blob()), wanted, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
    assert PyTorchRuntime.open(tmp_path / "kept.safetensors").metadata["licence"] == "free"


def test_eight_threads_share_it(runtime: PyTorchRuntime) -> None:
    blobs = [blob(height=64 + 32 * (i % 3), seed=i) for i in range(8)]
    wanted = [runtime.run(b) for b in blobs]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for found, right in zip(pool.map(runtime.run, blobs), wanted, strict=True):
                assert all(np.array_equal(a, b) for a, b in zip(found, right, strict=True))


def test_number_of_threads_is_kept_inside_a_run_and_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[int] = []
    opened = PyTorchRuntime.open(embedded(".safetensors"), threads=3)
    opened._net.register_forward_hook(lambda *_: found.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        opened.run(blob())
        assert (found, torch.get_num_threads()) == ([3], 2)
        opened._net.register_forward_hook(lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            opened.run(blob())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_blobs_of_any_memory_layout(runtime: PyTorchRuntime) -> None:
    usual = blob(batch=2)
    wanted = runtime.run(usual)
    frozen = usual.copy()
    frozen.flags.writeable = False
    strided = np.ascontiguousarray(usual.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    for other in (frozen, strided, usual[::-1][::-1]):
        kept = other.copy()
        assert all(np.array_equal(a, b) for a, b in zip(runtime.run(other), wanted, strict=True))
        assert np.array_equal(other, kept)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((3, 64, 64), np.float32), "is needed, got"),
        (np.zeros((1, 1, 64, 64), np.float32), "is needed, got"),
        (np.zeros((1, 3, 64, 64), np.float64), "float64"),
        (np.zeros((1, 3, 64, 100), np.float32), "100x64.*multiples of 32"),
    ],
)
def test_bad_blobs_are_refused(runtime: PyTorchRuntime, bad: np.ndarray, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        runtime.run(bad)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_without_cuda_it_falls_back_and_says_so(device: str) -> None:
    assert PyTorchRuntime.open(embedded(".safetensors"), device=device).device == "cpu"


@pytest.mark.gpu
def test_cuda_gives_what_the_cpu_gives(runtime: PyTorchRuntime) -> None:
    cuda = PyTorchRuntime.open(embedded(".safetensors"), device="cuda")
    assert cuda.device == "cuda"
    for a, b in zip(cuda.run(blob(2, 640, 640)), runtime.run(blob(2, 640, 640)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for name in ("w.safetensors", "w.pth", "w.onnx"):
        with pytest.raises(WeightError, match=name.replace(".", r"\.")):
            PyTorchRuntime.open(tmp_path / name)
