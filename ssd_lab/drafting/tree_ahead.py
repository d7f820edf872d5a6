"""The tree of a round that is prepared and may not come: made ready, begun when its round is, and taken later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from ssd_lab.drafting.batch_control import DraftRound
from ssd_lab.drafting.drafter import Drafter, DraftRequest
from ssd_lab.execution.stopwatch import CudaStopwatch, Span, Stopwatch
from ssd_lab.links.messages import NO_OUTCOME, Lookup, RoundMessage
from ssd_lab.phases.draft_tree import BranchShape
from ssd_lab.rounds.drafted import Drafted, DraftTree

RESTS = 16  # rounds without one, after one that was grown in vain: what is learned changes the trees now


@dataclass(frozen=True)
class Growth:
    """How the tree of a round is grown: fan_out as in `TreeInputs`, on the host."""

    fan_out: torch.Tensor
    shape: BranchShape
    request: DraftRequest

    def is_that_of(self, other: Growth) -> bool:
        """Do both give the same tree?"""
        return (self.shape, self.request) == (other.shape, other.request) and torch.equal(self.fan_out, other.fan_out)


@dataclass(frozen=True)
class _Ready:
    """drafted: what the rows get, all of which hit; begun: the tree, and when it was grown."""

    request_ids: list[int]
    drafted: Drafted
    growth: Growth
    work: Callable[[], DraftTree]
    begun: tuple[DraftTree, Span] | None = None


class TreeAhead:
    """At most one. Its round is drafted already where all outcomes were prepared, and once begun it overwrites the tree
    that held them.
    """

    def __init__(self, drafter: Drafter, watch: Stopwatch | CudaStopwatch) -> None:
        self._drafter, self._watch = drafter, watch
        self._ready: _Ready | None = None
        self._rests = 0

    @property
    def has_begun(self) -> bool:
        """Is the device at it?"""
        return self._ready is not None and self._ready.begun is not None

    def wants(self) -> bool:
        """Is one to be made ready for the round that is looked up? Counts the rounds that it rests."""
        self._ready, self._rests = None, max(0, self._rests - 1)
        return not self._rests and self._drafter.reads_ahead

    def make_ready(self, lookup: Lookup, drafted: Drafted, growth: Growth) -> None:
        """For the round after the outcomes that are looked up, in which `drafted` is verified."""
        untold = torch.full((len(lookup.rows),), NO_OUTCOME)
        asked = DraftRound(RoundMessage(0, lookup.rows.state, untold), lookup.request_ids, lookup.rows, None)
        work = self._drafter.ready_tree(asked, drafted.tokens, growth.fan_out, growth.shape, growth.request)
        self._ready = _Ready(lookup.request_ids, drafted, growth, work)

    def start(self) -> None:
        """Begin, if anything is ready."""
        if self._ready is not None:
            start = self._watch.start()
            tree = self._ready.work()
            span = self._watch.span("draft", "tree", start)  # type: ignore[arg-type]
            self._ready = replace(self._ready, begun=(tree, span))

    def drafted_for(self, request_ids: list[int]) -> Drafted | None:
        """The draft tokens of these requests, if it was begun for their round."""
        ready = self._ready
        return ready.drafted if ready is not None and ready.begun and ready.request_ids == request_ids else None

    def take(self, growth: Growth) -> tuple[DraftTree, Span] | None:
        """The tree, and when it was grown, if it was begun and is what is wanted now."""
        ready, self._ready = self._ready, None
        if ready is None or ready.begun is None:
            return None
        if ready.growth.is_that_of(growth):
            return ready.begun
        self._rests = RESTS
        return None

    def forget(self) -> None:
        """Its round does not come."""
        self._ready = None
