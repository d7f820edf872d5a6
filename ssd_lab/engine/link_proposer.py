"""A proposer whose draft tokens come from a draft worker over a link."""

from __future__ import annotations

import time

import torch

from ssd_lab.engine.link import Link
from ssd_lab.engine.messages import KeptMessage, PrefillMessage, RoundMessage
from ssd_lab.engine.proposal import Proposal
from ssd_lab.engine.proposer import Proposer
from ssd_lab.engine.rows import RowBatch
from ssd_lab.engine.scheduler import PrefillChunk
from ssd_lab.engine.sequence import Sequence
from ssd_lab.trace.records import Activity


def ask(link: Link, message: RoundMessage, timeout_s: float) -> Proposal:
    """The worker's draft tokens for a round, and how long they were waited for."""
    start_s = time.perf_counter()
    reply = link.call(message, timeout_s)
    waited = Activity("link", "wait for draft", start_s, time.perf_counter())
    return Proposal(
        tokens=reply.tokens,
        num_drafted=[reply.tokens.shape[1]] * len(message.lengths),
        probs=reply.probs,
        origins=reply.origins,
        cache_hits=reply.cache_hits,
        token_probs=reply.token_probs,
        previous_tree=reply.previous_tree,
        activities=[*reply.activities, waited],
        tree=reply.tree,
        predicted_hits=reply.predicted_hits,
        raw_probs=reply.raw_probs,
    )


class LinkProposer(Proposer):
    """Sends each round's outcomes and receives the next draft tokens. Whether anything overlaps is the link's
    matter.

    It may be asked for some sequences of a round only (the others have their draft from elsewhere). A sequence that
    comes back after such rounds has tokens that the draft never saw: they are sent first, as a part of a prompt is.
    """

    def __init__(self, link: Link, *, timeout_s: float, sends_texts: bool = False, needs_outcomes: bool = True) -> None:
        self.link = link
        self.needs_outcomes = needs_outcomes
        self._timeout_s = timeout_s
        self._sends_texts = sends_texts
        self._asked_s: float | None = None
        self._round_s: float | None = None
        self._accepted: dict[int, int] = {}
        self._seen: dict[int, int] = {}  # of each request, how many tokens were sent
        self._followed: list[Sequence] = []  # the round after the next `observe` is theirs, and drafted already
        self._grown: list[int] = []  # the requests whose trees are being verified, as the worker answered them

    def prefill(self, chunk: PrefillChunk, features: torch.Tensor | None = None) -> None:
        """The draft computes the same prompt tokens into the same blocks of its own cache."""
        self._show(chunk.sequence, chunk.start, chunk.stop)

    def cached_tokens(self, sequence: Sequence) -> int:
        """How many tokens at the front of the text have their K/V in the draft's cache, the last two left out: a round
        feeds those anyway.
        """
        length = len(sequence.token_ids)
        if sequence.last_accepted is None or self._drafted_last_round(sequence):
            return max(0, length - 2)
        return min(self._num_seen(sequence), length - 2)

    def propose(self, sequences: list[Sequence], rows: RowBatch) -> Proposal:
        """One message each way."""
        for sequence in sequences:
            start, stop = self.cached_tokens(sequence), len(sequence.token_ids) - 2
            if start < stop:
                self._show(sequence, start, stop)
        message = RoundMessage(
            request_ids=[sequence.request_id for sequence in sequences],
            lengths=rows.lengths,
            previous_tokens=rows.previous_tokens,
            last_tokens=rows.last_tokens,
            block_tables=rows.block_tables,
            # an outcome of somebody else's draft says nothing about what was prepared here
            num_accepted=[s.last_accepted if self._drafted_last_round(s) else None for s in sequences],
            sampling=rows.sampling,
            accepted=self._accepted,
            round_s=self._round_s,
            texts=[list(sequence.token_ids) for sequence in sequences] if self._sends_texts else None,
            advanced=rows.advanced,
        )
        self._asked_s = time.perf_counter()
        self._round_s, self._accepted = None, {}
        proposal = ask(self.link, message, self._timeout_s)
        for sequence in sequences:
            self._seen[sequence.request_id] = len(sequence.token_ids)
        self._followed = [] if rows.advanced is None else sequences
        self._grown = [] if proposal.tree is None else message.request_ids
        return proposal

    def work_ahead(self) -> None:
        """Let the worker prepare for the next outcome."""
        self.link.work_ahead()

    def observe(self, sequences: list[Sequence], features: torch.Tensor | None) -> None:
        """Keep what the worker is told with the next round: outcomes, and how long the round took. Tell a worker that
        grew trees which nodes to keep, before anything else reads its cache.
        """
        if self._asked_s is not None:
            self._round_s = time.perf_counter() - self._asked_s
            self._asked_s = None
        for sequence in self._followed:
            self._seen[sequence.request_id] = len(sequence.token_ids)
        self._followed = []
        self._accepted = {s.request_id: s.last_accepted for s in sequences if s.last_accepted is not None}
        kept = {sequence.request_id: sequence.last_path for sequence in sequences}
        paths = [kept.get(request_id, []) for request_id in self._grown]
        self._grown = []
        if any(len(path) > 1 for path in paths):  # the last node of a path is fed again
            self.link.post(KeptMessage(paths))

    def forget(self, sequence: Sequence) -> None:
        """Drop what was remembered of a request."""
        self._seen.pop(sequence.request_id, None)

    def close(self) -> None:
        """Stop the worker."""
        self.link.close()

    def _show(self, sequence: Sequence, start: int, stop: int) -> None:
        """Let the draft compute K/V of these tokens."""
        self.link.post(PrefillMessage(sequence.token_ids[start:stop], start, list(sequence.blocks)))
        self._seen[sequence.request_id] = stop

    def _num_seen(self, sequence: Sequence) -> int:
        """Tokens that were sent; at admission all but the last were, or their blocks were shared and held them."""
        return self._seen.get(sequence.request_id, len(sequence.prompt_ids) - 1)

    def _drafted_last_round(self, sequence: Sequence) -> bool:
        """Every round adds at least one token, so the text is this short only if no other round came in between."""
        accepted = sequence.last_accepted
        return accepted is not None and len(sequence.token_ids) <= self._num_seen(sequence) + accepted + 1
