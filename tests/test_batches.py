"""Batches that threads compute side by side."""

import threading
from collections.abc import Iterator

import pytest
import torch

from latentedit.runtime.batches import SMALL, in_threads, threads_for

PATIENCE = 60
"""Seconds after which a thread that waits for another fails the test."""


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_batches_are_computed_at_the_same_time_and_come_in_order() -> None:
    both = threading.Barrier(2)

    def work(item: int) -> tuple[int, int, bool]:
        both.wait(PATIENCE)  # for the other thread
        return item, torch.get_num_threads(), torch.is_grad_enabled()

    found = list(in_threads(work, range(6), 2))
    assert found == [(item, 1, False) for item in range(6)]

    # Neither the caller nor threads that begin later keep the one thread.
    later = list[int]()
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert [torch.get_num_threads(), *later] == [3, 3]
    assert torch.is_grad_enabled()


def test_one_thread_is_the_callers_own() -> None:
    def work(item: int) -> tuple[int, int, int, bool]:
        return item, threading.get_ident(), torch.get_num_threads(), torch.is_grad_enabled()

    own = threading.get_ident()
    assert list(in_threads(work, range(2), 1)) == [(item, own, 3, False) for item in range(2)]
    assert list(in_threads(work, [7], 2)) == [(7, own, 3, False)]
    assert list(in_threads(work, [], 2)) == []


def test_an_error_ends_the_work() -> None:
    begun = list[int]()

    def work(item: int) -> int:
        begun.append(item)
        if item == 1:
            raise ValueError("broken")
        return item

    with pytest.raises(ValueError, match="broken"):
        list(in_threads(work, range(100), 2))
    assert len(begun) <= 5  # three are waiting at a time, and two results were asked for
    assert torch.get_num_threads() == 3


def test_a_caller_may_stop_early() -> None:
    begun = list[int]()
    results = in_threads(lambda item: begun.append(item), range(100), 2)
    assert isinstance(results, Iterator)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(begun) <= 4
    assert torch.get_num_threads() == 3


def test_threads_for() -> None:
    """Small images on a CPU are computed side by side, others one batch after the other."""
    cpu = torch.device("cpu")
    assert threads_for(cpu, SMALL) == 3
    assert threads_for(cpu, 2 * SMALL) == 1
    assert threads_for(torch.device("cuda"), SMALL) == 1
