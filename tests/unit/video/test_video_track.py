"""Ids: the same face keeps its number, every face has one, numbers start at 1 and rise."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from scrfdkit.errors import MissingExtraError
from scrfdkit.types import Detections
from scrfdkit.video.track import Tracker


def at(*rows: tuple[float, float, float, float], score: float = 0.9) -> Detections:
    return Detections(np.array(rows, np.float32).reshape(-1, 4), np.full(len(rows), score, np.float32))


def ids(detections: Detections) -> list[int]:
    assert detections.ids is not None
    assert detections.ids.dtype == np.int64
    return list(detections.ids.tolist())


def test_two_faces_that_pass_each_other_keep_their_ids() -> None:
    tracker = Tracker()
    for i in range(60):
        left, right = (10 + 5 * i, 0, 50 + 5 * i, 50), (310 - 5 * i, 45, 350 - 5 * i, 95)
        rows = (left, right) if i % 2 == 0 else (right, left)  # the order of the detector means nothing
        got = ids(tracker.update(at(*rows)))
        assert got == ([1, 2] if i % 2 == 0 else [2, 1])


def test_a_face_that_was_missed_for_a_while_keeps_its_id() -> None:
    tracker = Tracker()
    seen = []
    for i in range(40):
        missed = 10 <= i < 22
        got = ids(tracker.update(at() if missed else at((100 + i * 2, 50, 160 + i * 2, 120))))
        seen += got
    assert set(seen) == {1}
    assert len(seen) == 28


def test_new_faces_count_up_from_one_in_order_of_appearance() -> None:
    tracker = Tracker()
    assert ids(tracker.update(at((0, 0, 20, 20)))) == [1]
    assert ids(tracker.update(at((300, 0, 320, 20), (0, 0, 20, 20)))) == [2, 1]
    assert ids(tracker.update(at())) == []
    assert ids(tracker.update(at((600, 0, 620, 20)))) == [3]


def test_two_videos_do_not_share_numbers() -> None:
    Tracker().update(at((0, 0, 20, 20), (50, 0, 70, 20)))
    assert ids(Tracker().update(at((0, 0, 20, 20)))) == [1]


@pytest.mark.parametrize("score", [0.0, 0.02, 0.3, 1.0])
def test_weak_faces_have_ids_too_and_keep_them(score: float) -> None:
    tracker = Tracker()
    got = [ids(tracker.update(at((10, 10, 40, 40), score=score))) for _ in range(5)]
    assert got == [[1]] * 5


def test_odd_boxes_break_nothing_and_ids_stay_unique() -> None:
    tracker = Tracker()
    odd = at((5, 5, 5, 5), (10, 10, 8, 9), (-50, -50, -10, -10), (0, 0, 1e6, 1e6), (7, 7, 30, 30), (7, 7, 30, 30))
    for _ in range(10):
        got = ids(tracker.update(odd))
        assert len(set(got)) == len(odd)
        assert min(got) >= 1


def test_everything_but_the_ids_is_untouched() -> None:
    points = np.arange(20, dtype=np.float32).reshape(2, 5, 2)
    found = Detections(np.array([[0, 0, 9, 9], [50, 50, 70, 80]], np.float32), np.array([0.4, 0.8], np.float32), points)
    named = Tracker().update(found)
    assert named.boxes is found.boxes
    assert named.scores is found.scores
    assert named.keypoints is points


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trackforge", None)
    with pytest.raises(MissingExtraError, match=r"scrfdkit\[track\]"):
        Tracker()
