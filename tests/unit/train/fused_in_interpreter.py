"""Runs the kernel in Triton's interpreter and prints what came out, one JSON object; needs TRITON_INTERPRET=1 set
before Triton is imported, so it is a process of its own. Argument: a folder for a sparse file."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from pixel_samples import LEVELS, noise, random_views, view

from scrfdkit.spec import Input
from scrfdkit.train.pixels import fused, plain
from scrfdkit.train.pixels.store import Store


def difference(store: Store, views: torch.Tensor, rows: torch.Tensor, size: int) -> float:
    made, expected = (how.draw(store, rows, views, size, LEVELS) for how in (fused, plain))
    return float((made - expected).abs().max())


def windows() -> torch.Tensor:
    """Larger than the picture on all sides, a pixel of it at two corners, beside it, one pixel, exactly it."""
    places = ((-30, -45, 200), (119, 69, 40), (-39, -39, 40), (500, -500, 80), (17, 23, 1), (0, 0, 70))
    rows = [view(left=left, top=top, side=side, flip=i % 2) for i, (left, top, side) in enumerate(places)]
    return torch.stack([torch.from_numpy(row) for row in rows])


def far(folder: Path) -> tuple[Store, torch.Tensor]:
    """A picture that starts beyond 2^31 pixels."""
    start = 2**31 + 12_345
    pixels = torch.from_file(str(folder / "pixels"), shared=True, size=start + 1200, dtype=torch.int32)
    small = Store.of([noise(40, 30)], "cpu")
    pixels[start:] = small.pixels
    return Store(pixels, torch.tensor([0, start]), small.sizes.repeat(2, 1), small.scales.repeat(2)), torch.tensor([1])


def main() -> None:
    store = Store.of([noise(120, 70), noise(60, 110, 1)], "cpu")
    rows = torch.arange(24) % 2
    views = torch.from_numpy(random_views(24, 3))
    orders = torch.stack([torch.from_numpy(view(side=24, order=i, brightness=5, gray=i == 5)) for i in range(6)])
    far_store, far_row = far(Path(sys.argv[1]))
    wide = fused.draw(store, rows[:3], views[:3], 20, Input())
    narrow = {str(t): fused.draw(store, rows[:3], views[:3], 20, Input(), t) for t in (torch.bfloat16, torch.float16)}
    result = {
        "check": fused.check("cpu"),
        "random": difference(store, views, rows, 30),
        "windows": difference(store, windows(), torch.zeros(6, dtype=torch.int64), 23),
        "orders": difference(store, orders, rows[:6], 24),
        "far": difference(far_store, torch.from_numpy(view(left=-3, top=-3, side=35))[None], far_row, 20),
        "exact": float((wide - plain.draw(store, rows[:3], views[:3], 20, Input())).abs().max()),
        "narrow": {name: float(((made - wide) / wide).abs().max()) for name, made in narrow.items()},
        "format": all(made.is_contiguous(memory_format=torch.channels_last) for made in (wide, *narrow.values())),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
