"""The one place where a transport is chosen: how the ranks of a model put together what they compute."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ssd_lab.models.group import Group
from ssd_lab.ranks.distributed import DistributedGroup
from ssd_lab.ranks.meeting import Meeting
from ssd_lab.ranks.shared_memory import SharedMemoryGroup


def prepare(meeting: Meeting, device: torch.device) -> None:
    """What the first rank makes before the others come."""
    if device.type == "cpu":
        SharedMemoryGroup.prepare(meeting)


def join(rank: int, meeting: Meeting, device: torch.device, are_alive: Callable[[], bool]) -> Group:
    """Wait for the others. Shared memory on the CPUs of a machine, NCCL between GPUs. are_alive: of the processes that
    this one knows. Raises RankError where one does not come.
    """
    if device.type != "cpu":
        return DistributedGroup.over_nccl(rank, meeting, device)
    try:
        return SharedMemoryGroup(rank, meeting, are_alive)
    finally:
        meeting.is_over()  # all have opened what they need, or it has failed for all
