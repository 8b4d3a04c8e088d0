"""Every picture of a data set decoded once and kept on the device that trains."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from scrfdkit import image
from scrfdkit.data import pictures
from scrfdkit.errors import DeviceError, ImageError
from scrfdkit.types import Image

BYTES = 4
"""Memory a pixel takes: three channels and a byte of nothing, so that one aligned load fetches all of them."""

_SHARE = 0.7  # of the free memory; the rest is for the network


@dataclass(frozen=True, eq=False)
class Store:
    """N pictures, one after the other, without gaps; all tensors are on one device.

    pixels: (P,) int32, R | G << 8 | B << 16, rows from the top. offsets: (N,) int64, where each picture starts: a data
    set may have more pixels than 32 bits count. sizes: (N, 2) int32 width, height. scales: (N,) float32, pixels here a
    pixel of the file, 1 unless it was shrunk; exact for the long side, the short one is rounded to whole pixels.
    """

    pixels: Tensor
    offsets: Tensor
    sizes: Tensor
    scales: Tensor

    @classmethod
    def of(cls, images: Sequence[Image], device: torch.device | str) -> Store:
        """A store of pictures already decoded."""
        sizes = [(picture.shape[1], picture.shape[0]) for picture in images]
        store = _empty(sizes, [1.0] * len(sizes), torch.device(device))
        for picture, start in zip(images, _starts(sizes), strict=False):
            _put(store.pixels, start, picture)
        return store

    @classmethod
    def load(
        cls,
        paths: Sequence[Path],
        device: torch.device | str,
        *,
        long_side: int | None = None,
        workers: int = 8,
        progress: Callable[[int, int], None] | None = None,
    ) -> Store:
        """Reads every picture, upright, in `workers` threads; the host holds one picture a thread at a time.

        long_side: pictures with a longer side are shrunk to it, by averaging. progress: told the number of pictures
        done and of all, from the calling thread.

        Raises ImageError, naming the file, for a picture that cannot be read, and DeviceError, before anything is
        allocated, where the pictures take more memory than is free on a GPU.
        """
        device = torch.device(device)
        pool = ThreadPoolExecutor(workers)
        try:
            originals = list(pool.map(pictures.size, paths))
            scales = [_scale(size, long_side) for size in originals]
            sizes = [_scaled(size, scale) for size, scale in zip(originals, scales, strict=True)]
            starts = _starts(sizes)
            if device.type == "cuda":
                require_room(BYTES * starts[-1], int(_SHARE * torch.cuda.mem_get_info(device)[0]), device)
            store = _empty(sizes, scales, device)
            copies = pool.map(functools.partial(_read, store.pixels), paths, originals, sizes, starts[:-1])
            for done, _ in enumerate(copies, 1):
                if progress is not None:
                    progress(done, len(paths))
        finally:
            pool.shutdown(cancel_futures=True)  # who interrupts does not want to wait for thousands of pictures
        return store


def require_room(need: int, free: int, device: torch.device) -> None:
    """Raises DeviceError unless `need` bytes of pictures fit into the `free` bytes of a device."""
    if need > free:
        raise DeviceError(
            f"{device}: the decoded pictures take {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free for them;"
            " shrink them (a smaller long side for the store), or let workers read them for every batch"
        )


def _starts(sizes: Sequence[tuple[int, int]]) -> list[int]:
    """Where each picture starts, and after them where the last one ends."""
    areas = np.array([width * height for width, height in sizes], np.int64)
    return [0, *np.cumsum(areas).tolist()]


def _empty(sizes: Sequence[tuple[int, int]], scales: Sequence[float], device: torch.device) -> Store:
    starts = _starts(sizes)
    return Store(
        torch.empty(starts[-1], dtype=torch.int32, device=device),
        torch.tensor(starts[:-1], dtype=torch.int64, device=device),
        torch.tensor(sizes, dtype=torch.int32, device=device).reshape(-1, 2),
        torch.tensor(scales, dtype=torch.float32, device=device),
    )


def _scale(size: tuple[int, int], long_side: int | None) -> float:
    return 1.0 if long_side is None else min(1.0, long_side / max(size))


def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _read(pixels: Tensor, path: Path, original: tuple[int, int], size: tuple[int, int], start: int) -> None:
    """Decodes one picture into its place."""
    picture = image.load(path).pixels
    if picture.shape[1::-1] != original:
        told, found = (f"{width}x{height}" for width, height in (original, picture.shape[1::-1]))
        raise ImageError(f"{path}: its header promises {told}, but decoded it is {found}; write the file anew")
    if size != original:
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    _put(pixels, start, picture)


def _put(pixels: Tensor, start: int, picture: Image) -> None:
    colours = torch.from_numpy(packed(picture))
    pixels[start : start + len(colours)].copy_(colours)


def packed(picture: Image) -> NDArray[np.int32]:
    """(h, w, 3) uint8 BGR as (h * w,) int32, R | G << 8 | B << 16."""
    colours = cv2.cvtColor(picture, cv2.COLOR_BGR2RGBA).view("<i4").reshape(-1)
    colours &= 0xFFFFFF  # without the alpha that came along
    return np.asarray(colours, np.int32)
