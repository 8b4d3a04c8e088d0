"""The road of pictures that stay in the device's memory gives what the road of reading threads gives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from scrfdkit.data import formats
from scrfdkit.errors import DeviceError, ImageError
from scrfdkit.train import batches, device
from scrfdkit.train import processes as processes_of
from scrfdkit.train.batches import Share, Source
from scrfdkit.train.captured import CapturedStep
from scrfdkit.train.faces import choose
from scrfdkit.train.order import Order
from scrfdkit.train.pixels import plain
from scrfdkit.train.prepare import prepare
from scrfdkit.train.recipes import find
from scrfdkit.train.schedule import learning_rate
from scrfdkit.train.settings import Settings
from scrfdkit.zoo import find as network

CPU = torch.device("cpu")


def source(folder: Path, **changes: object) -> Source:
    recipe = find("reference").change({"size": 96, "batch": 4} | {k.replace("__", "."): v for k, v in changes.items()})
    faces, _ = choose(formats.read(folder), folder / "images", 5)
    return Source(faces, folder / "images", Order(len(faces), 4, 1), recipe, network("scrfd_500m_kps").spec)


def test_both_roads_give_the_same_samples(toy_set: Path) -> None:
    made = source(toy_set, colour__chance=0, colour__swap=0.5)
    store, kept = device.load(made, CPU, 1024, 2)
    shared = replace(kept, share=Share(rank=1, world=2))
    ours = list(device.stream(shared, store, 0, 5, 2, plain.draw, torch.float32))
    theirs = list(batches.stream(replace(made, share=Share(rank=1, world=2)), 0, 5, 2))
    assert len(ours) == len(theirs) == 5
    for (one,), (other,) in zip(ours, theirs, strict=True):
        assert torch.equal(one.pictures, other.pictures)
        assert one.images.shape == (2, 3, 96, 96)
        # Reading threads round to whole grey levels when they resize.
        assert (one.images - other.images).abs().max() * 128 <= 1
        rows = len(other.targets.valid_P)
        assert len(one.targets.valid_P) == 256
        assert one.targets.valid_P.sum() == rows == other.targets.valid_P.sum()
        assert torch.equal(one.targets.anchor_P[:rows], other.targets.anchor_P)
        assert torch.equal(one.targets.box_P4[:rows], other.targets.box_P4)
        assert one.targets.num_positives == other.targets.num_positives


def test_pictures_may_be_kept_smaller(toy_set: Path) -> None:
    made = source(toy_set)
    store, kept = device.load(made, CPU, 160, 2)
    assert store.sizes.tolist() == [[160, 160]] * 8
    assert torch.allclose(kept.faces.boxes, made.faces.boxes / 2)
    assert kept.faces.sizes.tolist() == [[160, 160]] * 8
    assert next(device.stream(kept, store, 0, 1, 1, plain.draw, torch.bfloat16))[0].images.dtype == torch.bfloat16


def test_labels_of_another_size_are_refused(toy_set: Path, tmp_path: Path) -> None:
    made = source(toy_set)
    for path in made.faces.paths:
        cv2.imwrite(str(tmp_path / path), np.zeros((320, 320, 3), np.uint8))
    cv2.imwrite(str(tmp_path / made.faces.paths[3]), np.zeros((300, 320, 3), np.uint8))
    for side in (1024, 160):
        with pytest.raises(ImageError, match=r"is 320x300, its label says 320x320"):
            device.load(replace(made, folder=tmp_path), CPU, side, 2)


def test_a_picture_that_cannot_be_read_ends_the_stream(toy_set: Path, tmp_path: Path) -> None:
    made = replace(source(toy_set), folder=tmp_path)
    with pytest.raises(ImageError, match=r"astronaut|solvay"):
        next(batches.stream(made, 0, 1, 2))


def test_the_road_needs_a_gpu(toy_set: Path, tmp_path: Path) -> None:
    chosen = Settings("scrfd_500m_kps", str(toy_set), str(tmp_path), find("fast"), device="cpu", road="device")
    with pytest.raises(DeviceError, match="road: device"):
        prepare(chosen, processes_of.start("cpu"), print, resume=False)


@pytest.mark.gpu
@pytest.mark.parametrize("model", ["scrfd_500m_kps", "scrfd_2.5g_kps", "scrfd_2.5g"])
def test_the_recorded_step_equals_the_plain_one(model: str, toy_set: Path, tmp_path: Path) -> None:
    recipe = find("fast").change({"size": 320, "batch": 8, "steps": 400, "optimiser.lr": 0.0005})
    said: list[str] = []
    results = []
    for compile in (True, False):
        chosen = Settings(model, str(toy_set), str(tmp_path), recipe, device="cuda", compile=compile, seed=3)
        made = prepare(chosen, processes_of.start("cuda"), said.append, resume=False)
        assert isinstance(made.step, CapturedStep) == compile
        found = [
            made.step(parts, learning_rate(recipe.schedule, recipe.optimiser.lr, step, 400))
            for step, parts in enumerate(made.batches(0, 40))
        ]
        results.append(torch.stack(found).cpu())
        assert made.average is not None
        assert int(made.average.n_averaged) == 40
    assert not [text for text in said if "warning" in text]
    first, second = (r[:, :3].sum(1) for r in results)
    assert torch.allclose(first[0], second[0], rtol=0.02)
    assert torch.allclose(first[-10:].mean(), second[-10:].mean(), rtol=0.15)
    assert first[-5:].mean() < 0.9 * first[:5].mean()
