"""What the draft's child process does: make the worker, then handle messages until nobody sends any more."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import torch

from ssd_lab.links.channel import Channel
from ssd_lab.links.mirrored_memory import MirroredMemory
from ssd_lab.links.shared_memory import SharedMemory
from ssd_lab.links.slots import ANSWERED, ASKED, CANCEL, Slots, SlotSizes, portable
from ssd_lab.rounds.proposal import Proposal

LOOK_UP_S = 1.0  # between two looks at whether the parent still lives

Result = TypeVar("Result")


def serve(connection: socket.socket, shared: Sequence[int], on_start: Callable[[], None]) -> None:
    """Build the worker that the first message describes, say so, and serve. shared: descriptors of the memory and of
    its bell, if the other side is on this host. on_start: called when the worker is built.

    Raises EOFError or OSError when the other side is gone, and whatever the worker raises.
    """
    parent = _Parent(Channel(connection, send_timeout_s=LOOK_UP_S))
    number, setup = parent.receive()
    if shared:
        parent.share(shared, setup.slots)
    elif getattr(setup, "slots", None) is not None:  # who answers no rounds has none
        parent.mirror(setup.slots)
    if setup.threads is not None:
        torch.set_num_threads(setup.threads)
    worker = setup.make_worker()
    on_start()
    parent.send(number, time.perf_counter())
    try:
        while True:
            number, message = parent.receive()
            reply = worker.handle(message)
            if isinstance(reply, Proposal):
                parent.answer(number, portable(reply))
                worker.background()
            elif reply is not None:  # of a rank, which answers no rounds
                parent.send(number, reply)
    except (EOFError, OSError):  # the usual end
        if hasattr(worker, "close"):  # a rank's
            worker.close()
        raise


class _Parent:
    """The other side. A round that came through memory is answered there, one over the socket by the socket."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._process_id = os.getppid()
        self._memory: SharedMemory | MirroredMemory | None = None
        self._slots: Slots | None = None
        self._asked = 0  # number of the latest round that came through memory
        self._posted = 0  # messages that came over the socket

    def share(self, descriptors: Sequence[int], sizes: SlotSizes) -> None:
        """From now on rounds may come through memory."""
        memory, bell = descriptors
        self._memory = SharedMemory(memory, Slots.bytes_for(sizes), socket.socket(fileno=bell))
        self._slots = Slots(self._memory.bytes, sizes)

    def mirror(self, sizes: SlotSizes) -> None:
        """As `share`, where there is no memory that both sides see."""
        self._memory = MirroredMemory(Slots.bytes_for(sizes), self._channel)
        self._slots = Slots(self._memory.bytes, sizes)

    def receive(self) -> tuple[int, Any]:
        """The next message, in the order in which they were sent."""
        self._check()
        memory, slots = self._memory, self._slots
        if memory is not None and slots is not None and self._comes_through_memory(memory, slots):
            self._asked = memory.words[ASKED]
            return self._asked, slots.read_outcome()
        self._posted += 1
        return self._patiently(lambda: self._channel.receive(LOOK_UP_S))

    def answer(self, number: int, reply: Proposal) -> None:
        """Answer the round of this number."""
        memory, slots = self._memory, self._slots
        if memory is None or slots is None or number != self._asked:
            self.send(number, reply)
            return
        beside = slots.write_speculation(reply)
        memory.raise_flag(ANSWERED, number, slots.spans(ANSWERED))
        if beside is not None:
            self.send(number, beside)

    def send(self, number: int, reply: Any) -> None:
        """Send a reply over the socket."""
        self._channel.put((number, reply))
        self._patiently(self._channel.flush)

    def _comes_through_memory(self, memory: SharedMemory | MirroredMemory, slots: Slots) -> bool:
        """Wait for the next message."""
        asked = self._patiently(lambda: memory.wait(ASKED, self._asked, CANCEL, self._channel, LOOK_UP_S))
        return asked and slots.posted == self._posted  # else what was posted before it is still on its way

    def _patiently(self, work: Callable[[], Result]) -> Result:
        """A parent that died need not have closed the connection: a process that it forked may hold a copy of it."""
        while True:
            with suppress(TimeoutError):
                return work()
            self._check()

    def _check(self) -> None:
        """On another host the parent is not who sends: what it started ends with it, also in the middle of rounds."""
        if os.getppid() != self._process_id:
            raise EOFError("the parent process is gone")
