"""Work that runs beside the caller: an iterator read ahead, and a consumer that lags behind, both bounded."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_PATIENCE = 0.05  # seconds between looks at whether the other side has gone


def ahead(items: Iterator[T], depth: int = 3) -> Generator[T, None, None]:
    """The same items, read by a thread that is at most `depth` items ahead of the caller.

    An error of `items` is raised after the items before it. When the caller stops early (`close`, an exception)
    the thread ends and `items` is closed before control returns.
    """
    slots: queue.Queue[tuple[bool, Any]] = queue.Queue(depth)
    gone = threading.Event()

    def offer(entry: tuple[bool, Any]) -> bool:
        while not gone.is_set():
            try:
                slots.put(entry, timeout=_PATIENCE)
            except queue.Full:
                continue
            return True
        return False

    def read() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                if not offer((True, item)):
                    break
                del item  # or the thread would hold one more frame while it decodes the next
        except BaseException as caught:
            error = caught
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()
        offer((False, error))

    thread = threading.Thread(target=read, name="scrfdkit-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            more, value = slots.get()
            if not more:
                break
            yield value
            del value
        if value is not None:
            raise value
    finally:
        gone.set()
        thread.join()


class Behind(Generic[T]):
    """Calls `consume` on every item in a thread of its own, at most `depth` items behind the caller."""

    def __init__(self, consume: Callable[[T], None], depth: int = 3) -> None:
        self._slots: queue.Queue[tuple[bool, Any]] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._drop = threading.Event()
        self._consume = consume
        self._thread = threading.Thread(target=self._work, name="scrfdkit-write-behind", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Hands an item over, waiting for room. Raises the error that an earlier item caused."""
        self._raise()
        self._slots.put((True, item))

    def finish(self) -> None:
        """Waits until every item is consumed. Raises the error that one of them caused."""
        self._slots.put((False, None))
        self._thread.join()
        self._raise()

    def abandon(self) -> None:
        """Stops soon, dropping what is waiting; may be called after `finish` too."""
        self._drop.set()
        while self._thread.is_alive():
            try:
                self._slots.put((False, None), timeout=_PATIENCE)
            except queue.Full:
                continue
            self._thread.join()

    def _work(self) -> None:
        while True:
            more, item = self._slots.get()
            if not more:
                return
            # After an error the queue is still emptied, so that the caller never waits for room in vain.
            if self._error is None and not self._drop.is_set():
                try:
                    self._consume(item)
                except BaseException as error:
                    self._error = error
            del item

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
