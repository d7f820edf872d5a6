"""Sums over the ranks of a target, by size: what each layer of a shared model waits for twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from ssd_lab.bench.multi.cell import Cell, Kept
from ssd_lab.common.device_guard import current
from ssd_lab.errors import RankError
from ssd_lab.links.channel import Channel
from ssd_lab.links.child_process import ChildProcess
from ssd_lab.models.group import Group
from ssd_lab.profile.timing import seconds_per_call
from ssd_lab.ranks.distributed import DistributedGroup
from ssd_lab.ranks.joining import join, prepare
from ssd_lab.ranks.meeting import Meeting

LIMIT_S = 120.0
IN_GRAPH = 20  # sums that one graph holds
AS_THE_ENGINE = "as the engine takes it"
TRANSPORTS = {"cpu": (AS_THE_ENGINE, "gloo"), "cuda": (AS_THE_ENGINE, "nccl")}  # by kind of device


@dataclass(frozen=True)
class Summing:
    """Sums of `[rows, hidden]`. in_graph: many of them in a CUDA graph, else launched one by one."""

    rows: int
    hidden: int
    dtype: str
    trips: int
    in_graph: bool = False

    def seconds(self, group: Group, device: torch.device) -> float:
        """Median of one sum. Every rank calls it alike."""
        own = torch.randn(self.rows, self.hidden, device=device).to(getattr(torch, self.dtype))
        if not self.in_graph:
            return seconds_per_call(lambda: group.total(own), device, repeats=self.trips)
        graph = torch.cuda.CUDAGraph()
        group.total(own)
        torch.cuda.synchronize(device)
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            for _ in range(IN_GRAPH):
                group.total(own)
        return seconds_per_call(graph.replay, device, repeats=max(10, self.trips // IN_GRAPH)) / IN_GRAPH


@dataclass(frozen=True)
class RankOfSums:
    """What a process is told first: which rank it is, and where the others are."""

    rank: int
    meeting: Meeting
    device: str
    transport: str
    threads: int | None = 1

    def make_worker(self) -> _Worker:
        """See `ChildProcess`."""
        return _Worker(self)

    def joined(self) -> Group:
        """Waits for the others."""
        device = torch.device(self.device)
        if self.transport == "gloo":
            return DistributedGroup.over_gloo(self.rank, self.meeting)
        if self.transport == "nccl":
            return DistributedGroup.over_nccl(self.rank, self.meeting, device)
        parent = os.getppid()
        return join(self.rank, self.meeting, device, lambda: os.getppid() == parent)


class _Worker:
    def __init__(self, setup: RankOfSums) -> None:
        self._setup = setup
        self._group: Group | None = None

    @torch.inference_mode()
    def handle(self, message: Summing | None) -> Any:
        """None: join the others."""
        device = torch.device(self._setup.device)
        with current(device):
            if message is None or self._group is None:
                self._group = self._setup.joined()
                return True
            return message.seconds(self._group, device)

    def background(self) -> None: ...


@dataclass(frozen=True)
class SumsCell(Cell):
    """All sizes over one transport. hidden: numbers of a row, of each model."""

    piece: ClassVar[str] = "links"

    devices: tuple[str, ...]
    transport: str
    hidden: tuple[int, ...]
    rows: tuple[int, ...]
    trips: int

    @property
    def key(self) -> str:
        """See `Cell`."""
        return f"{self.piece}/sums/{len(self.devices)} ranks/{self.transport}"

    @property
    def group(self) -> str:
        """See `Cell`."""
        return self.key

    @property
    def estimate_s(self) -> float:
        """The processes' starts."""
        return 20.0 + 4.0 * len(self.devices)

    @torch.inference_mode()
    def run(self, kept: Kept) -> dict[str, Any]:
        """Microseconds of each size, launched one by one and, on GPUs, in graphs."""
        on_gpu = self.devices[0] != "cpu"
        dtype = "bfloat16" if on_gpu else "float32"
        sizes: list[dict[str, Any]] = []
        with current(torch.device(self.devices[0])), self._ranks() as (group, others):
            for hidden in self.hidden:
                for rows in self.rows:
                    one: dict[str, Any] = {"rows": rows, "hidden": hidden}
                    for in_graph in (False, True) if on_gpu else (False,):
                        work = Summing(rows, hidden, dtype, self.trips, in_graph)
                        for other in others:
                            other.send((1, work))
                        name = "in_graph_us" if in_graph else "us"
                        one[name] = 1e6 * work.seconds(group, torch.device(self.devices[0]))
                        for other in others:
                            _answer(other)
                    sizes.append(one)
        return {"ranks": len(self.devices), "dtype": dtype, "sizes": sizes}

    @contextmanager
    def _ranks(self) -> Iterator[tuple[Group, list[Channel]]]:
        """This process's group, as the first rank, and the way to the others."""
        meeting = Meeting.called(len(self.devices), LIMIT_S)
        with ExitStack() as undone:
            undone.callback(meeting.is_over)
            if self.transport == AS_THE_ENGINE:
                prepare(meeting, torch.device(self.devices[0]))
            others = []
            for rank, device in list(enumerate(self.devices))[1:]:
                child = ChildProcess(threads=1)
                undone.callback(child.end)
                channel = Channel(child.connection, send_timeout_s=LIMIT_S)
                undone.callback(channel.close)
                channel.send((0, RankOfSums(rank, meeting, device, self.transport)))
                others.append((child, channel))
            for child, channel in others:
                _answer(channel)
                child.started()
                channel.send((0, None))
            group = RankOfSums(0, meeting, self.devices[0], self.transport).joined()
            undone.callback(group.close)
            for _, channel in others:
                _answer(channel)
            yield group, [channel for _, channel in others]


def _answer(channel: Channel) -> Any:
    """Of another rank. Raises RankError if it failed."""
    number, answer = channel.receive(LIMIT_S)
    if number < 0:
        raise RankError(f"another rank failed: {answer[0]}: {answer[1]}")
    return answer
