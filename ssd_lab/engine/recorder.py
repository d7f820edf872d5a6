"""Collects what happened in a run: cheap totals always, every round if asked."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from ssd_lab.engine.phases.verify import Verified
from ssd_lab.engine.proposal import Proposal
from ssd_lab.engine.sequence import Sequence
from ssd_lab.trace.records import Activity, RequestRecord, RoundRecord, SequenceRound, Trace
from ssd_lab.trace.totals import Totals


class Recorder:
    """Builds the trace of one run. Times are seconds since the recorder was made."""

    def __init__(self, meta: dict[str, Any], *, record: bool) -> None:
        self._origin_s = time.perf_counter()
        self._record = record
        self._requests: list[RequestRecord] = []
        self._rounds: list[RoundRecord] = []
        self._prefills: list[Activity] = []
        self._meta = meta
        self._totals = Totals()

    @property
    def totals(self) -> Totals:
        """The counts so far, which go on growing."""
        return self._totals

    def now_s(self) -> float:
        """Seconds of the run's clock."""
        return time.perf_counter() - self._origin_s

    def note(self, key: str, value: Any) -> None:
        """Remember something about the whole run."""
        self._meta = {**self._meta, key: value}

    def prefill(self, start_s: float) -> None:
        """A prompt chunk was computed since `start_s`."""
        end_s = self.now_s()
        self._totals.prefill_time_s += end_s - start_s
        if self._record:
            self._prefills.append(Activity("target", "prefill", start_s, end_s))

    def round(
        self,
        sequences: list[Sequence],
        lengths: list[int],
        draft_tokens: list[list[int]],
        proposal: Proposal,
        verified: Verified,
        emitted: list[int],
        start_s: float,
        verify_start_s: float,
        verify_end_s: float,
    ) -> None:
        """A round is over; `emitted[i]` tokens of sequence i entered its text."""
        end_s = self.now_s()
        self._totals.add_round(end_s - start_s)
        for row in range(len(sequences)):
            self._totals.add_sequence(
                num_drafted=proposal.num_drafted[row],
                num_accepted=verified.num_accepted[row],
                num_emitted=emitted[row],
                origin=proposal.origins[row],
                cache_hit=proposal.cache_hits[row],
            )
        if not self._record or verified.target_probs is None or verified.recovery_probs is None:
            return
        token_probs = proposal.token_probs or [[1.0] * len(tokens) for tokens in draft_tokens]
        rows = [
            SequenceRound(
                request_id=sequence.request_id,
                position=lengths[row],
                draft_tokens=draft_tokens[row][: proposal.num_drafted[row]],
                draft_probs=token_probs[row][: proposal.num_drafted[row]],
                target_probs=verified.target_probs[row][: proposal.num_drafted[row]],
                num_accepted=verified.num_accepted[row],
                recovery_token=verified.recovery_tokens[row],
                recovery_prob=verified.recovery_probs[row],
                num_emitted=emitted[row],
                origin=proposal.origins[row],
                cache_hit=proposal.cache_hits[row],
            )
            for row, sequence in enumerate(sequences)
            if verified.finite[row]  # a failed request's numbers are none, and JSON holds none
        ]
        activities = [Activity("target", "verify", verify_start_s, verify_end_s)]
        for activity in proposal.activities:
            if activity.start_s < self._origin_s:
                continue  # the draft's last work for the run before
            span = dataclasses.replace(
                activity, start_s=activity.start_s - self._origin_s, end_s=activity.end_s - self._origin_s
            )
            activities.append(span)
        self._attach_trees(proposal)
        self._rounds.append(RoundRecord(len(self._rounds), start_s, end_s, rows, activities))

    def request(self, sequence: Sequence) -> None:
        """A request ended."""
        self._requests.append(
            RequestRecord(
                request_id=sequence.request_id,
                prompt=sequence.prompt,
                prompt_ids=list(sequence.prompt_ids),
                token_ids=sequence.output_ids,
                text=sequence.stop.text,
                finish_reason=sequence.finish_reason,
                arrival_s=sequence.arrival_s,
                admitted_s=sequence.admitted_s,
                first_token_s=sequence.first_token_s,
                end_s=sequence.end_s,
                params=sequence.params.model_dump(),
            )
        )

    def trace(self) -> Trace:
        """All that was recorded so far."""
        meta = {**self._meta, "totals": self._totals.as_dict()}
        return Trace(meta, sorted(self._requests, key=lambda r: r.request_id), list(self._rounds), list(self._prefills))

    def _attach_trees(self, proposal: Proposal) -> None:
        """A tree arrives one round late: it was built while the previous round was verified, and belongs to that
        round.
        """
        if not proposal.previous_trees or not self._rounds:
            return
        last = self._rounds[-1]
        rows = [
            dataclasses.replace(row, tree=proposal.previous_trees.get(row.request_id, row.tree))
            for row in last.sequences
        ]
        self._rounds[-1] = dataclasses.replace(last, sequences=rows)
