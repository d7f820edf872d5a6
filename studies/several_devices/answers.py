"""A draft that answers at once, always the same: all that is left of a round is its way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ssd_lab.links.messages import RoundMessage
from ssd_lab.links.slots import SlotSizes
from ssd_lab.links.worker import Worker
from ssd_lab.rounds.proposal import Proposal

K = 6


@dataclass(frozen=True)
class Answers:
    """What it is made from, in a module of its own, since it travels to the draft's process by name. vocab: length of a
    distribution, 0 at temperature 0.
    """

    rows: int
    vocab: int
    in_memory: bool
    threads: int | None = 1

    @property
    def slots(self) -> SlotSizes | None:
        """None: over the socket."""
        return SlotSizes(self.rows, K, max(1, self.vocab)) if self.in_memory else None

    def make_worker(self) -> Worker:
        """The draft."""
        return _Answers(self.rows, self.vocab)


class _Answers:
    def __init__(self, rows: int, vocab: int) -> None:
        probs = torch.full((rows, K, vocab), 1 / vocab) if vocab else None
        tokens = torch.zeros(rows, K, dtype=torch.int64)
        self._answer = Proposal(tokens, [K] * rows, probs, ["hit"] * rows, [True] * rows, torch.ones(rows, K))

    def handle(self, message: Any) -> Proposal | None:
        return self._answer if isinstance(message, RoundMessage) else None

    def background(self) -> None: ...
