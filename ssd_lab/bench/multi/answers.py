"""A draft that answers at once, always the same: all that is left of a round is the way of its two messages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ssd_lab.links.messages import Lookup, RoundMessage
from ssd_lab.links.slots import SlotSizes
from ssd_lab.links.worker import Worker
from ssd_lab.rounds.proposal import Proposal

K = 6


@dataclass(frozen=True)
class Answers:
    """What it is made from; it travels to the draft's process. vocab: length of a distribution, 0 at temperature 0.
    device: on which its draft tokens are.
    """

    rows: int
    vocab: int
    in_memory: bool
    threads: int | None = 1
    device: str = "cpu"

    @property
    def slots(self) -> SlotSizes | None:
        """None: over the socket."""
        return SlotSizes(self.rows, K, max(1, self.vocab)) if self.in_memory else None

    def make_worker(self) -> Worker:
        """The draft."""
        return _Answers(self.rows, self.vocab, torch.device(self.device))


class _Answers:
    def __init__(self, rows: int, vocab: int, device: torch.device) -> None:
        probs = torch.full((rows, K, vocab), 1 / vocab, device=device) if vocab else None
        tokens = torch.zeros(rows, K, dtype=torch.int64, device=device)
        shown = torch.ones(rows, K, device=device)
        self._answer = Proposal(tokens, [K] * rows, probs, ["hit"] * rows, [True] * rows, shown)

    def handle(self, message: Any) -> Proposal | None:
        return self._answer if isinstance(message, RoundMessage) else None

    def background(self) -> None: ...

    def look_up(self, lookup: Lookup) -> None: ...

    def get_ready(self) -> None: ...

    def start_ahead(self) -> None: ...
