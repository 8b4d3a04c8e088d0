"""Pictures and views for the tests of `train.pixels`, and what a sample is, in the steps of the published pipeline."""

from __future__ import annotations

from itertools import permutations

import cv2
import numpy as np
import torch

from scrfdkit.spec import Input
from scrfdkit.train.crops import VIEW
from scrfdkit.train.pixels import plain
from scrfdkit.train.pixels.store import Store
from scrfdkit.types import Floats, Image

LEVELS = Input(mean=0.0, std=1.0)  # samples in grey levels
NEUTRAL = dict.fromkeys(VIEW, 0.0) | {"side": 1.0, "contrast": 1.0, "saturation": 1.0}


def noise(width: int, height: int, seed: int = 0, lowest: int = 0) -> Image:
    return np.random.default_rng(seed).integers(lowest, 256, (height, width, 3)).astype(np.uint8)


def view(**changes: float) -> Floats:
    """One view by the names of its columns."""
    assert set(changes) <= set(VIEW)
    return np.array([(NEUTRAL | changes)[name] for name in VIEW], np.float32)


def random_views(n: int, seed: int = 0, *, colours: bool = True) -> Floats:
    """Windows around and beyond pictures of some 100 pixels; half of the colours' changes are none."""
    random = np.random.default_rng(seed)

    def maybe(low: float, high: float, otherwise: float) -> float:
        return float(random.uniform(low, high)) if colours and random.random() < 0.5 else otherwise

    return np.stack(
        [
            view(
                left=int(random.integers(-80, 80)),
                top=int(random.integers(-80, 80)),
                side=int(random.integers(1, 220)),
                flip=int(random.integers(2)),
                brightness=maybe(-32, 32, 0),
                contrast=maybe(0.5, 1.5, 1),
                contrast_first=int(random.integers(2)),
                saturation=maybe(0.5, 1.5, 1),
                hue=maybe(-18, 18, 0),
                order=int(random.integers(6)) if colours else 0,
                gray=maybe(1, 1, 0),
            )
            for _ in range(n)
        ]
    )


def drawn(picture: Image, row: Floats, size: int, spec: Input = LEVELS) -> Floats:
    """One sample by `plain`, (3, size, size)."""
    store = Store.of([picture], "cpu")
    sample = plain.draw(store, torch.zeros(1, dtype=torch.int64), torch.from_numpy(row)[None], size, spec)
    return sample[0].numpy()


def published(picture: Image, row: Floats, size: int) -> Floats:
    """One sample in grey levels the slow way: a wide border, OpenCV on floats, one step after the other."""
    v = dict(zip(VIEW, row.tolist(), strict=True))
    left, top, side = int(v["left"]), int(v["top"]), int(v["side"])
    border = max(-left, -top, left + side - picture.shape[1], top + side - picture.shape[0], 0)
    padded = np.pad(picture, ((border, border), (border, border), (0, 0)), constant_values=128).astype(np.float32)
    pixels = padded[top + border : top + border + side, left + border : left + border + side]
    pixels = cv2.resize(pixels, (size, size), interpolation=cv2.INTER_LINEAR)
    pixels = pixels[:, ::-1] if v["flip"] else pixels
    pixels = pixels + np.float32(v["brightness"])
    if v["contrast_first"]:
        pixels = pixels * np.float32(v["contrast"])
    if v["saturation"] != 1 or v["hue"] != 0:
        pixels = turned(pixels, v["saturation"], v["hue"])
    if not v["contrast_first"]:
        pixels = pixels * np.float32(v["contrast"])
    pixels = pixels[..., list(permutations(range(3)))[int(v["order"])]]
    if v["gray"]:
        pixels = np.repeat(pixels @ np.array([0.114, 0.587, 0.299], np.float32)[:, None], 3, axis=2)
    return np.ascontiguousarray(pixels[..., ::-1].transpose(2, 0, 1))


def turned(bgr: Floats, saturation: float, hue: float) -> Floats:
    hsv = cv2.cvtColor(np.ascontiguousarray(bgr), cv2.COLOR_BGR2HSV)
    hsv[..., 1] *= saturation
    hsv[..., 0] += hue
    hsv[..., 0][hsv[..., 0] > 360] -= 360
    hsv[..., 0][hsv[..., 0] < 0] += 360
    result: Floats = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
    return result
