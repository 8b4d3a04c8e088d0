from __future__ import annotations

import numpy as np
import pytest

from scrfdkit.types import Detections


def faces(n: int, keypoints: int = 5, ids: bool = False) -> Detections:
    rng = np.random.default_rng(n)
    return Detections(
        rng.random((n, 4)).astype(np.float32),
        rng.random(n).astype(np.float32),
        rng.random((n, keypoints, 2)).astype(np.float32) if keypoints else None,
        np.arange(n, dtype=np.int64) if ids else None,
    )


def test_empty_has_the_right_shapes() -> None:
    assert Detections.empty().boxes.shape == (0, 4)
    assert Detections.empty().keypoints is None
    assert Detections.empty(5).keypoints.shape == (0, 5, 2)
    assert len(Detections.concatenate([])) == 0


def test_shapes_that_disagree_are_refused() -> None:
    with pytest.raises(ValueError, match="boxes"):
        Detections(np.zeros((2, 4), np.float32), np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="keypoints"):
        Detections(np.zeros((2, 4), np.float32), np.zeros(2, np.float32), np.zeros((2, 10), np.float32))


def test_indexing_keeps_rows_together() -> None:
    some = faces(7, ids=True)
    for which in (slice(2, 5), np.array([6, 0]), some.scores > 0.5, [1, 1]):
        part = some[which]
        assert np.array_equal(part.boxes, some.boxes[which])
        assert np.array_equal(part.keypoints, some.keypoints[which])
        assert np.array_equal(part.ids, some.ids[which])


def test_sort_scale_shift_clip() -> None:
    some = faces(9)
    ordered = some.sort()
    assert (np.diff(ordered.scores) <= 0).all()
    moved = some.scale(2, 3).shift(1, -1)
    assert np.allclose(moved.boxes, some.boxes * (2, 3, 2, 3) + (1, -1, 1, -1))
    assert np.allclose(moved.keypoints, some.keypoints * (2, 3) + (1, -1))
    clipped = some.scale(100, 100).shift(-50, -50).clip(30, 20)
    assert clipped.boxes.min() >= 0
    assert clipped.boxes[:, 0::2].max() <= 30
    assert clipped.boxes[:, 1::2].max() <= 20


@pytest.mark.parametrize(
    "some", [faces(3), faces(3, 0), faces(3, ids=True), faces(0)], ids=["kps", "none", "ids", "empty"]
)
def test_dict_round_trip(some: Detections) -> None:
    back = Detections.from_dict(some.to_dict(digits=6), num_keypoints=5)
    assert np.allclose(back.boxes, some.boxes, atol=1e-5)
    assert np.allclose(back.scores, some.scores, atol=1e-4)
    assert (back.keypoints is None) == (some.keypoints is None)
    assert (back.ids is None) == (some.ids is None)


def test_concatenate_keeps_order() -> None:
    both = Detections.concatenate([faces(2), faces(3)])
    assert np.array_equal(both.scores, np.concatenate([faces(2).scores, faces(3).scores]))
    assert Detections.concatenate([faces(2), faces(3, 0)]).keypoints is None


def test_one_by_one() -> None:
    some = faces(3, ids=True)
    assert [float(face.scores[0]) for face in some] == [float(s) for s in some.scores]
    for number in (0, 2, -1, np.int64(1)):
        one = some[number]
        assert one.boxes.shape == (1, 4)
        assert np.array_equal(one.keypoints[0], some.keypoints[number])
    for number in (3, -4):
        with pytest.raises(IndexError):
            some[number]
    assert list(Detections.empty(5)) == []
