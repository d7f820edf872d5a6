"""A proposer over several drafts side by side, which share the batch's rows; and over one that may be started again."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

import torch

from ssd_lab.drafting.composition import joined, no_draft
from ssd_lab.drafting.draft_seat import DraftSeat
from ssd_lab.drafting.link_proposer import LinkProposer
from ssd_lab.drafting.proposer import Proposer
from ssd_lab.drafting.request_shares import RequestShares
from ssd_lab.drafting.worker_proposer import AskedRound
from ssd_lab.errors import DraftWorkerError
from ssd_lab.execution.host_copy import sent
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.rounds.rows import RowBatch
from ssd_lab.rounds.sequence import PrefillChunk, Sequence

Result = TypeVar("Result")


class SeveralDrafts(Proposer):
    """A request stays with its draft, whose cache has its text, and whose learning saw its rounds. All drafts are asked
    for a round before any is waited for.

    A draft that is lost leaves its requests to the others, which are shown their texts; in the round in which that
    happens they have no draft tokens. Without any draft, and none that is being started, DraftWorkerError is raised.
    """

    def __init__(self, seats: list[DraftSeat]) -> None:
        self._seats = seats
        self._shares = RequestShares()
        self._asked: list[tuple[DraftSeat, list[int]]] = []  # with the rows of the latest round
        self._report: Callable[[str], None] = lambda _: None

    def wait_for_start(self) -> None:
        """Wait until all are at work. Raises as `DraftSeat.wait_for_start`."""
        for seat in self._seats:
            seat.wait_for_start()

    @property
    def drafts(self) -> list[LinkProposer]:
        """Those that are at work."""
        return [seat.now for seat in self._seats if seat.now is not None]

    def report_losses(self, report: Callable[[str], None]) -> None:
        """Drafts that are lost, and that come back."""
        self._report = report

    def prefill(self, chunks: list[PrefillChunk], features: list[torch.Tensor] | None = None) -> None:
        """Each request's draft computes the same tokens, and what others computed of its text."""
        for chunk in chunks:
            self._assigned(chunk.sequence)
        for seat in self._seats:
            own = [chunk for chunk in chunks if self._shares.of(chunk.sequence.request_id) == seat.number]
            if own:
                self._do(seat, lambda draft, own=own: draft.prefill(own))  # type: ignore[misc]

    def propose(self, sequences: list[Sequence], rows: RowBatch) -> Proposal:
        """One message to and from each draft that has rows in this round."""
        self._take_in_started()
        asked: list[tuple[DraftSeat, list[int], AskedRound]] = []
        for seat, chosen in self._rows_of_seats(sequences):
            some = [sequences[row] for row in chosen]
            own = rows if len(chosen) == len(sequences) else rows.select(chosen)
            begun = self._do(seat, lambda draft, some=some, own=own: draft.begin(some, own))  # type: ignore[misc]
            if begun is not None:
                asked.append((seat, chosen, begun))
        parts: list[tuple[list[int], Proposal]] = []
        self._asked = []
        for seat, chosen, begun in asked:
            proposal = self._do(seat, lambda draft, begun=begun: draft.finish(begun))  # type: ignore[misc]
            if proposal is not None:
                self._asked.append((seat, chosen))
                parts.append((chosen, seat.named(proposal) if len(self._seats) > 1 else proposal))
        drafted = {row for chosen, _ in parts for row in chosen}
        others = [row for row in range(len(sequences)) if row not in drafted]
        if others:
            parts.append((others, no_draft(len(others))))
        return joined(parts, len(sequences))

    def keep(self, paths: torch.Tensor) -> None:
        """Each hears of its own trees."""
        for seat, chosen in self._asked:
            own = paths.index_select(0, sent(chosen, paths.device, torch.int64))
            self._do(seat, lambda draft, own=own: draft.keep(own))  # type: ignore[misc]

    def work_ahead(self) -> None:
        """All may prepare."""
        for seat, _ in self._asked:
            self._do(seat, lambda draft: draft.work_ahead())

    def observe(self, sequences: list[Sequence], features: torch.Tensor | None) -> None:
        """Each hears of its own requests, and that a round is over."""
        for seat in self._seats:
            own = [s for s in sequences if self._shares.of(s.request_id) == seat.number]
            self._do(seat, lambda draft, own=own: draft.observe(own, None))  # type: ignore[misc]

    def cached_tokens(self, sequence: Sequence) -> int:
        """What the request's draft has."""
        found = self._with_draft_of(sequence, lambda draft: draft.cached_tokens(sequence))
        return super().cached_tokens(sequence) if found is None else found

    def suspend(self, sequence: Sequence) -> None:
        """When the request comes back, its text may be found in blocks that another draft filled."""

        def suspended(draft: LinkProposer) -> None:
            draft.suspend(sequence)
            draft.welcome(sequence)

        self._with_draft_of(sequence, suspended)

    def remember(self) -> None:
        """All do."""
        for seat in self._seats:
            self._do(seat, lambda draft: draft.remember())

    def restore(self) -> None:
        """All do."""
        for seat in self._seats:
            self._do(seat, lambda draft: draft.restore())

    def forget(self, sequence: Sequence) -> None:
        """All do."""
        self._shares.forget(sequence.request_id)
        for draft in self.drafts:
            draft.forget(sequence)

    def close(self) -> None:
        """Stop all, each also where another one's closing fails."""
        with ExitStack() as closing:
            for seat in self._seats:
                closing.callback(seat.close)

    def _rows_of_seats(self, sequences: list[Sequence]) -> list[tuple[DraftSeat, list[int]]]:
        """Who drafts for which rows. A request without a draft gets one, and one that has too much to do gives the
        shortest text away.
        """
        at_work = [seat.number for seat in self._seats if seat.now is not None]
        if not at_work:
            return []
        for sequence in sequences:
            self._assigned(sequence)
        overloaded = self._shares.overloaded(at_work)
        if overloaded is not None:
            own = [s for s in sequences if self._shares.of(s.request_id) == overloaded]
            if own:
                moved = min(own, key=lambda s: len(s.token_ids))
                self._shares.forget(moved.request_id)
                self._assigned(moved)
        numbers = [self._shares.of(sequence.request_id) for sequence in sequences]
        rows = [(seat, [row for row, own in enumerate(numbers) if own == seat.number]) for seat in self._seats]
        return [(seat, chosen) for seat, chosen in rows if chosen]

    def _assigned(self, sequence: Sequence) -> DraftSeat | None:
        """The request's draft, now at the latest; None while no draft is at work."""
        number = self._shares.of(sequence.request_id)
        if number is None:
            at_work = [seat.number for seat in self._seats if seat.now is not None]
            if not at_work:
                return None
            number = self._shares.give(sequence.request_id, at_work)
            draft = self._seats[number].now
            if draft is not None:
                draft.welcome(sequence)
        return self._seats[number]

    def _with_draft_of(self, sequence: Sequence, work: Callable[[LinkProposer], Result]) -> Result | None:
        """What this work with the request's draft returns; None if there is none, or it is lost in it."""
        number = self._shares.of(sequence.request_id)
        return None if number is None else self._do(self._seats[number], work)

    def _do(self, seat: DraftSeat, work: Callable[[LinkProposer], Result]) -> Result | None:
        """What this work returns; None if there is no draft, or it is lost in it."""
        if seat.now is None:
            return None
        try:
            return work(seat.now)
        except DraftWorkerError as error:
            self._lost(seat, error)
            return None

    def _take_in_started(self) -> None:
        """Drafts that were started again and are at work now."""
        for seat in self._seats:
            try:
                if seat.came_back():
                    self._report(f"{self._name(seat)} is back at work")
            except DraftWorkerError as error:
                self._lost(seat, error)

    def _lost(self, seat: DraftSeat, error: DraftWorkerError) -> None:
        """Its requests get another draft with their next round. Raises the error if there is none left."""
        self._shares.release(seat.number)
        self._asked = [(other, rows) for other, rows in self._asked if other is not seat]
        comes_again = seat.lose()
        others = len(self.drafts)
        if not others and not any(own.is_starting for own in self._seats):
            raise error
        now = "the others take over" if others else "the run goes on without a draft until one is back"
        text = f"{self._name(seat)} was lost: {error}; {now}{'; it is started again' if comes_again else ''}"
        warnings.warn(text, RuntimeWarning, stacklevel=2)
        self._report(text)

    def _name(self, seat: DraftSeat) -> str:
        return f"draft {seat.number}" if len(self._seats) > 1 else "the draft"
