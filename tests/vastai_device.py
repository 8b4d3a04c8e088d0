"""onnxruntime in place of a Vastai device: packed pictures in, numbered files of outputs out, as `vamp` does it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
from export_files import Array, session

from scrfdkit import letterbox
from scrfdkit.evaluate import reference
from scrfdkit.spec import Input


def blob_of(planes: Array, canvas: tuple[int, int], fed: Literal["corner", "centre"]) -> Array:
    """(3, H, W) uint8 RGB, letterboxed in the corner as `scrfd eval` does it, or in the centre as the device does."""
    picture = np.ascontiguousarray(planes.transpose(1, 2, 0)[:, :, ::-1])
    placement = reference.place(picture.shape[1], picture.shape[0], canvas)
    (across, down), (left, top) = placement.size, (0, 0)
    if fed == "centre":
        left, top = (canvas[0] - across) // 2, (canvas[1] - down) // 2
    blob = np.zeros((1, 3, canvas[1], canvas[0]), np.float32)
    part = blob[0, :, top : top + down, left : left + across]
    letterbox.draw(picture, replace(placement, canvas=placement.size), part, Input(), fill=reference.GREY)
    return blob


def run(graph: Path, listed: Path, folder: Path, fed: Literal["corner", "centre"] = "corner") -> Path:
    """Runs a graph of maps on every packed picture of a list."""
    network = session(graph)
    (given,) = network.get_inputs()
    folder.mkdir()
    for number, line in enumerate(listed.read_text().splitlines()):
        with np.load(line) as packed:
            blob = blob_of(packed["input_0"], (given.shape[3], given.shape[2]), fed)
        outputs = network.run(None, {given.name: blob})
        np.savez(folder / f"output_{number}.npz", **{f"output_{i}": array for i, array in enumerate(outputs)})
    return folder
