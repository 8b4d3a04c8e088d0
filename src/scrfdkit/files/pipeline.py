"""Work on many things at once, results in order, a bounded number under way."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import islice
from threading import Event
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_POLL = 0.1  # seconds between looks at the stop event


def ordered_map(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    jobs: int,
    *,
    ahead: int | None = None,
    stop: Event | None = None,
    grace: float = 5.0,
) -> Generator[Result, None, None]:
    """Like `map`, with `jobs` threads: results come in the order of the items.

    ahead: how many items may have been taken whose result was not yet handed out, at least `jobs`; 2 * jobs by
        default. Memory is bounded by it, whatever the number of items.
    stop: once set, no further item starts; those under way are still handed out, in order, for up to `grace`
        seconds, and the iteration ends. Whatever hangs is left behind in its thread.

    An exception of `function` is raised at its item's turn. When the iteration is left, by an exception or by
    closing it, items under way are finished and no other starts.
    """
    if jobs < 1:
        raise ValueError(f"jobs: {jobs} is less than 1")
    limit = max(jobs, 2 * jobs if ahead is None else ahead)
    stop = stop or Event()
    source = iter(items)
    pending: deque[Future[Result]] = deque()
    pool = ThreadPoolExecutor(jobs, thread_name_prefix="scrfd-worker")
    hangs = False
    try:
        while True:
            if not stop.is_set():
                pending.extend(pool.submit(function, item) for item in islice(source, limit - len(pending)))
            if not pending:
                return
            if not _finished(pending, stop, grace):
                hangs = not pending[0].cancelled()
                return
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=not hangs, cancel_futures=True)


def _finished(pending: deque[Future[Result]], stop: Event, grace: float) -> bool:
    """Waits for the first: True once it has a result, False where a stop kept it from one."""
    first = pending[0]
    while not stop.is_set():
        if wait([first], timeout=_POLL).done:
            return True
    for future in pending:
        future.cancel()
    deadline = time.monotonic() + grace
    while not first.done() and time.monotonic() < deadline:
        wait([first], timeout=_POLL)
    return first.done() and not first.cancelled()
