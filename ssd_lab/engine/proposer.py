"""Where draft tokens come from: the one interface between the engine's round and a strategy."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ssd_lab.engine.proposal import Proposal
from ssd_lab.engine.rows import RowBatch
from ssd_lab.engine.scheduler import PrefillChunk
from ssd_lab.engine.sequence import Sequence


class Proposer(ABC):
    """Makes the draft tokens of each round. One lives as long as its engine."""

    def prefill(self, chunk: PrefillChunk) -> None:  # noqa: B027 - proposers without a model have nothing to compute
        """The target computes these prompt tokens now; a draft model does the same with its own cache."""

    @abstractmethod
    def propose(self, sequences: list[Sequence], rows: RowBatch) -> Proposal:
        """Draft tokens for the sequences of a round (`rows` holds the same sequences as tensors and lists)."""

    def close(self) -> None:  # noqa: B027 - most proposers hold nothing
        """Free what the proposer holds; calling it twice is fine."""


class NoProposer(Proposer):
    """Proposes nothing: autoregressive decoding."""

    def propose(self, sequences: list[Sequence], rows: RowBatch) -> Proposal:
        """An empty proposal."""
        return Proposal.empty(len(sequences))
