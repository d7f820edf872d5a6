"""Items made ahead by a thread: all of them, an end, and the error of whoever makes them."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from ssd_lab.training.prefetching import prefetched


def test_all_items_come_in_order_and_then_it_ends() -> None:
    assert list(prefetched(iter(range(20)), depth=3)) == list(range(20))


def test_what_making_an_item_raises_is_raised_after_the_items_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("the corpus is damaged")

    ahead = prefetched(items())
    assert next(ahead) == 1
    with pytest.raises(ValueError, match="damaged"):
        next(ahead)


def test_the_thread_ends_when_nobody_wants_more() -> None:
    before = set(threading.enumerate())
    ahead = prefetched(iter(int, 1), depth=2)  # zeros for ever
    next(ahead)
    (thread,) = set(threading.enumerate()) - before
    ahead.close()
    assert not thread.is_alive(), "a program that ended while it computes would be aborted"
