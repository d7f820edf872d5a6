"""Batches that a thread makes ahead."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

Item = TypeVar("Item")
LAST_ITEM_S = 30.0  # at most, for what is being made when nobody wants more
LOOK_S = 0.2  # how often both sides look whether the other is still there


def prefetched(items: Iterator[Item], depth: int = 6) -> Generator[Item, None, None]:
    """The same items, made ahead by a thread, which ends when this generator is closed; raises what making them did."""
    ready: queue.Queue[Item] = queue.Queue(depth)
    stopped, failures = threading.Event(), []

    def work() -> None:
        try:
            for item in items:
                while not stopped.is_set():
                    try:
                        ready.put(item, timeout=LOOK_S)
                        break
                    except queue.Full:
                        continue
                if stopped.is_set():
                    return
        except BaseException as error:  # whoever waits for the next item must hear of it
            failures.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            is_last = not thread.is_alive()
            try:
                item = ready.get(timeout=LOOK_S)
            except queue.Empty:
                if is_last:
                    break
                continue
            yield item
        if failures:
            raise failures[0]
    finally:
        stopped.set()
        thread.join(LAST_ITEM_S)  # a thread that computes while the program ends aborts it
