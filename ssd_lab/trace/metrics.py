"""The numbers of a run, derived from its trace alone."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ssd_lab.trace.records import RoundRecord
from ssd_lab.trace.spans import Interval, length_s, overlap_s, union
from ssd_lab.trace.totals import Totals
from ssd_lab.trace.trace import Trace

SHORTEST_S = 0.2  # clocks of processors tick in hundredths of a second


@dataclass(frozen=True)
class Spread:
    """Mean and percentiles of a sample; `float(spread)` is the mean. percentiles are None where only a sum is known."""

    count: int
    mean: float
    p50: float | None
    p95: float | None

    def __float__(self) -> float:
        return self.mean

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Of a sample, None if it is empty."""
        if not values:
            return None
        ordered = sorted(values)
        return cls(len(ordered), sum(ordered) / len(ordered), _percentile(ordered, 0.50), _percentile(ordered, 0.95))


@dataclass(frozen=True)
class LaneShare:
    """Share of the decode time in which a lane worked, and in which it waited (0..1)."""

    busy: float
    wait: float


@dataclass(frozen=True)
class Metrics:
    """What a run achieved. A number that the trace cannot tell is None; times are in seconds.

    Rates and round times are those of the timed rounds: rounds in which graphs were captured or kernels compiled are
    left out of them, tokens and seconds both (num_untimed_rounds; preparation_time_s is what that took, in prefills
    too). Of times that many rounds are in (to the first token, between tokens, of prefills) those seconds alone are.
    tokens_per_second: tokens emitted by timed rounds over the union of their times (decode only, whole batch).
    tokens_per_round: mean over sequences and rounds of `num_accepted + 1`.
    emitted_per_round: the same of the tokens that entered the text, fewer if a stop came first.
    acceptance_by_position[i]: P(draft token i accepted | all before it were).
    accepted_by_position[i]: the same without the condition.
    acceptance_rate: accepted over tested tokens, the estimate of the geometric model's rate.
    accepted_share: accepted over all drafted tokens.
    predicted_cache_hit_rate: what the fan-out's learned statistics said of the same lookups, each before its outcome.
    cache_hit_rate_after_hit / _after_miss: given the same sequence's previous lookup.
    lanes: by lane name; an activity whose name begins with `wait` is waiting.
    processor_share: processor time of the process over the seconds in which the target did not wait for its draft; a
    process that is alone has about 1 for each thread, one that shares its cores has less.
    exact: False also where the trace does not say (see lossy_reason).
    """

    num_requests: int
    num_output_tokens: int
    num_rounds: int
    num_sequence_rounds: int
    num_untimed_rounds: int
    decode_time_s: float
    prefill_time_s: float
    preparation_time_s: float
    tokens_per_second: float | None
    tokens_per_round: float | None
    emitted_per_round: float | None
    mean_accepted_length: float | None
    acceptance_rate: float | None
    accepted_share: float | None
    acceptance_by_position: list[float]
    accepted_by_position: list[float]
    cache_hit_rate: float | None
    predicted_cache_hit_rate: float | None
    cache_hit_rate_after_hit: float | None
    cache_hit_rate_after_miss: float | None
    origin_counts: dict[str, int]
    time_to_first_token_s: Spread | None
    inter_token_latency_s: Spread | None
    round_time_s: Spread | None
    lanes: dict[str, LaneShare]
    processor_share: float | None
    exact: bool
    bit_exact: bool | None
    lossy_reason: str | None
    device: str | None
    dtype: str | None
    peak_memory_bytes: int | None

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return dataclasses.asdict(self)


