"""A proposer whose draft tokens come from a draft model, by way of its worker."""

from __future__ import annotations

import torch

from ssd_lab.drafting.worker_proposer import WorkerProposer
from ssd_lab.execution.device_tensor import DeviceTensor
from ssd_lab.execution.preparations import Preparations
from ssd_lab.links.link import Link
from ssd_lab.links.messages import KeptMessage, PrefillMessage
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.rounds.rows import RowBatch, StateOnDevice
from ssd_lab.rounds.sequence import PrefillChunk, Sequence


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
        sends_texts: bool = False,
        needs_outcomes: bool = True,
        preparations: Preparations | None = None,
    ) -> None:
        super().__init__(link, timeout_s=timeout_s, sends_texts=sends_texts, preparations=preparations)
        self.needs_outcomes = needs_outcomes
        self._seen: dict[int, int] = {}  # of each request, how many tokens the draft has read
        self._followed: list[Sequence] = []  # the round after the next `observe` is theirs, and drafted already

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
        message = self._message(sequences, rows)  # before anything is shown: it goes by what was seen until now
        for sequence in sequences:
            start, stop = self.cached_tokens(sequence), len(sequence.token_ids) - 2
            if start < stop:
                self._show(sequence, start, stop)
        proposal = self._ask(sequences, message)
        self._seen.update({sequence.request_id: len(sequence.token_ids) for sequence in sequences})
        self._followed = sequences if isinstance(rows.state, StateOnDevice) else []
        return proposal

    def keep(self, paths: torch.Tensor) -> None:
        """Tell a worker that grew trees, before anything else reads its cache."""
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

    def _num_seen(self, sequence: Sequence) -> int:
        """Tokens that the draft has read; at admission all but the last, or their blocks were shared and held them."""
        return self._seen.get(sequence.request_id, len(sequence.prompt_ids) - 1)

    def _show(self, sequence: Sequence, start: int, stop: int) -> None:
        """Let the draft compute K/V of these tokens."""
        self.link.post(PrefillMessage(sequence.token_ids[start:stop], start, list(sequence.blocks)))
        self._seen[sequence.request_id] = stop
