"""Work that is prepared ahead of time, by a thread of its own."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


@contextmanager
def ahead(items: Sequence[T], prepare: Callable[[T], S], count: int) -> Iterator[Callable[[], S]]:
    """Yield a function whose every call returns (or raises) the result of ``prepare`` for the next
    item.

    A thread prepares up to ``count`` items ahead, while the caller works on earlier ones.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as thread:
        left = iter(items)
        waiting: deque[Future[S]] = deque()

        def following() -> S:
            while len(waiting) <= count and (item := next(left, None)) is not None:
                waiting.append(thread.submit(prepare, item))
            return waiting.popleft().result()

        try:
            yield following
        finally:
            thread.shutdown(cancel_futures=True)
