"""The kernel and the store on a CUDA device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pixel_samples import LEVELS, noise, random_views, view

from scrfdkit.errors import DeviceError
from scrfdkit.spec import Input
from scrfdkit.train.pixels import plain
from scrfdkit.train.pixels.store import Store

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def _cuda() -> None:
    pytest.importorskip("triton")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")


def test_equals_plain_torch() -> None:
    from scrfdkit.train.pixels import fused

    assert fused.check("cuda") < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_types_and_sizes(dtype: torch.dtype) -> None:
    from scrfdkit.train.pixels import fused

    store = Store.of([noise(120, 70, 0, 64), noise(60, 110, 1, 64)], "cuda")
    rows, views = torch.arange(40, device="cuda") % 2, torch.from_numpy(random_views(40)).cuda()
    for size in (32, 640):
        made = fused.draw(store, rows, views, size, Input(), dtype)
        expected = plain.draw(store, rows, views, size, Input(), dtype)
        assert made.is_contiguous(memory_format=torch.channels_last)
        assert float((made.float() - expected.float()).abs().max()) <= (1e-5 if dtype == torch.float32 else 0.02)


def test_can_be_captured() -> None:
    from scrfdkit.train.pixels import fused

    store = Store.of([noise(120, 70)], "cuda")
    rows, views = torch.zeros(4, dtype=torch.int64, device="cuda"), torch.from_numpy(random_views(4)).cuda()
    for how in (fused, plain):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            how.draw(store, rows, views, 64, LEVELS)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            made = how.draw(store, rows, views, 64, LEVELS)
        views.copy_(torch.from_numpy(random_views(4, 7)))
        graph.replay()
        assert torch.equal(made, how.draw(store, rows, views, 64, LEVELS))


def test_pictures_beyond_2_31_pixels() -> None:
    from scrfdkit.train.pixels import fused

    start = 2**31 + 12_345
    if torch.cuda.mem_get_info()[0] < 4 * start + 2**30:
        pytest.skip("needs 10 GB of the device's memory")
    small = Store.of([noise(40, 30)], "cuda")
    pixels = torch.empty(start + 1200, dtype=torch.int32, device="cuda")
    pixels[start:] = small.pixels
    offsets = torch.tensor([0, start], device="cuda")
    large = Store(pixels, offsets, small.sizes.repeat(2, 1), small.scales.repeat(2))
    row = torch.from_numpy(view(left=-3, top=-3, side=35)).cuda()[None]
    for how in (fused, plain):
        one = how.draw(large, torch.tensor([1], device="cuda"), row, 20, LEVELS)
        assert torch.equal(one, how.draw(small, torch.tensor([0], device="cuda"), row, 20, LEVELS))


def test_store_is_the_same_as_on_the_cpu(examples: Path) -> None:
    paths = sorted(examples.glob("*.jpg"))
    on_cpu, on_cuda = (Store.load(paths, device, long_side=400, workers=2) for device in ("cpu", "cuda"))
    for one, other in zip(vars(on_cpu).values(), vars(on_cuda).values(), strict=True):
        assert other.is_cuda
        assert torch.equal(one, other.cpu())


def test_store_that_does_not_fit(examples: Path) -> None:
    """The same picture so often that no device holds it."""
    path = next(iter(sorted(examples.glob("*.jpg"))))
    pixels = len(Store.load([path], "cpu").pixels)
    often = torch.cuda.mem_get_info()[1] // (4 * pixels) + 1
    with pytest.raises(DeviceError, match="GB are free; shrink them"):
        Store.load([path] * often, "cuda", workers=4)
