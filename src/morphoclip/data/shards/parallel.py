"""Ordered results from a pool of threads."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """Number of processor cores this process may use."""
    return len(os.sched_getaffinity(0))


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int | None = None
) -> Iterator[Result]:
    """Yield `function(item)` in order, computed on `workers` threads (default: all cores) with few results waiting."""
    workers = workers or cores()
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for left in waiting:
                left.cancel()


def make_ahead(items: Iterator[Item], count: int) -> Iterator[Item]:
    """Yield `items` (none may be None), up to `count` of them computed ahead by a thread."""
    thread = ThreadPoolExecutor(1)
    waiting = deque(thread.submit(next, items, None) for _ in range(count))
    try:
        while (item := waiting.popleft().result()) is not None:
            waiting.append(thread.submit(next, items, None))
            yield item
    finally:
        thread.shutdown(cancel_futures=True)
