"""A proposer whose draft tokens come from a draft model, by way of its worker."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from ssd_lab.drafting.worker_proposer import AskedRound, WorkerProposer
from ssd_lab.execution.device_tensor import DeviceTensor
from ssd_lab.execution.preparations import Preparations
from ssd_lab.links.link import Link
from ssd_lab.links.messages import KeptMessage, PrefillMessage
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.rounds.rows import RowBatch, StateOnDevice
from ssd_lab.rounds.sequence import PrefillChunk, Sequence

LONGEST_PIECE = 2048  # tokens that a draft is told to compute at once: as many as the target does


class LinkProposer(WorkerProposer):
    """The draft reads the tokens that the target reads.

    A sequence that comes back after rounds that others drafted has tokens that the draft never saw: they are sent
    first, as a part of a prompt is.
    """

    def __init__(
        self,
        link: Link,
        *,
        timeout_s: float,
        wait_s: float | None = None,
        sends_texts: bool = False,
        prepares: bool = False,
        needs_outcomes: bool = True,
        preparations: Preparations | None = None,
    ) -> None:
        super().__init__(
            link,
            timeout_s=timeout_s,
            wait_s=wait_s,
            sends_texts=sends_texts,
            prepares=prepares,
            preparations=preparations,
        )
        self.needs_outcomes = needs_outcomes
        self._seen: dict[int, int] = {}  # of each request, how many tokens the draft has read
        self._unheld: set[int] = set()  # requests of whose text no more than what was seen here is in this cache
        self._followed: list[Sequence] = []  # the round after the next `observe` is theirs, and drafted already

    def welcome(self, sequence: Sequence) -> None:
        """The draft has nothing of this text in its cache, though others may have all of it: it is shown from its
        beginning on.
        """
        self._seen[sequence.request_id] = 0
        self._unheld.add(sequence.request_id)

    def prefill(self, chunks: list[PrefillChunk], features: list[torch.Tensor] | None = None) -> None:
        """The draft computes the same prompt tokens into the same blocks of its own cache, later if it is late now."""
        own = [replace(chunk, start=min(chunk.start, self._num_seen(chunk.sequence))) for chunk in chunks]
        if self.is_late():
            self._seen.update({chunk.sequence.request_id: chunk.start for chunk in own})
            self._unheld.update(chunk.sequence.request_id for chunk in own)
        else:
            self._show(own)

    def cached_tokens(self, sequence: Sequence) -> int:
        """How many tokens at the front of the text have their K/V in the draft's cache, the last two left out: a round
        feeds those anyway.
        """
        length = len(sequence.token_ids)
        if sequence.request_id not in self._unheld and self._drafted_last_round(sequence):
            return max(0, length - 2)
        return max(0, min(self._num_seen(sequence), length - 2))

    def propose(self, sequences: list[Sequence], rows: RowBatch) -> Proposal:
        """One message each way."""
        return self.finish(self.begin(sequences, rows))

    def begin(self, sequences: list[Sequence], rows: RowBatch) -> AskedRound:
        """Ask for a round; `finish` waits for it. A worker that is late is not asked."""
        if self.is_late():
            return AskedRound(sequences, None, 0.0)
        message = self._message(sequences, rows)  # before anything is shown: it goes by what was seen until now
        unread = [PrefillChunk(s, self.cached_tokens(s), len(s.token_ids) - 2) for s in sequences]
        self._show([chunk for chunk in unread if chunk.start < chunk.stop])
        self._unheld.difference_update(sequence.request_id for sequence in sequences)
        asked = self._begin(sequences, message)
        self._seen.update({sequence.request_id: len(sequence.token_ids) for sequence in sequences})
        self._followed = sequences if isinstance(rows.state, StateOnDevice) else []
        return asked

    def keep(self, paths: torch.Tensor) -> None:
        """Tell a worker that grew trees, before anything else reads its cache; what it grew too late is not kept."""
        if self._late is None:
            self.link.post(KeptMessage(DeviceTensor.of(paths)))

    def observe(self, sequences: list[Sequence], features: torch.Tensor | None) -> None:
        """What was drafted before the host knew the texts was drafted for all of them."""
        super().observe(sequences, features)
        for sequence in self._followed:
            if sequence.end_s is None:
                self._seen[sequence.request_id] = self._drafted[sequence.request_id] = len(sequence.token_ids)
        self._followed = []

    def suspend(self, sequence: Sequence) -> None:
        """When it comes back, its blocks will hold all but the last token, as at admission."""
        super().suspend(sequence)
        self._seen[sequence.request_id] = len(sequence.token_ids) - 1

    def forget(self, sequence: Sequence) -> None:
        """Also what the draft has read of it."""
        super().forget(sequence)
        self._seen.pop(sequence.request_id, None)
        self._unheld.discard(sequence.request_id)

    def _num_seen(self, sequence: Sequence) -> int:
        """Tokens that the draft has read; at admission all but the last, or their blocks were shared and held them."""
        return self._seen.get(sequence.request_id, len(sequence.prompt_ids) - 1)

    def _show(self, chunks: list[PrefillChunk]) -> None:
        """Let the draft compute K/V of these tokens, of long texts piece by piece."""
        for together in _pieces(chunks):
            self.link.post(PrefillMessage([piece.part for piece in together]))
        self._seen.update({chunk.sequence.request_id: chunk.stop for chunk in chunks})


def _pieces(chunks: list[PrefillChunk]) -> Iterator[list[PrefillChunk]]:
    """The chunks in their order, so many tokens at a time."""
    together, room = list[PrefillChunk](), LONGEST_PIECE
    for chunk in chunks:
        start = chunk.start
        while start < chunk.stop:
            piece = PrefillChunk(chunk.sequence, start, min(chunk.stop, start + room))
            together.append(piece)
            start, room = piece.stop, room - (piece.stop - piece.start)
            if not room:
                yield together
                together, room = [], LONGEST_PIECE
    if together:
        yield together
