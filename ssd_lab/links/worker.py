"""What a link drives: any draft that answers rounds."""

from __future__ import annotations

from typing import Protocol

from ssd_lab.links.messages import Lookup, Message
from ssd_lab.links.slots import SlotSizes
from ssd_lab.rounds.proposal import ForHits, Proposal


class Worker(Protocol):
    """A draft. `handle` does what a message asks and answers rounds; `background` prepares for the next outcome."""

    def handle(self, message: Message) -> Proposal | None:
        """The reply to a round, None to everything else."""
        ...

    def background(self) -> None:
        """What may be done while the target verifies."""
        ...

    def look_up(self, lookup: Lookup) -> ForHits | None:
        """What is prepared for outcomes on this device, None if nothing is for these rows."""
        ...

    def get_ready(self) -> None:
        """What the last lookup found is on its way: make ready what would be begun next."""
        ...

    def start_ahead(self) -> None:
        """The round of the last lookup was started, before `handle` is asked for it."""
        ...


class WorkerSource(Protocol):
    """What a worker is made from; it can be sent to another process."""

    @property
    def threads(self) -> int | None:
        """Threads that the worker computes with; None: as many as there are."""
        ...

    @property
    def slots(self) -> SlotSizes | None:
        """How large a round's messages are; None: they have no settled size."""
        ...

    def make_worker(self) -> Worker:
        """The worker, with all that it needs loaded."""
        ...
