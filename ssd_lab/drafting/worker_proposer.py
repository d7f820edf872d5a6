"""What proposers that talk to a draft worker over a link have in common: the round's message and what it tells."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch

from ssd_lab.drafting.batch_control import ControlSender
from ssd_lab.drafting.composition import no_draft
from ssd_lab.drafting.proposer import Proposer
from ssd_lab.errors import DraftLateError, DraftWorkerError
from ssd_lab.execution.device_tensor import DeviceTensor
from ssd_lab.execution.preparations import Preparations
from ssd_lab.links.link import Link, Pending
from ssd_lab.links.messages import NO_OUTCOME, Lookup, Outcome, RememberMessage, RestoreMessage, RoundMessage
from ssd_lab.rounds.proposal import ForHits, Proposal
from ssd_lab.rounds.rows import KnownState, RowBatch
from ssd_lab.rounds.sequence import Sequence
from ssd_lab.trace.records import Activity


@dataclass(frozen=True)
class AskedRound:
    """A round of these sequences that a worker was asked for. pending: None if it was not, since it is late."""

    sequences: list[Sequence]
    pending: Pending | None
    start_s: float


class WorkerProposer(Proposer):
    """Sends each round's outcomes and receives the next draft tokens. Whether anything overlaps is the link's matter.

    It may be asked for some sequences of a round only (the others have their draft from elsewhere). sends_texts: the
    worker looks at the texts themselves. preparations: of a round in which there were any the worker is told no time,
    for what learns there would take it for one. wait_s: how long a round waits before it goes on without draft tokens
    (None: for `timeout_s`, after which the worker counts as lost). prepares: the worker prepares for outcomes.
    """

    def __init__(
        self,
        link: Link,
        *,
        timeout_s: float,
        wait_s: float | None = None,
        sends_texts: bool = False,
        prepares: bool = False,
        preparations: Preparations | None = None,
    ) -> None:
        self.link = link
        self.looks_up = prepares and link.looks_up
        self._preparations = preparations or Preparations()
        self._timeout_s, self._wait_s = timeout_s, wait_s
        self._late: AskedRound | None = None
        self._was_late = False  # the latest tree was built on tokens that nobody verified
        self._control = ControlSender(sends_texts=sends_texts)
        self._asked_s: float | None = None
        self._round_s: float | None = None
        self._accepted: dict[int, int] = {}
        self._drafted: dict[int, int] = {}  # of each request, how long its text was when it was drafted for last
        self._away: dict[int, Outcome] = {}  # of requests that gave up their blocks, drafted for here until then
        self._rounds_since = 0  # rounds that are over since the worker was asked

    def work_ahead(self) -> None:
        """Let the worker prepare for the next outcome."""
        self.link.work_ahead()

    def for_hits(
        self, sequences: list[Sequence], rows: RowBatch, decided: torch.Tensor, features: torch.Tensor | None
    ) -> ForHits | None:
        """What the worker has prepared, if it drafted the round that is under way for all of these."""
        if any(self._drafted.get(sequence.request_id) != len(sequence.token_ids) for sequence in sequences):
            return None
        request_ids = [sequence.request_id for sequence in sequences]
        return self.link.look_up(Lookup(request_ids, DeviceTensor.of(decided), rows))

    def start_ahead(self) -> None:
        """Let the worker begin what it made ready with the lookup."""
        self.link.start_ahead()

    def observe(self, sequences: list[Sequence], features: torch.Tensor | None) -> None:
        """Keep what the worker is told with the next round: outcomes, and how long the round took."""
        self._rounds_since += 1
        if self._asked_s is not None:
            now_s = time.perf_counter()
            self._round_s = None if self._preparations.between(self._asked_s, now_s) else now_s - self._asked_s
            self._asked_s = None
        self._accepted = {s.request_id: s.last_accepted for s in sequences if s.last_accepted is not None}
        for sequence in sequences:
            self._away.pop(sequence.request_id, None)

    def suspend(self, sequence: Sequence) -> None:
        """Have the worker keep what it prepared for the sequence's outcome."""
        if sequence.last_accepted is not None and self._drafted_last_round(sequence):
            self._away[sequence.request_id] = (sequence.last_accepted, sequence.token_ids[-1])

    def remember(self) -> None:
        """It is the worker that learns."""
        self.link.post(RememberMessage())

    def restore(self) -> None:
        """See `remember`."""
        self.link.post(RestoreMessage())
        self._asked_s = self._round_s = None
        self._accepted = {}

    def forget(self, sequence: Sequence) -> None:
        """Drop what was remembered of a request."""
        self._drafted.pop(sequence.request_id, None)
        self._away.pop(sequence.request_id, None)

    def close(self) -> None:
        """Stop the worker."""
        self.link.close()

    def _message(self, sequences: list[Sequence], rows: RowBatch) -> RoundMessage:
        """A round of these sequences, after telling who they are, if that changed. An outcome of somebody else's draft
        says nothing about what was prepared here, and of an outcome on the device nothing is known.
        """
        told = isinstance(rows.state, KnownState)
        own = {s.request_id: s.last_accepted if told and self._drafted_last_round(s) else None for s in sequences}
        change = self._control.change(sequences, rows)
        if change is not None:
            self.link.post(change)
        return RoundMessage(
            control=self._control.number,
            state=rows.state,
            num_accepted=torch.tensor([NO_OUTCOME if accepted is None else accepted for accepted in own.values()]),
            elsewhere={other: accepted for other, accepted in self._accepted.items() if own.get(other) != accepted},
            round_s=self._round_s,
            new_tokens=self._control.new_tokens(sequences),
            away=dict(self._away),
        )

    def _begin(self, sequences: list[Sequence], message: RoundMessage) -> AskedRound:
        """Ask the worker for a round of these sequences, and go on."""
        self._asked_s = start_s = time.perf_counter()
        self._round_s, self._accepted = None, {}
        pending = self.link.ask(message)
        self._control.arrived()
        return AskedRound(sequences, pending, start_s)

    def finish(self, asked: AskedRound) -> Proposal:
        """The worker's draft tokens for a round, and how long they were waited for. No draft tokens if they do not come
        within `wait_s`: their answer is void, and until it is there the worker is asked for nothing.
        """
        start_s = time.perf_counter()
        if asked.pending is None:
            return no_draft(len(asked.sequences))
        try:
            proposal = asked.pending.answer(max(0.0, self._limit_s - (start_s - asked.start_s)))
        except DraftLateError:
            self._asked_s = None
            self._still_late(asked)
            waited = Activity("link", "wait for draft", asked.start_s, time.perf_counter())
            return replace(no_draft(len(asked.sequences)), activities=[waited])
        waited = Activity("link", "wait for draft", asked.start_s, time.perf_counter())
        self._drafted.update({sequence.request_id: len(sequence.token_ids) for sequence in asked.sequences})
        rounds_ago, self._rounds_since = self._rounds_since, 0
        trees = [] if self._was_late else [replace(tree, rounds_ago=rounds_ago) for tree in proposal.previous_trees]
        self._was_late = False
        return replace(
            proposal,
            previous_trees=trees,
            activities=[*proposal.activities, waited],
        )

    def is_late(self) -> bool:
        """Is the answer to an earlier round still to come? What has come is dropped. Raises DraftWorkerError if the
        worker died, or took longer than `timeout_s`.
        """
        late, self._late = self._late, None
        if late is not None and late.pending is not None:
            try:
                late.pending.answer(0.0)
            except DraftLateError:
                self._still_late(late)
        return self._late is not None

    def _still_late(self, asked: AskedRound) -> None:
        if time.perf_counter() - asked.start_s > self._timeout_s:
            raise DraftWorkerError(f"the draft worker did not answer within {self._timeout_s:g} s")
        self._late, self._was_late = asked, True

    @property
    def _limit_s(self) -> float:
        """How long a round waits for its draft tokens; a worker in this thread has answered already."""
        return min(self._wait_s or self._timeout_s, self._timeout_s) if self.link.runs_by_itself else self._timeout_s

    def _drafted_last_round(self, sequence: Sequence) -> bool:
        """Every round adds at least one token, so the text is this short only if no other round came in between."""
        accepted, drafted = sequence.last_accepted, self._drafted.get(sequence.request_id)
        return accepted is not None and drafted is not None and len(sequence.token_ids) <= drafted + accepted + 1
