"""Ranks as threads of this process, which is all that a test of their arithmetic needs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ssd_lab.models.group import Group
from ssd_lab.ranks.distributed import DistributedGroup
from ssd_lab.ranks.meeting import Meeting
from ssd_lab.ranks.shared_memory import SharedMemoryGroup

Result = TypeVar("Result")
LIMIT_S = 60.0


def on_every_rank(size: int, work: Callable[[Group], Result], *, transport: str = "memory") -> list[Result]:
    """What each rank's work comes to, in their order."""
    meeting, groups = Meeting.called(size, LIMIT_S), []
    SharedMemoryGroup.prepare(meeting)
    all_done = threading.Barrier(size)

    def rank(number: int) -> Result:
        group: Group = (
            SharedMemoryGroup(number, meeting) if transport == "memory" else DistributedGroup.over_gloo(number, meeting)
        )
        groups.append(group)
        try:
            return work(group)
        finally:
            all_done.wait(LIMIT_S)
            group.close()

    try:
        with ThreadPoolExecutor(size) as pool:
            return list(pool.map(rank, range(size)))
    finally:
        meeting.is_over()
