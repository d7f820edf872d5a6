"""Ranks that meet through `torch.distributed`: NCCL between GPUs, gloo between CPUs."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from ssd_lab.errors import RankError
from ssd_lab.models.group import Group
from ssd_lab.ranks.meeting import Meeting

REST_S, CLOSE_S = 2.0, 10.0  # at the end: for the device to come to rest, for the connections to close

_CPU = torch.device("cpu")


class DistributedGroup(Group):
    """A process group of this model alone: the process's default group is left to its program."""

    def __init__(self, rank: int, size: int, processes: Any, device: torch.device = _CPU) -> None:
        super().__init__(rank, size)
        self._device = device
        self._processes: Any = processes  # a backend of torch.distributed; None once closed

    @classmethod
    def over_gloo(cls, rank: int, meeting: Meeting) -> DistributedGroup:
        """CPUs that share no memory, or to compare with those that do. Raises RankError where a rank does not come."""
        options = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
        options._devices = [dist.ProcessGroupGloo.create_device(hostname=meeting.address_of(rank))]
        options._timeout = timedelta(seconds=meeting.limit_s)
        try:
            group = cls(rank, meeting.size, dist.ProcessGroupGloo(meeting.store(), rank, meeting.size, options))
        except RuntimeError as error:
            raise RankError(f"the ranks do not reach each other: {error}") from error
        group.agreed(torch.zeros(1))
        return group

    @classmethod
    def over_nccl(cls, rank: int, meeting: Meeting, device: torch.device) -> DistributedGroup:
        """GPUs, of one host or several."""
        limit = timedelta(seconds=meeting.limit_s)
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = limit
        group = cls(rank, meeting.size, dist.ProcessGroupNCCL(meeting.store(), rank, meeting.size, options), device)
        weakref.finalize(group, meeting.is_over)  # NCCL may look into the store for as long as it lives
        group.agreed(torch.zeros(1, device=device))  # NCCL connects at its first call, which no graph may hold
        torch.cuda.synchronize(device)
        return group

    def close(self) -> None:
        """End the connections; work that waits for another rank ends with an error."""
        processes, self._processes = self._processes, None
        if processes is None or not hasattr(processes, "abort"):
            return
        if self._device.type == "cuda":  # work that all ranks were told of; a lost one never does its part
            within(REST_S, lambda: torch.cuda.synchronize(self._device))
        if not within(CLOSE_S, processes.abort):  # NCCL waits for graphs that use it, also for one that somebody kept
            warnings.warn(f"the ranks' connections did not close within {CLOSE_S:g} s", RuntimeWarning, stacklevel=2)

    def _gathered(self, own: torch.Tensor) -> Iterator[torch.Tensor]:
        """See `Group`."""
        if self._processes is None:
            raise RankError("the ranks' connections are closed")
        every = own.new_empty(self.size, own.numel())
        try:
            self._processes._allgather_base(every.view(-1), own.contiguous()).wait()
        except RuntimeError as error:
            raise RankError(f"the ranks cannot reach each other: {error}") from error
        yield every


def within(limit_s: float, work: Callable[[], object]) -> bool:
    """Do this in a thread of its own; is it done within so many seconds? If not, it is left to itself."""
    thread = threading.Thread(target=work, name="closing ranks", daemon=True)
    thread.start()
    thread.join(limit_s)
    return not thread.is_alive()
