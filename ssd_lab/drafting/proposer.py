"""Where draft tokens come from: the one interface between the engine's round and a strategy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch

from ssd_lab.rounds.proposal import ForHits, Proposal
from ssd_lab.rounds.rows import RowBatch
from ssd_lab.rounds.sequence import PrefillChunk, Sequence


class Proposer(ABC):
    """Makes the draft tokens of each round. One lives as long as its engine.

    feature_layers: the target's residual stream at these layers' inputs is handed to `prefill` and `observe`, for
    drafts that feed on it. needs_outcomes: must the host know a round's outcome before the next one can be proposed?
    looks_up: if it must, can it say before that what it will propose if all goes well?
    """

    feature_layers: tuple[int, ...] = ()
    needs_outcomes: bool = True
    looks_up: bool = False

    def prefill(  # noqa: B027 - may be nothing
        self, chunks: list[PrefillChunk], features: list[torch.Tensor] | None = None
    ) -> None:
        """The target computes these prompt tokens, in one step; a draft model does the same with its own cache.

        features: of each chunk `[tokens, layers * hidden]`, if `feature_layers` names some.
        """

    @abstractmethod
    def propose(self, sequences: list[Sequence], rows: RowBatch) -> Proposal:
        """Draft tokens for the sequences of a round (`rows` holds the same sequences as lists).

        A proposer that needs no outcomes may be asked for the next round before it is told of this one's: `rows` then
        says where on the device the outcome lies (see `RowBatch`).
        """

    def for_hits(
        self, sequences: list[Sequence], rows: RowBatch, decided: torch.Tensor, features: torch.Tensor | None
    ) -> ForHits | None:
        """What `propose` will answer for the next round of these sequences if all outcomes were prepared, while their
        round is under way; `propose` is asked all the same. None if nothing is prepared for them. decided: see
        `Lookup`. features: what `observe` will be given; the next verification may be under way by then.
        """
        return None

    def start_ahead(self) -> None:  # noqa: B027 - most proposers have nothing ready
        """The round of the last `for_hits` was started: `propose` and `work_ahead` will be called for it. What is ready
        for it begins now.
        """

    def keep(self, paths: torch.Tensor) -> None:  # noqa: B027 - most proposers grow no trees
        """Trees are verified now. paths `[rows, depth]`, where the device leaves them, are the nodes that are accepted
        of each row's, from the root down, then -1; rows of padding may follow.
        """

    def work_ahead(self) -> None:  # noqa: B027 - most proposers have nothing to prepare
        """The target verifies the last proposal now: what may be done meanwhile, begins here."""

    def observe(self, sequences: list[Sequence], features: torch.Tensor | None) -> None:  # noqa: B027 - few learn
        """A round is decided: each sequence's `last_accepted` is its accepted length, its last token the recovery
        token. Sequences that ended while it ran are left out, perhaps all of them.

        features: `[sequences, k + 1, layers * hidden]` after the last committed token and each draft token, if
        `feature_layers` names some; valid until the next verification.
        """

    def cached_tokens(self, sequence: Sequence) -> int:
        """How many tokens at the front of a text a draft's cache holds, so that blocks of so many may be shared with
        other requests; of the last two at most the first may be missing, since a round feeds both.
        """
        return max(0, len(sequence.token_ids) - 2)

    def suspend(self, sequence: Sequence) -> None:  # noqa: B027 - most proposers hold nothing in its blocks
        """A request gives up its blocks for a while. Before its next round its text is computed again by way of
        `prefill`, or found in shared blocks; then it is drafted for as it would have been.
        """

    def remember(self) -> None:  # noqa: B027 - few learn
        """Requests follow that must leave no trace: keep what was learned so far."""

    def restore(self) -> None:  # noqa: B027 - few learn
        """They are over: know again what was kept, and nothing else."""

    def forget(self, sequence: Sequence) -> None:  # noqa: B027 - most proposers remember nothing
        """A request has ended: it is in no later round, and its `memory` is emptied."""

    def report_losses(self, report: Callable[[str], None]) -> None:  # noqa: B027 - most have nothing to lose
        """From now on tell in words of a draft that was lost, or came back, where drafting goes on all the same."""

    def close(self) -> None:  # noqa: B027 - most proposers hold nothing
        """Free what the proposer holds; calling it twice is fine."""


class NoProposer(Proposer):
    """Proposes nothing: autoregressive decoding."""

    needs_outcomes = False

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._device = device
        self._empty: dict[int, Proposal] = {}

    def propose(self, sequences: list[Sequence], rows: RowBatch) -> Proposal:
        """An empty proposal."""
        batch = len(sequences)
        if batch not in self._empty:
            self._empty[batch] = Proposal.empty(batch, self._device)
        return self._empty[batch]
