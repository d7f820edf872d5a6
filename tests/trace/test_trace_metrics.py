"""Metrics are sums a reader can redo by hand."""

from __future__ import annotations

import json

import pytest
from trace_samples import async_trace, request, round_record, sequence_round

from ssd_lab.errors import TraceFormatError
from ssd_lab.trace import Activity, LaneShare, Totals, Trace, compute_metrics


def test_counts_rates_and_times_of_a_small_async_trace():
    metrics = compute_metrics(async_trace())
    assert (metrics.num_requests, metrics.num_rounds, metrics.num_sequence_rounds) == (2, 3, 6)
    assert metrics.num_output_tokens == 13
    assert metrics.decode_time_s == 4.0  # the gap between rounds 1 and 2 is not decoding
    assert metrics.prefill_time_s == 1.0
    assert metrics.tokens_per_second == 13 / 4
    assert metrics.tokens_per_round == (4 + 2 + 1 + 3 + 2 + 3) / 6
    assert metrics.emitted_per_round == 13 / 6
    assert metrics.mean_accepted_length == 9 / 6
    assert metrics.cache_hit_rate == 3 / 4
    assert metrics.origin_counts == {"jit": 3, "hit": 3}
    assert metrics.exact and metrics.lossy_reason is None and metrics.bit_exact is None
    assert (metrics.device, metrics.dtype, metrics.peak_memory_bytes) == ("cpu", "float32", None)


def test_acceptance_by_position_is_conditional_on_reaching_the_position():
    metrics = compute_metrics(async_trace())  # accepted lengths 3, 1, 0, 2, 1, 2 of k = 3
    assert metrics.acceptance_by_position == [5 / 6, 3 / 5, 1 / 3]
    assert metrics.accepted_by_position == [5 / 6, 3 / 6, 1 / 6]
    assert metrics.acceptance_rate == 9 / (6 + 5 + 3)
    assert metrics.accepted_share == 9 / 18


def test_a_position_that_was_never_reached_has_no_rate():
    trace = Trace({}, rounds=[round_record(0, 0, 1, sequence_round(0)), round_record(1, 1, 2, sequence_round(1))])
    assert compute_metrics(trace).acceptance_by_position == [0.5, 0.0]
    assert compute_metrics(trace).accepted_by_position == [0.5, 0.0, 0.0]


def test_hit_rate_is_split_by_the_same_sequences_previous_lookup():
    lookups = [None, True, True, False, True]  # after a hit: True, False; after a miss: True
    rounds = [round_record(i, i, i + 1, sequence_round(1, cache_hit=hit)) for i, hit in enumerate(lookups)]
    metrics = compute_metrics(Trace({}, rounds=rounds))
    assert metrics.cache_hit_rate_after_hit == 0.5
    assert metrics.cache_hit_rate_after_miss == 1.0


def test_latencies_come_from_the_requests():
    metrics = compute_metrics(async_trace())
    first = metrics.time_to_first_token_s
    assert first is not None
    assert (first.count, first.mean, first.p50) == (2, 1.75, 1.75)
    assert first.p95 == pytest.approx(1.975)
    assert float(first) == 1.75
    between = metrics.inter_token_latency_s
    assert between is not None
    assert between.mean == pytest.approx((3.5 / 6 + 3.5 / 5) / 2)


def test_round_times_and_lane_shares_cover_only_the_rounds():
    metrics = compute_metrics(async_trace())
    assert metrics.round_time_s is not None
    assert (metrics.round_time_s.mean, metrics.round_time_s.p50) == (4 / 3, 1.0)
    assert metrics.lanes["target"] == LaneShare(busy=3.75 / 4, wait=0.25 / 4)
    assert metrics.lanes["draft"] == LaneShare(busy=1.0 / 4, wait=0.5 / 4)


def test_overlapping_activities_count_once():
    twice = (Activity("draft", "tree", 0.0, 0.6), Activity("draft", "extend", 0.4, 2.0))
    trace = Trace({}, rounds=[round_record(0, 0.0, 1.0, sequence_round(), activities=twice)])
    assert compute_metrics(trace).lanes["draft"].busy == 1.0


def test_an_empty_trace_has_no_numbers_and_no_errors():
    metrics = compute_metrics(Trace({}))
    assert metrics.num_rounds == metrics.num_output_tokens == 0
    assert metrics.tokens_per_second is metrics.tokens_per_round is metrics.cache_hit_rate is None
    assert metrics.time_to_first_token_s is metrics.round_time_s is None
    assert metrics.lanes == {} and metrics.acceptance_by_position == []


def test_autoregressive_rounds_emit_one_token_and_have_no_acceptance():
    rounds = [round_record(i, i, i + 0.5, sequence_round(0, k=0, origin="none")) for i in range(4)]
    metrics = compute_metrics(Trace({"exact": True}, [request(4)], rounds))
    assert metrics.tokens_per_round == metrics.emitted_per_round == 1.0
    assert metrics.tokens_per_second == 2.0
    assert metrics.acceptance_rate is None and metrics.accepted_share is None and metrics.cache_hit_rate is None


def test_without_recorded_rounds_the_totals_give_the_same_numbers():
    full = async_trace()
    totals = Totals.from_trace(full).as_dict()
    bare = Trace({**full.meta, "totals": json.loads(json.dumps(totals))}, full.requests)
    expected, metrics = compute_metrics(full).as_dict(), compute_metrics(bare).as_dict()
    unknown = {"lanes", "round_time_s", "cache_hit_rate_after_hit", "cache_hit_rate_after_miss"}
    assert {n: v for n, v in metrics.items() if n not in unknown} == {
        n: v for n, v in expected.items() if n not in unknown
    }
    assert metrics["round_time_s"] == {"count": 3, "mean": 4 / 3, "p50": None, "p95": None}


def test_few_totals_are_enough():
    totals = {"rounds": 10, "drafted": 30, "accepted": 20, "emitted": 30, "decode_time_s": 2.0, "later_counter": 1}
    metrics = compute_metrics(Trace({"totals": totals}))
    assert metrics.tokens_per_second == 15.0
    assert metrics.tokens_per_round == 3.0
    assert metrics.acceptance_rate is None  # how many were tested is not known
    with pytest.raises(TraceFormatError, match="totals"):
        compute_metrics(Trace({"totals": 7}))


def test_exactness_must_be_stated():
    assert "does not say" in (compute_metrics(Trace({})).lossy_reason or "")
    lossy = compute_metrics(Trace({"exact": False, "lossy_reason": "typical acceptance"}))
    assert not lossy.exact and lossy.lossy_reason == "typical acceptance"


def test_as_dict_is_json():
    assert json.loads(json.dumps(compute_metrics(async_trace()).as_dict()))["lanes"]["draft"]["busy"] == 0.25
