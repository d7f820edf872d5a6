"""One of several drafts: at work, lost, or being started again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ssd_lab.drafting.link_proposer import LinkProposer
from ssd_lab.errors import DraftLateError, DraftWorkerError
from ssd_lab.execution.stopwatch import Span
from ssd_lab.links.process_link import ProcessLink
from ssd_lab.rounds.proposal import Proposal


class DraftSeat:
    """now: the proposer of the draft that is at work here, None while there is none.

    begin_start: starts a draft and returns at once; the link must be asked whether it has started. make_proposer: what
    talks over a link. restarts: how often a draft that was lost is started again. start_timeout_s: for its start.
    """

    def __init__(
        self,
        number: int,
        begin_start: Callable[[], ProcessLink],
        make_proposer: Callable[[ProcessLink], LinkProposer],
        *,
        restarts: int,
        start_timeout_s: float,
    ) -> None:
        self.number = number
        self.now: LinkProposer | None = None
        self._begin_start, self._make_proposer = begin_start, make_proposer
        self._restarts, self._start_timeout_s = restarts, start_timeout_s
        self._starting: ProcessLink | None = begin_start()

    @property
    def is_starting(self) -> bool:
        """May it be at work later?"""
        return self._starting is not None

    def wait_for_start(self) -> None:
        """Raises DraftWorkerError if the draft cannot be started, and the worker's own error as its cause."""
        link = self._starting
        if link is not None:
            link.has_started(self._start_timeout_s)
            self._starting, self.now = None, self._make_proposer(link)

    def came_back(self) -> bool:
        """Is a draft that was started again at work now, and was not before? Raises DraftWorkerError if it cannot be
        started.
        """
        link = self._starting
        if link is None:
            return False
        try:
            link.has_started(0.0)
        except DraftLateError:
            if (link.starting_s or 0.0) > self._start_timeout_s:
                raise
            return False
        self._starting, self.now = None, self._make_proposer(link)
        return True

    def lose(self) -> bool:
        """Give up what is here; returns whether another draft is started in its place."""
        lost, self.now = self.now, None
        starting, self._starting = self._starting, None
        for part in (lost, starting):
            if part is not None:
                part.close()
        if self._restarts == 0:
            return False
        self._restarts -= 1
        try:
            self._starting = self._begin_start()
        except (DraftWorkerError, OSError):
            return False
        return True

    def named(self, proposal: Proposal) -> Proposal:
        """The proposal with the draft's number in its lanes."""
        return replace(proposal, activities=[self._on_own_lane(span) for span in proposal.activities])

    def close(self) -> None:
        """Stop the draft; calling it twice is fine."""
        self._restarts = 0
        self.lose()

    def _on_own_lane(self, span: Span) -> Span:
        return replace(span, lane=f"{span.lane} {self.number}")
