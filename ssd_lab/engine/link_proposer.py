"""A proposer whose draft tokens come from a draft worker over a link."""

from __future__ import annotations

import time

import torch

from ssd_lab.engine.link import Link
from ssd_lab.engine.messages import PrefillMessage, RoundMessage
from ssd_lab.engine.proposal import Proposal
from ssd_lab.engine.proposer import Proposer
from ssd_lab.engine.rows import RowBatch
from ssd_lab.engine.scheduler import PrefillChunk
from ssd_lab.engine.sequence import Sequence
from ssd_lab.trace.records import Activity


class LinkProposer(Proposer):
    """Sends each round's outcomes and receives the next draft tokens. Whether anything overlaps is the link's
    matter.
    """

    def __init__(self, link: Link, *, timeout_s: float) -> None:
        self.link = link
        self._timeout_s = timeout_s

    def prefill(self, chunk: PrefillChunk, features: torch.Tensor | None = None) -> None:
        """The draft computes the same prompt tokens into the same blocks of its own cache."""
        sequence = chunk.sequence
        tokens = sequence.token_ids[chunk.start : chunk.stop]
        self.link.post(PrefillMessage(tokens, chunk.start, list(sequence.blocks)))

    def propose(self, sequences: list[Sequence], rows: RowBatch) -> Proposal:
        """One message each way."""
        message = RoundMessage(
            request_ids=[sequence.request_id for sequence in sequences],
            lengths=rows.lengths,
            previous_tokens=rows.previous_tokens,
            last_tokens=rows.last_tokens,
            block_tables=rows.block_tables,
            num_accepted=[sequence.last_accepted for sequence in sequences],
            sampling=rows.sampling,
        )
        start_s = time.perf_counter()
        reply = self.link.call(message, self._timeout_s)
        waited = Activity("link", "wait for draft", start_s, time.perf_counter())
        return Proposal(
            tokens=reply.tokens,
            num_drafted=[reply.tokens.shape[1]] * len(sequences),
            probs=reply.probs,
            origins=reply.origins,
            cache_hits=reply.cache_hits,
            token_probs=reply.token_probs,
            previous_tree=reply.previous_tree,
            activities=[*reply.activities, waited],
        )

    def work_ahead(self) -> None:
        """Let the worker prepare for the next outcome."""
        self.link.work_ahead()

    def close(self) -> None:
        """Stop the worker."""
        self.link.close()
