"""Counters of a run: cheap enough to be kept always, complete enough for metrics when the rounds were not recorded.

The engine keeps one `Totals`, calls `add_sequence` for each sequence of a round and `add_round` once a round, and
stores `totals.as_dict()` under `trace.meta["totals"]`. Other keys of `meta` that results are made from (all optional):

    strategy            dict, the strategy's fields with its `name`
    exact               bool, every path keeps the target's distribution (absent counts as False)
    bit_exact           bool, greedy text equals autoregressive text bit for bit
    lossy_reason        str, why not exact
    degraded            str, why the draft was given up during the run
    drafts              list of str, which drafts were lost, or came back, while the run went on
    device, dtype       str
    peak_memory_bytes   int
    processor           dict, cpu_s of the process that ran the target and wall_s, of a run on a CPU
    ranked_candidates   int, the largest recovery_rank, which stands for itself and all beyond it
    token_texts         dict, the text of each token id (as text) that the rounds mention
    missing             list of str, parts of the trace that could not be made, each with its reason
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ssd_lab.errors import TraceFormatError
from ssd_lab.trace.records import SequenceRound
from ssd_lab.trace.spans import length_s, overlap_s, union
from ssd_lab.trace.trace import Trace


@dataclass
class Totals:
    """Counts over all rounds; times in seconds.

    decode_time_s: in rounds, those left out in which graphs were captured or kernels compiled: untimed_rounds, which
    emitted untimed_tokens. prefill_time_s: on prompts; preparation_s: of capturing and compiling, in neither of them.
    predicted_hits: sum over predicted_lookups lookups of the chance that the outcome was prepared, as it was thought to
    be before. tested: draft tokens that verification looked at (all before them were accepted).
    drafted_at / reached_at / accepted_at: by position, how many rounds had a draft token there, tested it, accepted it.
    Of a tree, draft tokens are the chain that `SequenceRound` describes. `outcomes[d][a]`: in how many rounds of a
    sequence `a` of `d` draft tokens were accepted. drafted_by / accepted_by / kept_by: draft
    tokens by origin, kept being those in the text.
    """

    rounds: int = 0
    sequence_rounds: int = 0
    drafted: int = 0
    tested: int = 0
    accepted: int = 0
    emitted: int = 0
    hits: int = 0
    misses: int = 0
    predicted_hits: float = 0.0
    predicted_lookups: int = 0
    decode_time_s: float = 0.0
    prefill_time_s: float = 0.0
    preparation_s: float = 0.0
    untimed_rounds: int = 0
    untimed_tokens: int = 0
    origins: dict[str, int] = field(default_factory=dict)
    drafted_at: list[int] = field(default_factory=list)
    reached_at: list[int] = field(default_factory=list)
    accepted_at: list[int] = field(default_factory=list)
    outcomes: list[list[int]] = field(default_factory=list)
    drafted_by: dict[str, int] = field(default_factory=dict)
    accepted_by: dict[str, int] = field(default_factory=dict)
    kept_by: dict[str, int] = field(default_factory=dict)

    @property
    def timed_rounds(self) -> int:
        """Rounds whose time counts."""
        return self.rounds - self.untimed_rounds

    @property
    def timed_tokens(self) -> int:
        """Tokens that timed rounds emitted."""
        return self.emitted - self.untimed_tokens

    @property
    def tokens_per_second(self) -> float | None:
        """Of timed rounds, whole batch; None if there were none."""
        return self.timed_tokens / self.decode_time_s if self.decode_time_s else None

    def add_round(self, duration_s: float, *, num_emitted: int = 0, preparation_s: float = 0.0) -> None:
        """Count one round of the whole batch, which emitted so many tokens; its sequences come apart."""
        self.rounds += 1
        self.preparation_s += preparation_s
        if preparation_s:
            self.untimed_rounds += 1
            self.untimed_tokens += num_emitted
        else:
            self.decode_time_s += duration_s

    def add_prefill(self, duration_s: float, *, preparation_s: float = 0.0) -> None:
        """Count a part of a prompt."""
        self.preparation_s += preparation_s
        self.prefill_time_s += duration_s - preparation_s

    def add_sequence(
        self,
        *,
        num_drafted: int,
        num_accepted: int,
        num_emitted: int,
        origin: str,
        cache_hit: bool | None,
        predicted_hit: float | None = None,
    ) -> None:
        """Count one sequence of one round; the arguments mean what they mean in `SequenceRound`."""
        self.sequence_rounds += 1
        self.drafted += num_drafted
        self.tested += min(num_accepted + 1, num_drafted)
        self.accepted += num_accepted
        self.emitted += num_emitted
        self.hits += cache_hit is True
        self.misses += cache_hit is False
        if predicted_hit is not None:
            self.predicted_hits += predicted_hit
            self.predicted_lookups += 1
        self.origins[origin] = self.origins.get(origin, 0) + 1
        self.drafted_by[origin] = self.drafted_by.get(origin, 0) + num_drafted
        self.accepted_by[origin] = self.accepted_by.get(origin, 0) + num_accepted
        self.kept_by[origin] = self.kept_by.get(origin, 0) + min(num_accepted, num_emitted)
        while len(self.outcomes) <= num_drafted:
            self.outcomes.append([0] * (len(self.outcomes) + 1))
        self.outcomes[num_drafted][num_accepted] += 1
        missing = num_drafted - len(self.drafted_at)
        for counts in (self.drafted_at, self.reached_at, self.accepted_at):
            counts.extend([0] * missing)
        for position in range(num_drafted):
            self.drafted_at[position] += 1
            self.reached_at[position] += position <= num_accepted
            self.accepted_at[position] += position < num_accepted

    def add_record(self, record: SequenceRound) -> None:
        """Count one recorded sequence-round."""
        self.add_sequence(
            num_drafted=len(record.draft_tokens),
            num_accepted=record.num_accepted,
            num_emitted=record.num_emitted,
            origin=record.origin,
            cache_hit=record.cache_hit,
            predicted_hit=record.predicted_hit,
        )

    def copy(self) -> Totals:
        """The counts as they stand."""
        return Totals(**{each.name: copy.deepcopy(getattr(self, each.name)) for each in dataclasses.fields(self)})

    def as_dict(self) -> dict[str, Any]:
        """Plain data for `trace.meta["totals"]`."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Totals:
        """Read `trace.meta["totals"]`; unknown counters are left out, absent ones are zero."""
        known = {f.name for f in dataclasses.fields(cls)}
        totals = cls(**{name: value for name, value in data.items() if name in known})
        if totals.rounds and not totals.sequence_rounds:
            totals.sequence_rounds = totals.rounds  # counters of a single sequence need not say it twice
        return totals

    @classmethod
    def from_trace(cls, trace: Trace) -> Totals:
        """Count the recorded rounds, or read the run's own counters if it recorded none.

        Raises TraceFormatError if those counters are no dictionary of numbers.
        """
        if not trace.rounds and "totals" in trace.meta:
            if not isinstance(trace.meta["totals"], Mapping):
                raise TraceFormatError(
                    f'meta["totals"] is {trace.meta["totals"]!r}; it must be what Totals.as_dict() gives'
                )
            return cls.from_dict(trace.meta["totals"])
        totals = cls()
        prepared = union((p.start_s, p.end_s) for p in trace.preparations)
        prefills = union((p.start_s, p.end_s) for p in trace.prefills)
        totals.prefill_time_s = length_s(prefills) - overlap_s(prefills, prepared)
        for round_record in trace.rounds:
            emitted = sum(record.num_emitted for record in round_record.sequences)
            totals.add_round(0.0, num_emitted=emitted, preparation_s=round_record.preparation_s)
            for record in round_record.sequences:
                totals.add_record(record)
        totals.decode_time_s = length_s(union((r.start_s, r.end_s) for r in trace.timed_rounds))
        totals.preparation_s = length_s(prepared)
        return totals
