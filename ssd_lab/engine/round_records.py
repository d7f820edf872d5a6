"""Records of rounds, made when a trace is asked for, of what was kept while they ran."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from ssd_lab.execution.preparations import seconds_within
from ssd_lab.execution.stopwatch import DeviceSpan, Span, settled
from ssd_lab.rounds.recorded_tree import RecordedTree
from ssd_lab.rounds.verified import Verified
from ssd_lab.trace.missing import MissingParts
from ssd_lab.trace.records import Activity, RoundRecord, SequenceRound, TreeRecord
from ssd_lab.trace.token_texts import chain_ids, tree_ids
from ssd_lab.trace.totals import Totals


@dataclass(frozen=True)
class RoundTimes:
    """When a round began, its verification was launched, its outcome was there, and it ended (monotonic seconds)."""

    start_s: float
    verify_start_s: float
    verify_end_s: float
    end_s: float


@dataclass(eq=False)
class KeptRound:
    """A round of the whole batch, shared by the recordings of all who took part. preparation_s: of its time, what went
    into capturing and compiling. trees: what was drafted while it was verified, known in a later round: one of each
    draft worker that took part.
    """

    request_ids: list[int]
    lengths: list[int]
    origins: list[str]
    cache_hits: list[bool | None]
    predicted_hits: list[float | None] | None
    verified: Verified
    emitted: list[int]
    times: RoundTimes
    spans: list[Span]
    preparation_s: float = 0.0
    trees: list[RecordedTree] = field(default_factory=list)

    def count(self, rows: list[int], totals: Totals) -> None:
        """Add the round to the totals, and what these rows did in it."""
        totals.add_round(
            self.times.end_s - self.times.start_s,
            num_emitted=sum(self.emitted[row] for row in rows),
            preparation_s=self.preparation_s,
        )
        for row in rows:
            totals.add_sequence(
                num_drafted=self.verified.num_drafted[row],
                num_accepted=self.verified.num_accepted[row],
                num_emitted=self.emitted[row],
                origin=self.origins[row],
                cache_hit=self.cache_hits[row],
                predicted_hit=None if self.predicted_hits is None else self.predicted_hits[row],
            )

    def tree_of(self, request_id: int) -> RecordedTree | None:
        """The one that was built on what was verified: where two workers drafted, the second one's draft was taken."""
        return next((tree for tree in reversed(self.trees) if request_id in tree.request_ids), None)

    def settled(self) -> KeptRound:
        """The same, its spans told in seconds: nothing of a device is kept. They are over when the round is."""
        self.spans = [settled(span) for span in self.spans]
        return self


class RoundRecords:
    """Makes the records of rounds, with times since `origin_s`.

    vocab_size: no id outside it gets into a record. A part that holds one, or cannot be made, is left out and named in
    `missing`. prepared: when something was captured or compiled.
    """

    def __init__(self, origin_s: float, vocab_size: int, missing: MissingParts, prepared: list[Activity]) -> None:
        self._prepared = prepared
        self._origin_s = origin_s
        self._vocab_size = vocab_size
        self._missing = missing

    def round(self, index: int, kept: KeptRound, rows: list[int]) -> RoundRecord:
        """One round, as far as it concerns these rows."""
        trees: dict[int, TreeRecord] = {}
        for tree in kept.trees:
            with self._missing.part(f"the draft trees of round {index}"):
                trees |= tree.records()
        records = []
        for row in rows:
            if kept.verified.finite[row]:  # a failed request's numbers are none, and JSON holds none
                name = f"request {kept.request_ids[row]} in round {index}"
                with self._missing.part(name):
                    records.append(self._checked(self._sequence_round(kept, row, trees), name))
        times = kept.times
        activities = [self.activity(Activity("target", "verify", times.verify_start_s, times.verify_end_s))]
        for span in kept.spans:
            with self._missing.part(f"an activity of round {index}"):
                activity = span.resolve() if isinstance(span, DeviceSpan) else span
                if activity.start_s >= self._origin_s:  # else the draft's last work for the run before
                    activities.append(self.activity(activity))
        start_s, end_s = times.start_s - self._origin_s, times.end_s - self._origin_s
        preparation_s = seconds_within(self._prepared, (times.start_s, times.end_s))
        return RoundRecord(index, start_s, end_s, records, activities, preparation_s)

    def activity(self, activity: Activity) -> Activity:
        """The same, with times since the origin."""
        start_s, end_s = activity.start_s - self._origin_s, activity.end_s - self._origin_s
        return dataclasses.replace(activity, start_s=start_s, end_s=end_s)

    def _checked(self, record: SequenceRound, name: str) -> SequenceRound:
        """The record, without its tree if that holds ids outside the vocabulary. Raises ValueError if the rest does."""
        self._check_ids(chain_ids(record))
        with self._missing.part(f"the tree of {name}"):
            self._check_ids(tree_ids(record))
            return record
        return dataclasses.replace(record, tree=None)

    def _check_ids(self, ids: set[int]) -> None:
        outside = sorted(token for token in ids if not 0 <= token < self._vocab_size)
        if outside:
            raise ValueError(f"token ids {outside[:3]} are outside 0..{self._vocab_size - 1}")

    def _sequence_round(self, kept: KeptRound, row: int, trees: dict[int, TreeRecord]) -> SequenceRound:
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
        if (built := kept.tree_of(request_id)) is not None:
            rank = built.rank_of(request_id, num_accepted, verified.recovery_tokens[row])
            schedule = built.schedule_of(request_id)
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
