"""Who asks when: a closed loop of clients, or arrivals that wait for nobody."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

from ssd_lab.bench.serving.client import Client, Timing
from ssd_lab.bench.serving.workload import Ask

OnDone = Callable[[Timing], None]


async def closed_loop(
    client: Client, asks: Iterator[Ask], *, clients: int, most: int | None, until_s: float | None, on_done: OnDone
) -> list[Timing]:
    """`clients` at a time, each asks anew when it has its answer. most: requests in all; until_s: none begins after
    that.
    """
    left = itertools.islice(asks, most)
    done: list[Timing] = []

    async def one() -> None:
        while until_s is None or client.now_s < until_s:
            ask = next(left, None)
            if ask is None:
                return
            timing = await client.request(ask, client.now_s)
            done.append(timing)
            on_done(timing)

    async with asyncio.TaskGroup() as group:
        for _ in range(clients):
            group.create_task(one())
    return done


async def open_loop(client: Client, asks: Iterable[Ask], times_s: Sequence[float], *, on_done: OnDone) -> list[Timing]:
    """Each request at its time, whatever became of the others; in the order in which they came."""

    async def one(ask: Ask, due_s: float) -> Timing:
        timing = await client.request(ask, due_s)
        on_done(timing)
        return timing

    tasks = []
    async with asyncio.TaskGroup() as group:
        for ask, due_s in zip(asks, times_s, strict=False):
            await asyncio.sleep(max(0.0, due_s - client.now_s))
            tasks.append(group.create_task(one(ask, due_s)))
    return [task.result() for task in tasks]
