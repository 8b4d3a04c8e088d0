"""Filling in faces: where they are put, how long frames wait, and how much is remembered."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrfdkit.types import Detections
from scrfdkit.video.bridge import Filled, bridge


def faces(*places: tuple[int, float], named: bool = True, points: bool = True) -> Detections:
    """A 10 x 10 face at x for each (id, x), with score x / 1000."""
    if not places:
        return Detections.empty(5 if points else 0)
    x = np.array([p for _, p in places], np.float32)
    boxes = np.stack([x, 0 * x, x + 10, 0 * x + 10], 1)
    keypoints = np.repeat(boxes[:, None, :2], 5, 1) + 1 if points else None
    return Detections(boxes, x / 1000, keypoints, np.array([i for i, _ in places], np.int64) if named else None)


def seen_at(filled: Filled[int]) -> dict[int, float]:
    assert filled.detections.ids is not None or not len(filled.detections)
    ids = [] if filled.detections.ids is None else filled.detections.ids.tolist()
    return dict(zip(ids, filled.detections.boxes[:, 0].tolist(), strict=True))


def run(found: list[Detections | None], **options: int) -> list[Filled[int]]:
    out = list(bridge(enumerate(found), **options))
    assert [f.item for f in out] == list(range(len(found)))
    return out


def test_a_gap_is_crossed_in_a_straight_line() -> None:
    out = run([faces((1, 100)), faces(), faces(), faces(), faces((1, 180))], max_gap=3)
    assert [seen_at(f) for f in out] == [{1: 100}, {1: 120}, {1: 140}, {1: 160}, {1: 180}]
    assert [f.bridged.tolist() for f in out] == [[False], [True], [True], [True], [False]]
    assert [round(float(f.detections.scores[0]), 4) for f in out] == [0.1, 0.12, 0.14, 0.16, 0.18]
    middle = out[2].detections.keypoints
    assert middle is not None
    assert middle.tolist() == [[[141, 1]] * 5]
    assert all(f.detected for f in out)


def test_a_longer_gap_stays_open() -> None:
    out = run([faces((1, 100)), faces(), faces(), faces(), faces((1, 180))], max_gap=2)
    assert [seen_at(f) for f in out] == [{1: 100}, {}, {}, {}, {1: 180}]


def test_one_face_comes_back_while_another_stays_and_a_third_comes() -> None:
    out = run([faces((1, 0), (2, 50)), faces((2, 51)), faces((2, 52), (3, 90)), faces((1, 30), (2, 53))], max_gap=5)
    assert [seen_at(f) for f in out] == [{1: 0, 2: 50}, {2: 51, 1: 10}, {2: 52, 3: 90, 1: 20}, {1: 30, 2: 53}]
    assert [f.bridged.tolist() for f in out] == [[False, False], [False, True], [False, False, True], [False, False]]


def test_frames_not_looked_at_are_bridged_whatever_the_gap_allowed() -> None:
    out = run([faces((1, 0)), None, None, faces((1, 30)), None], every=3, max_gap=0)
    assert [seen_at(f) for f in out] == [{1: 0}, {1: 10}, {1: 20}, {1: 30}, {1: 30}]
    assert [f.detected for f in out] == [True, False, False, True, False]


def test_faces_known_on_one_side_cover_the_frames_not_looked_at() -> None:
    """Leaving (1), arriving (2): nobody knows when, so both are there all the way."""
    out = run([faces((1, 100)), None, None, faces((2, 300)), None, None, faces()], every=3)
    assert [seen_at(f) for f in out] == [{1: 100}, {1: 100, 2: 300}, {1: 100, 2: 300}, {2: 300}, {2: 300}, {2: 300}, {}]


def test_without_ids_faces_of_both_sides_cover_the_frames_between() -> None:
    out = run([faces((0, 100), named=False), None, faces((0, 120), named=False)], every=2, max_gap=9)
    assert out[1].detections.ids is None
    assert out[1].detections.boxes[:, 0].tolist() == [100, 120]
    assert out[1].bridged.tolist() == [True, True]


def test_hold_keeps_a_face_before_and_after() -> None:
    out = run([faces(), faces(), faces(), faces((1, 100)), faces(), faces(), faces(), faces()], hold=2)
    assert [seen_at(f) for f in out] == [{}, {1: 100}, {1: 100}, {1: 100}, {1: 100}, {1: 100}, {}, {}]
    assert [f.bridged.tolist() for f in out][3] == [False]


def test_hold_without_ids() -> None:
    out = run([faces(named=False), faces((0, 7), named=False), faces(named=False), faces(named=False)], hold=1)
    assert [len(f.detections) for f in out] == [1, 1, 1, 0]


def test_faces_without_key_points_have_none_where_they_are_filled_in() -> None:
    out = run([faces((1, 0), points=False), faces(points=False), faces((1, 20), points=False)], max_gap=1)
    assert out[1].detections.keypoints is None
    assert seen_at(out[1]) == {1: 10}


def feed(found: list[Detections | None], pulled: list[int]) -> Iterator[tuple[int, Detections | None]]:
    for i, one in enumerate(found):
        pulled.append(i)
        yield i, one


def test_frames_wait_only_while_a_face_may_come_back() -> None:
    pulled: list[int] = []
    found: list[Detections | None] = [faces((1, 0))] * 5 + [faces()] * 40
    lag = [pulled[-1] - f.item for f in bridge(feed(found, pulled), max_gap=10)]
    assert lag[:5] == [0] * 5
    assert max(lag) == 10
    assert lag[20:] == [0] * 25


@given(
    every=st.integers(1, 4),
    max_gap=st.integers(0, 6),
    hold=st.integers(0, 5),
    named=st.booleans(),
    rows=st.lists(st.sets(st.integers(1, 4)), min_size=1, max_size=40),
)
def test_nothing_is_lost_waits_too_long_or_is_covered_less(
    every: int, max_gap: int, hold: int, named: bool, rows: list[set[int]]
) -> None:
    found = [
        faces(*[(i, 100 * i + n) for i in sorted(ids)], named=named) if n % every == 0 else None
        for n, ids in enumerate(rows)
    ]
    pulled: list[int] = []
    out = []
    for one in bridge(feed(found, pulled), every=every, max_gap=max_gap, hold=hold):
        assert pulled[-1] - one.item <= max(max_gap, hold) + 2 * every
        out.append(one)
    assert [f.item for f in out] == list(range(len(rows)))
    limit = max(max_gap, every - 1)
    for n, one in enumerate(out):
        seen = found[n]
        if seen is not None:  # what was found stays first and untouched
            assert np.array_equal(one.detections.boxes[: len(seen)], seen.boxes)
            assert not one.bridged[: len(seen)].any()
            assert one.bridged[len(seen) :].all()
        if not named:
            continue
        for face in range(1, 5):  # against the definition, looked up over the whole video
            at = [k for k in range(0, len(rows), every) if face in rows[k]]
            before, after = [k for k in at if k <= n], [k for k in at if k >= n]
            between = bool(before and after) and after[0] - before[-1] - 1 <= limit
            reach = max(hold, every - 1 if n % every else 0)
            near = (before and n - before[-1] <= reach) or (after and after[0] - n <= reach)
            assert (face in seen_at(one)) == bool(between or near)


def test_a_long_video_is_not_remembered() -> None:
    """Faces come and go; the tracks of those long gone are dropped."""
    import tracemalloc

    def crowd(n: int) -> Iterator[tuple[int, Detections | None]]:
        for i in range(n):
            yield i, faces((i // 3, i % 500), (i // 3 + 1, 0))

    def peak(n: int) -> int:
        tracemalloc.start()
        for _ in bridge(crowd(n), max_gap=10):
            pass
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(100)
    assert peak(3000) < 2 * peak(300)


@pytest.mark.parametrize("every", [1, 3])
def test_no_frames_and_no_faces(every: int) -> None:
    assert run([], every=every) == []
    assert all(
        len(f.detections) == 0 for f in run([faces() if n % every == 0 else None for n in range(7)], every=every)
    )
