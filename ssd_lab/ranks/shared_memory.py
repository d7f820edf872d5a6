"""Ranks of one machine's CPUs: tensors in memory that all of them see, a byte through a pipe for "it is there".

A rank that waits sleeps in the system, so more ranks than processors get on; one that is gone is noticed at once, since
its pipes end. (Measured in docs/results/several-devices.md beside gloo.)
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import torch

from ssd_lab.errors import RankError
from ssd_lab.models.group import Group
from ssd_lab.ranks.meeting import Meeting

PIECE = 1 << 20  # bytes that a rank shows at once; there is room for two such pieces of each, written in turn
LOOK_S = 0.002  # between two looks at whether another rank has opened its end
ALIVE_S = 0.5  # between two looks at whether the other ranks are alive at all


class SharedMemoryGroup(Group):
    """A piece is written over by the next but one: by then all ranks have told of the one between, having read it.

    are_alive: of the processes that this one knows; asked now and then while it waits.
    """

    def __init__(self, rank: int, meeting: Meeting, are_alive: Callable[[], bool] = lambda: True) -> None:
        super().__init__(rank, meeting.size)
        self._are_alive = are_alive
        self._limit_s = meeting.limit_s
        self._others = [other for other in range(meeting.size) if other != rank]
        self._turn = 0
        self._read_from: dict[int, int] = {}
        self._write_to: dict[int, int] = {}
        self._came: dict[int, select.poll] = {}
        with ExitStack() as undone:
            undone.callback(self.close)
            self._memory = _shared(meeting)
            self._open_pipes(meeting)
            self._meet()
            undone.pop_all()

    @staticmethod
    def prepare(meeting: Meeting) -> None:
        """The pipes and the memory, made by the first rank before any of them opens its own."""
        for sender in range(meeting.size):
            for reader in range(meeting.size):
                if sender != reader:
                    os.mkfifo(meeting.file(f"{sender}-{reader}"), 0o600)
        with meeting.file("memory").open("wb") as file:
            file.truncate(2 * meeting.size * PIECE)

    def close(self) -> None:
        """Close the pipes: whoever waits for this rank hears of it."""
        for pipe in (*self._read_from.values(), *self._write_to.values()):
            with suppress(OSError):
                os.close(pipe)
        self._read_from, self._write_to = {}, {}
        self._memory = torch.empty(0)  # what nobody looks at any more is given back

    def _gathered(self, own: torch.Tensor) -> Iterator[torch.Tensor]:
        """See `Group`."""
        for piece in own.detach().split(PIECE // own.element_size()):
            count = piece.numel() * piece.element_size()
            place = self._memory[self._turn]  # [size, PIECE]
            shown = place[:, :count].view(own.dtype)
            shown[self.rank].copy_(piece)
            self._turn = 1 - self._turn
            self._meet()
            yield shown

    def _meet(self) -> None:
        """Tell every other rank, and wait until each has told."""
        for other in self._others:
            try:
                os.write(self._write_to[other], b"\0")
            except (OSError, KeyError) as error:
                raise _gone(other) from error
        end_s = time.monotonic() + self._limit_s
        for other in self._others:
            while not self._came[other].poll(1000 * ALIVE_S):
                if not self._are_alive():
                    raise _gone(other)
                if time.monotonic() > end_s:
                    raise RankError(f"rank {other} did not do its part within {self._limit_s:g} s")
            if not os.read(self._read_from[other], 1):
                raise _gone(other)

    def _open_pipes(self, meeting: Meeting) -> None:
        """A pipe can be written to once its reader has opened it."""
        for other in self._others:
            pipe = os.open(meeting.file(f"{other}-{self.rank}"), os.O_RDONLY | os.O_NONBLOCK)
            self._read_from[other] = pipe
            self._came[other] = select.poll()
            self._came[other].register(pipe, select.POLLIN)  # before its first writer, a pipe would read as ended
        end_s = time.monotonic() + meeting.limit_s
        for other in self._others:
            self._write_to[other] = self._writable(meeting, other, end_s)

    def _writable(self, meeting: Meeting, other: int, end_s: float) -> int:
        while True:
            try:
                return os.open(meeting.file(f"{self.rank}-{other}"), os.O_WRONLY | os.O_NONBLOCK)
            except FileNotFoundError as error:
                raise _gone(other) from error
            except OSError as error:
                if error.errno != errno.ENXIO:  # nobody reads yet
                    raise
            if not self._are_alive():
                raise _gone(other)
            if time.monotonic() > end_s:
                raise RankError(f"rank {other} did not start within {meeting.limit_s:g} s")
            time.sleep(LOOK_S)


def _shared(meeting: Meeting) -> torch.Tensor:
    """`[2, size, PIECE]` bytes."""
    size = 2 * meeting.size * PIECE
    memory = torch.from_file(str(meeting.file("memory")), shared=True, size=size, dtype=torch.uint8)
    return memory.view(2, meeting.size, PIECE)


def _gone(other: int) -> RankError:
    return RankError(f"rank {other} is gone")
