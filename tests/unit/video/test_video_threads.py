"""Work beside the caller: order, errors in their place, bounded, and no thread left over."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from scrfdkit.video.threads import Behind, ahead


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


def test_items_come_in_order() -> None:
    assert list(ahead(iter(range(1000)))) == list(range(1000))


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(10)
        raise KeyError("broken")

    got = []
    with pytest.raises(KeyError, match="broken"):
        for item in ahead(items()):
            got.append(item)  # noqa: PERF402
    assert got == list(range(10))


def test_reading_ahead_is_bounded_and_closes_its_source() -> None:
    made, closed = [], []

    def items() -> Iterator[int]:
        try:
            for i in range(1000):
                made.append(i)
                yield i
        finally:
            closed.append(threading.current_thread().name)

    reading = ahead(items(), depth=2)
    assert next(reading) == 0
    time.sleep(0.2)
    assert len(made) <= 4
    reading.close()
    assert closed == ["scrfdkit-read-ahead"]


def test_consumer_gets_everything_in_order_and_finish_waits() -> None:
    got: list[int] = []
    sink = Behind(lambda i: (time.sleep(0.001), got.append(i))[1])
    for i in range(50):
        sink.put(i)
    sink.finish()
    assert got == list(range(50))
    sink.abandon()


def test_an_error_of_the_consumer_reaches_the_caller_and_never_blocks_it() -> None:
    def fail(item: int) -> None:
        raise OSError(f"no room for {item}")

    sink = Behind(fail, depth=1)
    with pytest.raises(OSError, match="no room for 0"):
        for i in range(100):
            sink.put(i)
            time.sleep(0.001)
    with pytest.raises(OSError, match="no room for 0"):
        sink.finish()
    sink.abandon()


def test_abandon_drops_what_waits() -> None:
    got: list[int] = []
    gate = threading.Event()
    sink = Behind(lambda i: (gate.wait(), got.append(i))[1], depth=3)
    for i in range(4):
        sink.put(i)
    threading.Timer(0.1, gate.set).start()
    sink.abandon()
    assert got == [0]
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):
            thread.join()
