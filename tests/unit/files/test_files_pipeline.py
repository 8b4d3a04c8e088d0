"""Ordered, bounded work in threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scrfdkit.files.pipeline import ordered_map


@given(
    delays=st.lists(st.integers(0, 4), max_size=30),
    jobs=st.integers(1, 5),
    ahead=st.one_of(st.none(), st.integers(1, 12)),
)
@settings(max_examples=40, deadline=None)
def test_order_is_kept_and_no_more_than_asked_for_is_under_way(delays: list[int], jobs: int, ahead: int | None) -> None:
    taken = 0
    working, most = 0, 0
    lock = threading.Lock()

    def items() -> Iterator[tuple[int, int]]:
        nonlocal taken
        for pair in enumerate(delays):
            taken += 1
            yield pair

    def work(item: tuple[int, int]) -> int:
        nonlocal working, most
        with lock:
            working += 1
            most = max(most, working)
        time.sleep(item[1] / 2000)
        with lock:
            working -= 1
        return item[0]

    limit = max(jobs, 2 * jobs if ahead is None else ahead)
    for handed_out, result in enumerate(ordered_map(work, items(), jobs, ahead=ahead)):
        assert result == handed_out
        assert taken - handed_out <= limit
    assert taken == len(delays)
    assert most <= jobs


def test_two_jobs_work_at_the_same_time() -> None:
    """Each of two items waits for the other to start."""
    meeting = threading.Barrier(2, timeout=10)
    assert sorted(ordered_map(lambda _: meeting.wait(), range(2), jobs=2)) == [0, 1]


def test_an_error_comes_at_its_turn() -> None:
    def work(item: int) -> int:
        if item == 3:
            raise ZeroDivisionError
        return item

    results = ordered_map(work, range(10), jobs=4)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_leaving_early_starts_nothing_more() -> None:
    started: list[int] = []

    def work(item: int) -> int:
        started.append(item)
        time.sleep(0.01)
        return item

    results = ordered_map(work, range(1000), jobs=2)
    assert next(results) == 0
    results.close()
    count = len(started)
    time.sleep(0.05)
    assert len(started) == count <= 6


def test_a_stop_hands_out_what_is_under_way() -> None:
    stop = threading.Event()
    started: list[int] = []

    def work(item: int) -> int:
        started.append(item)
        if item == 2:
            stop.set()
        time.sleep(0.1)
        return item

    results = list(ordered_map(work, range(100), jobs=2, stop=stop))
    assert results == list(range(len(results)))
    assert set(started) == set(results), "whatever started was handed out"
    assert 3 <= len(results) <= 5


def test_a_stop_does_not_wait_for_what_hangs() -> None:
    stop, release = threading.Event(), threading.Event()

    def work(item: int) -> int:
        if item == 1:
            stop.set()
            release.wait(30)
        return item

    begin = time.monotonic()
    assert list(ordered_map(work, range(9), jobs=1, stop=stop, grace=0.2)) == [0]
    assert time.monotonic() - begin < 5
    release.set()


def test_jobs_must_be_positive() -> None:
    with pytest.raises(ValueError, match="jobs: 0"):
        list(ordered_map(str, [1], jobs=0))
