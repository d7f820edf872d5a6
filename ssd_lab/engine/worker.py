"""What a link drives, and what it is made from: any draft that answers rounds."""

from __future__ import annotations

from typing import Protocol

from ssd_lab.engine.drafter import Drafter
from ssd_lab.engine.messages import Message, RoundReply


class Worker(Protocol):
    """A draft. `handle` does what a message asks and answers rounds; `background` prepares for the next outcome."""

    def handle(self, message: Message) -> RoundReply | None:
        """The reply to a round, None to everything else."""
        ...

    def background(self) -> None:
        """What may be done while the target verifies."""
        ...


class WorkerPlan(Protocol):
    """What a worker does each round: plain data, sent to wherever the worker is made."""

    @property
    def scratch_positions(self) -> int:
        """Cache positions behind a sequence's own blocks that the worker needs for each sequence."""
        ...

    def make_worker(self, drafter: Drafter) -> Worker:
        """The worker, over a draft that is loaded and a cache that is allocated."""
        ...
