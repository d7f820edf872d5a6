"""The one place where a transport is chosen: how the ranks of a model put together what they compute."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch

from ssd_lab.hosts.places import Place
from ssd_lab.models.group import Group
from ssd_lab.ranks.distributed import DistributedGroup
from ssd_lab.ranks.meeting import Meeting
from ssd_lab.ranks.peer_group import PeerGroup
from ssd_lab.ranks.shared_memory import SharedMemoryGroup
from ssd_lab.settings import torchrun


def call(places: Sequence[Place], limit_s: float) -> Meeting:
    """Ranks of one host meet in a folder there, those of several where torchrun's processes met."""
    run = torchrun()
    if run is None or len({place.host for place in places}) == 1:
        return Meeting.called(len(places), limit_s)
    return Meeting.at(run.address, run.port, [place.address for place in places], limit_s)


def prepare(meeting: Meeting, device: torch.device) -> None:
    """What the first rank makes before the others come."""
    if device.type == "cpu" and meeting.is_on_one_host:
        SharedMemoryGroup.prepare(meeting)


def join(rank: int, meeting: Meeting, device: torch.device, are_alive: Callable[[], bool]) -> Group:
    """Wait for the others. Shared memory on the CPUs of a machine, gloo between those of several; between GPUs their
    own memory where each can write to the others', else NCCL. are_alive: of the processes that this one knows. Raises
    RankError where one does not come.
    """
    if device.type != "cpu":
        return _between_gpus(rank, meeting, device, are_alive)
    try:
        if not meeting.is_on_one_host:
            return DistributedGroup.over_gloo(rank, meeting)
        return SharedMemoryGroup(rank, meeting, are_alive)
    finally:
        meeting.is_over()  # all have opened what they need, or it has failed for all


def _between_gpus(rank: int, meeting: Meeting, device: torch.device, are_alive: Callable[[], bool]) -> Group:
    if not meeting.is_on_one_host:
        return DistributedGroup.over_nccl(rank, meeting, device)
    group = PeerGroup.opened(rank, meeting, device, are_alive)
    if isinstance(group, PeerGroup):
        meeting.is_over()
        return group
    if rank == 0:
        slower = f"the ranks' GPUs do not write to each other's memory, so their sums go through NCCL, slower: {group}"
        warnings.warn(slower, RuntimeWarning, stacklevel=2)
    return DistributedGroup.over_nccl(rank, meeting, device)
