"""Ranks that meet through `torch.distributed`: NCCL between GPUs, gloo between CPUs."""

from __future__ import annotations

import threading
import warnings
import weakref
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from ssd_lab.errors import RankError
from ssd_lab.models.group import Group
from ssd_lab.ranks.meeting import Meeting

CLOSE_S = 10.0


class DistributedGroup(Group):
    """A process group of this model alone: the process's default group is left to its program."""

    def __init__(self, rank: int, size: int, processes: Any) -> None:
        super().__init__(rank, size)
        self._processes: Any = processes  # a backend of torch.distributed; None once closed

    @classmethod
    def over_gloo(cls, rank: int, meeting: Meeting, address: str = "127.0.0.1") -> DistributedGroup:
        """CPUs that share no memory, or to compare with those that do. address: of this machine, for the others."""
        store = dist.FileStore(str(meeting.file("store")), meeting.size)
        options = dist.ProcessGroupGloo._Options()  # type: ignore[attr-defined]
        options._devices = [dist.ProcessGroupGloo.create_device(hostname=address)]
        options._timeout = timedelta(seconds=meeting.limit_s)
        group = cls(rank, meeting.size, dist.ProcessGroupGloo(store, rank, meeting.size, options))
        group.agreed(torch.zeros(1))
        return group

    @classmethod
    def over_nccl(cls, rank: int, meeting: Meeting, device: torch.device) -> DistributedGroup:
        """GPUs of one machine; they find each other through a file of the meeting."""
        limit = timedelta(seconds=meeting.limit_s)
        store = dist.FileStore(str(meeting.file("store")), meeting.size)
        store.set_timeout(limit)
        options = dist.ProcessGroupNCCL.Options()
        options._timeout = limit
        group = cls(rank, meeting.size, dist.ProcessGroupNCCL(store, rank, meeting.size, options))
        weakref.finalize(group, meeting.is_over)  # NCCL may look into the store for as long as it lives
        group.agreed(torch.zeros(1, device=device))  # NCCL connects at its first call, which no graph may hold
        torch.cuda.synchronize(device)
        return group

    def close(self) -> None:
        """End the connections; work that waits for another rank ends with an error."""
        processes, self._processes = self._processes, None
        if processes is None or not hasattr(processes, "abort"):
            return
        aborting = threading.Thread(target=processes.abort, name="closing ranks", daemon=True)
        aborting.start()
        aborting.join(CLOSE_S)  # NCCL waits for graphs that use its connections, also for one that somebody kept
        if aborting.is_alive():
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
