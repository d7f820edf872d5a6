"""The engine's side of the memory through which rounds travel to a draft process and back."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack, suppress
from typing import Any

from ssd_lab.links.channel import Channel
from ssd_lab.links.mirrored_memory import MirroredMemory
from ssd_lab.links.shared_memory import SharedMemory, make_memory
from ssd_lab.links.slots import ANSWERED, ASKED, CANCEL, Slots, SlotSizes
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.trace.records import Activity


class RoundMemory:
    """One round at a time: the next may be asked here once this one is answered, or will never be waited for.

    theirs: descriptors for the child, ours until `was_handed_over`.
    """

    def __init__(
        self, memory: SharedMemory | MirroredMemory, sizes: SlotSizes, theirs: tuple[int, socket.socket] | None = None
    ) -> None:
        self._memory, self._theirs = memory, theirs
        self.slots = Slots(memory.bytes, sizes)
        self._asked = 0

    @classmethod
    def mirrored(cls, sizes: SlotSizes, channel: Channel) -> RoundMemory:
        """Of a child on another host: what is written here travels over the channel."""
        return cls(MirroredMemory(Slots.bytes_for(sizes), channel), sizes)

    @classmethod
    def shared(cls, sizes: SlotSizes) -> RoundMemory:
        """Of a child of this process, which gets `theirs`."""
        with ExitStack() as undone:
            size = Slots.bytes_for(sizes)
            descriptor = make_memory(size)
            undone.callback(os.close, descriptor)
            bell, their_bell = socket.socketpair()
            undone.callback(bell.close)
            undone.callback(their_bell.close)
            memory = SharedMemory(os.dup(descriptor), size, bell)
            undone.pop_all()
        return cls(memory, sizes, (descriptor, their_bell))

    @property
    def theirs(self) -> list[int]:
        """Of the memory and of its bell."""
        return [] if self._theirs is None else [self._theirs[0], self._theirs[1].fileno()]

    def was_handed_over(self) -> None:
        """The child has its own copies of `theirs`."""
        if self._theirs is not None:
            os.close(self._theirs[0])
            self._theirs[1].close()
            self._theirs = None

    def is_free(self, answered: int) -> bool:
        """Is no round under way here? answered: number of the latest round whose answer was taken."""
        return answered >= self._asked

    def ask(self, number: int, message: Any, posted: int) -> bool:
        """Ask a round of this number; False if it has no place here. posted: messages over the connection before it."""
        if not self.slots.write_outcome(message, posted):
            return False
        self._asked = number
        self._memory.raise_flag(ASKED, number, self.slots.spans(ASKED))
        return True

    @property
    def answered(self) -> int:
        """Number of the latest round that was answered here."""
        return self._memory.words[ANSWERED]

    def wait(self, last: int, channel: Channel, timeout_s: float) -> bool:
        """Until a round after number `last` is answered here (True), or something came over the channel (False)."""
        return self._memory.wait(ANSWERED, last, CANCEL, channel, timeout_s)

    def speculation(self, beside: dict[str, Any] | None, offset_s: float) -> tuple[Proposal, list[Activity]]:
        """The answer, and when its two messages travelled. offset_s: of the child's clock."""
        proposal, travel = self.slots.read_speculation(beside)
        out = Activity("link", "outcome", travel.asked_s, travel.taken_s + offset_s)
        return proposal, [out, Activity("link", "speculation", travel.answered_s + offset_s, travel.received_s)]

    def cancel(self) -> None:
        """End the waits of both sides."""
        with suppress(ValueError):  # closed before
            self._memory.raise_flag(CANCEL, 1)

    def close(self) -> None:
        """Free this process's part; calling it twice is fine."""
        self.was_handed_over()
        self.slots = None  # type: ignore[assignment] # its views keep the memory
        self._memory.close()
