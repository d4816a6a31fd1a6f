"""Independent batches of work, one thread each.

PyTorch splits every operation over its threads, which have to meet at its end. Networks for small
images consist of many short operations, so that threads wait for one another more than they
compute. A thread for every batch never waits.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

S = TypeVar("S")
T = TypeVar("T")

SMALL = 256
"""Side of images up to which a thread for every batch pays off. Larger ones have long operations,
and a batch of them takes gigabytes."""


def threads_for(device: torch.device, resolution: int) -> int:
    """Return how many batches of images are best computed at once; 1 on a GPU, which is busy with
    one."""
    return torch.get_num_threads() if device.type == "cpu" and resolution <= SMALL else 1


def in_threads(function: Callable[[T], S], items: Sequence[T], threads: int) -> Iterator[S]:
    """Yield ``function(item)`` for every item, in order, computed by so many threads, without
    gradients.

    Each of them computes on its own, without PyTorch's further threads. Where the caller stops
    early, items that have been begun are finished.
    """
    if threads <= 1 or len(items) <= 1:
        for item in items:
            with torch.no_grad():
                result = function(item)
            yield result
        return

    @torch.no_grad()  # a setting of the thread, which a new one does not inherit
    def run(item: T) -> S:
        return function(item)

    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, "batch", initializer=torch.set_num_threads, initargs=(1,))
    left = iter(items)
    waiting: deque[Future[S]] = deque()
    try:
        # one ahead, so that no thread waits until the caller has used a result
        for item in itertools.islice(left, threads + 1):
            waiting.append(pool.submit(run, item))
        while waiting:
            result = waiting.popleft().result()
            for item in itertools.islice(left, 1):
                waiting.append(pool.submit(run, item))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)
        # The number also became that of threads that are started later.
        torch.set_num_threads(before)
