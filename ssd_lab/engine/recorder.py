"""Collects what happened in a run: cheap totals always, every round if asked.

During the run only references are kept; records are made of them when the trace is asked for.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

from ssd_lab.engine.phases.verify import Verified
from ssd_lab.engine.proposal import Proposal
from ssd_lab.engine.recorded_tree import RecordedTree
from ssd_lab.engine.sequence import Sequence
from ssd_lab.engine.stopwatch import DeviceSpan, Span
from ssd_lab.trace.missing import MissingParts
from ssd_lab.trace.records import Activity, RequestRecord, RoundRecord, SequenceRound, Trace, TreeRecord
from ssd_lab.trace.token_texts import chain_ids, tree_ids
from ssd_lab.trace.totals import Totals


@dataclass(frozen=True)
class RoundTimes:
    """When a round began, its verification was launched, its outcome was there, and it ended (the run's seconds)."""

    start_s: float
    verify_start_s: float
    verify_end_s: float
    end_s: float


@dataclass(frozen=True)
class _Round:
    """A round as it is kept during the run; `tree` is what was drafted while it was verified, known one round later."""

    request_ids: list[int]
    lengths: list[int]
    origins: list[str]
    cache_hits: list[bool | None]
    predicted_hits: list[float | None] | None
    verified: Verified
    rows: list[int]
    emitted: list[int]
    times: RoundTimes
    spans: list[Span]
    tree: RecordedTree | None = None


class Recorder:
    """Builds the trace of one run. Times are seconds since the recorder was made.

    vocab_size: no id outside it gets into a trace. A part that holds one, or cannot be made, is left out and named in
    `meta["missing"]`.
    """

    def __init__(self, meta: dict[str, Any], *, record: bool, vocab_size: int) -> None:
        self._origin_s = time.perf_counter()
        self._record = record
        self._vocab_size = vocab_size
        self._requests: list[RequestRecord] = []
        self._rounds: list[_Round] = []
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
        proposal: Proposal,
        verified: Verified,
        rows: list[int],
        emitted: list[int],
        times: RoundTimes,
    ) -> None:
        """A round is over; `emitted[i]` tokens of sequence i entered its text. rows: those that count, of requests that
        had not ended when it was launched.
        """
        self._totals.add_round(times.end_s - times.start_s)
        for row in rows:
            self._totals.add_sequence(
                num_drafted=verified.num_drafted[row],
                num_accepted=verified.num_accepted[row],
                num_emitted=emitted[row],
                origin=proposal.origins[row],
                cache_hit=proposal.cache_hits[row],
                predicted_hit=None if proposal.predicted_hits is None else proposal.predicted_hits[row],
            )
        if not self._record or verified.probabilities is None:
            return
        tree = proposal.previous_tree
        if tree is not None and 0 < tree.rounds_ago <= len(self._rounds):  # else its round was interrupted
            # built while an earlier round was verified, mostly the one before, and belongs to that round
            self._rounds[-tree.rounds_ago] = dataclasses.replace(self._rounds[-tree.rounds_ago], tree=tree)
        self._rounds.append(
            _Round(
                request_ids=[sequence.request_id for sequence in sequences],
                lengths=lengths,
                origins=proposal.origins,
                cache_hits=proposal.cache_hits,
                predicted_hits=proposal.predicted_hits,
                verified=verified,
                rows=rows,
                emitted=emitted,
                times=times,
                spans=proposal.activities,
            )
        )

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

    def trace(self, first_round: int = 0) -> Trace:
        """What was recorded so far, from this round on."""
        missing = MissingParts()
        meta = {**self._meta, "totals": self._totals.as_dict()}
        with missing.part("the number of ranked candidates"):
            ranked = next((kept.tree.num_candidates for kept in self._rounds if kept.tree is not None), None)
            if ranked is not None:
                meta["ranked_candidates"] = ranked
        later = enumerate(self._rounds[first_round:], start=first_round)
        rounds = [self._round_record(index, kept, missing) for index, kept in later]
        requests = sorted(self._requests, key=lambda r: r.request_id)
        return Trace(missing.noted(meta), requests, rounds, list(self._prefills))

    def _round_record(self, index: int, kept: _Round, missing: MissingParts) -> RoundRecord:
        trees: dict[int, TreeRecord] = {}
        if kept.tree is not None:
            with missing.part(f"the draft trees of round {index}"):
                trees = kept.tree.records()
        rows = []
        for row in kept.rows:
            if kept.verified.finite[row]:  # a failed request's numbers are none, and JSON holds none
                name = f"request {kept.request_ids[row]} in round {index}"
                with missing.part(name):
                    rows.append(self._checked(self._sequence_round(kept, row, trees), name, missing))
        activities = [Activity("target", "verify", kept.times.verify_start_s, kept.times.verify_end_s)]
        for span in kept.spans:
            with missing.part(f"an activity of round {index}"):
                activity = span.resolve() if isinstance(span, DeviceSpan) else span
                if activity.start_s >= self._origin_s:  # else the draft's last work for the run before
                    start_s, end_s = activity.start_s - self._origin_s, activity.end_s - self._origin_s
                    activities.append(dataclasses.replace(activity, start_s=start_s, end_s=end_s))
        return RoundRecord(index, kept.times.start_s, kept.times.end_s, rows, activities)

    def _checked(self, record: SequenceRound, name: str, missing: MissingParts) -> SequenceRound:
        """The record, without its tree if that holds ids outside the vocabulary. Raises ValueError if the rest does."""
        self._check_ids(chain_ids(record))
        with missing.part(f"the tree of {name}"):
            self._check_ids(tree_ids(record))
            return record
        return dataclasses.replace(record, tree=None)

    def _check_ids(self, ids: set[int]) -> None:
        outside = sorted(token for token in ids if not 0 <= token < self._vocab_size)
        if outside:
            raise ValueError(f"token ids {outside[:3]} are outside 0..{self._vocab_size - 1}")

    def _sequence_round(self, kept: _Round, row: int, trees: dict[int, TreeRecord]) -> SequenceRound:
        verified = kept.verified
        numbers = verified.probabilities
        if numbers is None:
            raise RuntimeError("a round without probabilities was kept")
        drafted = verified.num_drafted[row]
        draft_probs = [1.0] * drafted if numbers.draft is None else numbers.draft[row, :drafted].tolist()
        # certain guesses are not decided by coins, and siblings in a tree have one each
        coins = None if verified.trees is not None or all(prob == 1.0 for prob in draft_probs) else numbers.coins
        request_id, num_accepted = kept.request_ids[row], verified.num_accepted[row]
        alternatives = None
        if verified.alternatives is not None:
            places = range(drafted + 1)
            alternatives = [verified.alternatives.position(row, place, drafted=place < drafted) for place in places]
        rank = schedule = None
        if kept.tree is not None:
            rank = kept.tree.rank_of(request_id, num_accepted, verified.recovery_tokens[row])
            schedule = kept.tree.schedule_of(request_id)
        return SequenceRound(
            request_id=request_id,
            position=kept.lengths[row],
            draft_tokens=verified.draft_tokens[row][:drafted],
            draft_probs=draft_probs,
            target_probs=numbers.target[row, :drafted].tolist(),
            num_accepted=num_accepted,
            recovery_token=verified.recovery_tokens[row],
            recovery_prob=float(numbers.recovery[row]),
            num_emitted=kept.emitted[row],
            origin=kept.origins[row],
            cache_hit=kept.cache_hits[row],
            tree=trees.get(request_id) if verified.trees is None else verified.trees.record(row),
            coins=None if coins is None else coins[row, :drafted].tolist(),
            recovery_coin=None if numbers.recovery_coins is None else float(numbers.recovery_coins[row]),
            recovery_rank=rank,
            fan_out=None if schedule is None else list(schedule),
            alternatives=alternatives,
            predicted_hit=None if kept.predicted_hits is None else kept.predicted_hits[row],
        )