def compute_metrics(trace: Trace) -> Metrics:
    """Derive all metrics from recorded rounds, or from `meta["totals"]` and the requests if no rounds were recorded."""
    totals = Totals.from_trace(trace)
    meta = trace.meta
    exact = meta.get("exact") is True
    after_hit, after_miss = _hit_rates_by_previous(trace.rounds)
    lanes = _lane_shares(trace.timed_rounds)
    return Metrics(
        num_requests=len(trace.requests),
        num_output_tokens=sum(len(r.token_ids) for r in trace.requests) if trace.requests else totals.emitted,
        num_rounds=totals.rounds,
        num_sequence_rounds=totals.sequence_rounds,
        num_untimed_rounds=totals.untimed_rounds,
        decode_time_s=totals.decode_time_s,
        prefill_time_s=totals.prefill_time_s,
        preparation_time_s=totals.preparation_s,
        tokens_per_second=totals.tokens_per_second,
        tokens_per_round=_ratio(totals.accepted + totals.sequence_rounds, totals.sequence_rounds),
        emitted_per_round=_ratio(totals.emitted, totals.sequence_rounds),
        mean_accepted_length=_ratio(totals.accepted, totals.sequence_rounds),
        acceptance_rate=_ratio(totals.accepted, totals.tested),
        accepted_share=_ratio(totals.accepted, totals.drafted),
        acceptance_by_position=[
            a / r for a, r in zip(totals.accepted_at, totals.reached_at, strict=True) if r
        ],  # the list ends at the first position that was never reached
        accepted_by_position=[a / d for a, d in zip(totals.accepted_at, totals.drafted_at, strict=True)],
        cache_hit_rate=_ratio(totals.hits, totals.hits + totals.misses),
        predicted_cache_hit_rate=_ratio(totals.predicted_hits, totals.predicted_lookups),
        cache_hit_rate_after_hit=after_hit,
        cache_hit_rate_after_miss=after_miss,
        origin_counts=dict(totals.origins),
        time_to_first_token_s=Spread.of(
            [trace.elapsed_s(r.arrival_s, r.first_token_s) for r in trace.requests if r.first_token_s is not None]
        ),
        inter_token_latency_s=Spread.of(_inter_token_latencies(trace)),
        round_time_s=_round_time(trace, totals),
        lanes=lanes,
        processor_share=_processor_share(meta, totals, lanes),
        exact=exact,
        bit_exact=meta.get("bit_exact"),
        lossy_reason=None if exact else meta.get("lossy_reason") or "the trace does not say that it is exact",
        device=meta.get("device"),
        dtype=meta.get("dtype"),
        peak_memory_bytes=meta.get("peak_memory_bytes"),
    )


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator else None


def _percentile(ordered: Sequence[float], share: float) -> float:
    """Linear interpolation between the two nearest ranks."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _inter_token_latencies(trace: Trace) -> list[float]:
    """One mean for each request: a round emits several tokens at once, so gaps between single tokens say little."""
    return [
        trace.elapsed_s(r.first_token_s, r.end_s) / (len(r.token_ids) - 1)
        for r in trace.requests
        if r.end_s is not None and r.first_token_s is not None and len(r.token_ids) > 1
    ]


def _round_time(trace: Trace, totals: Totals) -> Spread | None:
    if not trace.rounds and totals.timed_rounds:
        return Spread(totals.timed_rounds, totals.decode_time_s / totals.timed_rounds, None, None)
    return Spread.of([r.end_s - r.start_s for r in trace.timed_rounds])


def _hit_rates_by_previous(rounds: Sequence[RoundRecord]) -> tuple[float | None, float | None]:
    """Hit rate given that the same sequence's previous lookup was a hit, and given that it was a miss."""
    previous: dict[int, bool] = {}
    lookups, hits = {True: 0, False: 0}, {True: 0, False: 0}
    for round_record in rounds:
        for sequence in round_record.sequences:
            if sequence.cache_hit is None:
                continue
            before = previous.get(sequence.request_id)
            if before is not None:
                lookups[before] += 1
                hits[before] += sequence.cache_hit
            previous[sequence.request_id] = sequence.cache_hit
    return _ratio(hits[True], lookups[True]), _ratio(hits[False], lookups[False])


def _processor_share(meta: Mapping[str, Any], totals: Totals, lanes: Mapping[str, LaneShare]) -> float | None:
    """None where it was not measured, or for so short that it says nothing."""
    measured = meta.get("processor")
    if not isinstance(measured, Mapping) or measured.get("wall_s", 0.0) < SHORTEST_S:
        return None
    waits = [lanes[lane].wait for lane in ("target", "link") if lane in lanes]
    waited_s = max(waits, default=0.0) * totals.decode_time_s
    worked_s = measured["wall_s"] - waited_s
    return float(measured["cpu_s"]) / worked_s if worked_s > SHORTEST_S / 2 else None


def _lane_shares(rounds: Sequence[RoundRecord]) -> dict[str, LaneShare]:
    decode = union((r.start_s, r.end_s) for r in rounds)
    decode_time_s = length_s(decode)
    if not decode_time_s:
        return {}
    busy: dict[str, list[Interval]] = defaultdict(list)
    wait: dict[str, list[Interval]] = defaultdict(list)
    for round_record in rounds:
        for activity in round_record.activities:
            spans = wait if activity.name.startswith("wait") else busy
            spans[activity.lane].append((activity.start_s, activity.end_s))
    return {
        lane: LaneShare(
            busy=overlap_s(union(busy[lane]), decode) / decode_time_s,
            wait=overlap_s(union(wait[lane]), decode) / decode_time_s,
        )
        for lane in sorted(busy.keys() | wait.keys())
    }
