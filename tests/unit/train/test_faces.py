"""Labels as tensors: what is left out, and padded batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from scrfdkit.data.labels import LabelledImage
from scrfdkit.errors import ImageError, OptionError
from scrfdkit.train.faces import choose


def labelled(
    path: str, boxes: list[tuple[float, ...]], ignore: tuple[int, ...] = (), points: int | None = 5, **size: int
):
    n = len(boxes)
    keypoints = None if points is None else np.full((n, points, 3), 7, np.float32)
    mask = np.isin(np.arange(n), ignore)
    array = np.array(boxes, np.float32).reshape(n, 4)
    return LabelledImage(path, size.get("width", 100), size.get("height", 80), array, mask, keypoints)


A = (10, 10, 30, 30)
B = (40, 40, 60, 70)


def test_batches_are_padded_and_ignored_faces_do_not_count() -> None:
    faces, notes = choose(
        [labelled("a.jpg", [A]), labelled("b.jpg", [A, B, A], ignore=(1,)), labelled("c.jpg", [B])], Path(), 5
    )
    assert notes == ()
    batch = faces.of(torch.tensor([2, 1]))
    assert batch.boxes_BG4.shape == (2, 3, 4)
    assert batch.points_BGK3.shape == (2, 3, 5, 3)
    assert batch.face_BG.tolist() == [[True, False, False], [True, False, True]]
    assert batch.boxes_BG4[1].tolist() == [list(A), list(B), list(A)]
    assert batch.sizes_B2.tolist() == [[100, 80], [100, 80]]
    assert faces.of(torch.tensor([0])).boxes_BG4.shape == (1, 1, 4)


def test_what_cannot_be_learnt_from_is_left_out_and_told() -> None:
    faces, notes = choose(
        [
            labelled("good.jpg", [A, (20, 20, 20, 40), (300, 10, 320, 30)]),
            labelled("empty.jpg", []),
            labelled("ignored.jpg", [A], ignore=(0,)),
            labelled("thin.jpg", [A], width=31),
        ],
        Path(),
        5,
    )
    assert faces.paths == ("good.jpg",)
    assert faces.boxes.tolist() == [list(A)]
    assert set(notes) == {
        "left out: 2 x face without width, height or a place in its picture",
        "left out: 1 x picture without faces",
        "left out: 1 x picture whose faces are all ignored",
        "left out: 1 x picture with a side below 32 pixels",
    }


def test_backgrounds_can_be_kept() -> None:
    faces, _ = choose([labelled("a.jpg", [A]), labelled("empty.jpg", [])], Path(), 0, backgrounds=True)
    assert faces.paths == ("a.jpg", "empty.jpg")
    assert not faces.of(torch.tensor([1])).face_BG.any()
    only, _ = choose([labelled("empty.jpg", [])], Path(), 5, backgrounds=True)
    assert only.of(torch.tensor([0])).points_BGK3.shape == (1, 1, 5, 3)


def test_labels_without_points_count_as_not_labelled() -> None:
    faces, _ = choose([labelled("a.jpg", [A], points=None)], Path(), 5)
    assert (faces.points == -1).all()
    assert faces.points.shape == (1, 5, 3)


def test_another_number_of_points_is_an_error() -> None:
    with pytest.raises(OptionError, match=r"a\.jpg: its faces have 68 key points, the network has 5.*--keypoints 68"):
        choose([labelled("a.jpg", [A], points=68)], Path(), 5)


def test_nothing_to_learn_from() -> None:
    with pytest.raises(OptionError, match="no picture has a face"):
        choose([labelled("empty.jpg", [])], Path(), 5)


def test_unknown_sizes_are_read_from_the_pictures(examples: Path) -> None:
    faces, _ = choose([labelled("astronaut.jpg", [A], width=0, height=0)], examples, 5)
    assert faces.sizes.tolist() == [[512, 512]]
    with pytest.raises(ImageError, match=r"none\.jpg"):
        choose([labelled("none.jpg", [A], width=0, height=0)], examples, 5)


def test_scaled_labels_follow_their_pictures() -> None:
    faces, _ = choose([labelled("a.jpg", [A]), labelled("b.jpg", [A, B])], Path(), 5)
    small = faces.scaled(torch.tensor([1.0, 0.5]))
    assert small.boxes.tolist() == [list(A), [5, 5, 15, 15], [20, 20, 30, 35]]
    assert small.points[0, 0].tolist() == [7, 7, 7]
    assert small.points[1, 0].tolist() == [3.5, 3.5, 7]
    assert small.sizes.tolist() == [[100, 80], [50, 40]]
