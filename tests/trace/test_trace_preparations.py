"""Rounds in which graphs were captured or kernels compiled: in the trace and its counts, in no rate or round time."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from trace_samples import async_trace

from ssd_lab.display.timeline import timeline_svg
from ssd_lab.trace import Activity, Spread, Totals, Trace, compute_metrics, load_trace
from ssd_lab.widgets.view_model.lanes import measured_clock


def prepared_trace(*, capture_s: float) -> Trace:
    """The trace of `async_trace`, but graphs were captured in its first prefill and in its second round, which take so
    much longer; everything later is so much later.
    """
    plain = async_trace()

    def moved(time_s: float) -> float:
        return time_s + (capture_s if time_s > 0.5 else 0) + (capture_s if time_s >= 3.0 else 0)

    rounds = [
        replace(
            one,
            start_s=moved(one.start_s),
            end_s=moved(one.end_s),
            activities=[replace(a, start_s=moved(a.start_s), end_s=moved(a.end_s)) for a in one.activities],
            preparation_s=capture_s if one.index == 1 else 0.0,
        )
        for one in plain.rounds
    ]
    requests = [
        replace(r, arrival_s=moved(r.arrival_s), first_token_s=moved(r.first_token_s), end_s=moved(r.end_s))
        for r in plain.requests
    ]
    prefills = [replace(a, start_s=moved(a.start_s), end_s=moved(a.end_s)) for a in plain.prefills]
    preparations = [
        Activity("target", "compile attention", 0.5, 0.5 + capture_s),
        Activity("target", "capture verify", 2.5 + capture_s, 2.5 + 2 * capture_s),
    ]
    return Trace(plain.meta, requests, rounds, prefills, preparations=preparations)


def without_round(trace: Trace, index: int) -> Trace:
    return replace(trace, rounds=[one for one in trace.rounds if one.index != index])


@pytest.mark.parametrize("capture_s", [0.25, 30.0])
def test_rates_and_round_times_are_those_of_rounds_in_which_nothing_was_captured(capture_s: float) -> None:
    got = compute_metrics(prepared_trace(capture_s=capture_s))
    other_rounds = compute_metrics(without_round(async_trace(), 1))
    assert got.tokens_per_second == pytest.approx(other_rounds.tokens_per_second)
    assert got.round_time_s == other_rounds.round_time_s == Spread.of([1.0, 2.0])
    assert got.decode_time_s == pytest.approx(3.0) and got.num_untimed_rounds == 1
    assert {lane: share.busy for lane, share in got.lanes.items()} == pytest.approx({"draft": 0.25, "target": 2.75 / 3})
    assert got.preparation_time_s == pytest.approx(2 * capture_s)


@pytest.mark.parametrize("capture_s", [0.25, 30.0])
def test_counts_are_of_all_rounds_and_longer_times_lack_only_the_capturing(capture_s: float) -> None:
    got, plain = compute_metrics(prepared_trace(capture_s=capture_s)), compute_metrics(async_trace())
    for name in ("num_rounds", "num_output_tokens", "tokens_per_round", "acceptance_rate", "cache_hit_rate"):
        assert getattr(got, name) == getattr(plain, name)
    assert got.prefill_time_s == pytest.approx(plain.prefill_time_s)
    for name in ("time_to_first_token_s", "inter_token_latency_s"):
        assert asdict(getattr(got, name)) == pytest.approx(asdict(getattr(plain, name)))


def test_a_run_that_only_captured_has_no_rate() -> None:
    trace = async_trace()
    trace.rounds = [replace(one, preparation_s=0.5) for one in trace.rounds]
    metrics = compute_metrics(trace)
    assert metrics.tokens_per_second is None and metrics.round_time_s is None and metrics.lanes == {}
    assert metrics.num_rounds == metrics.num_untimed_rounds == 3


def test_counters_leave_out_the_same_rounds_as_records() -> None:
    totals = Totals()
    totals.add_prefill(4.0, preparation_s=3.0)
    for emitted, duration_s, preparation_s in ((4, 10.0, 9.0), (3, 1.0, 0.0), (1, 1.0, 0.0)):
        totals.add_round(duration_s, num_emitted=emitted, preparation_s=preparation_s)
        totals.add_sequence(
            num_drafted=3, num_accepted=emitted - 1, num_emitted=emitted, origin="draft", cache_hit=None
        )
    metrics = compute_metrics(Trace({"totals": totals.as_dict()}))
    assert metrics.tokens_per_second == 2.0 and metrics.round_time_s.mean == 1.0 and metrics.prefill_time_s == 1.0
    assert metrics.num_output_tokens == 8 and metrics.preparation_time_s == 12.0
    older = {name: value for name, value in totals.as_dict().items() if not name.startswith(("untimed", "preparation"))}
    assert Totals.from_dict({**older, "decode_time_s": 4.0}).tokens_per_second == 2.0


def test_preparations_are_saved_and_older_files_have_none(tmp_path: Path) -> None:
    trace = prepared_trace(capture_s=2.0)
    trace.save(tmp_path / "new.jsonl")
    assert load_trace(tmp_path / "new.jsonl") == trace
    async_trace().save(tmp_path / "old.jsonl")
    header = (tmp_path / "old.jsonl").read_text(encoding="utf-8").splitlines()[0]
    assert json.loads(header).keys() == {"kind", "schema_version", "meta"}
    assert load_trace(tmp_path / "old.jsonl").timed_rounds == async_trace().rounds


def test_the_timeline_begins_where_nothing_is_captured_and_is_not_stretched_by_it() -> None:
    """Twenty rounds of 1 s, of which the ninth captured for 100 s."""
    one = async_trace().rounds[0]
    starts = [float(index) + (100.0 if index > 8 else 0.0) for index in range(20)]
    rounds = [
        replace(one, index=index, start_s=start_s, end_s=start_s + (101.0 if index == 8 else 1.0), activities=[])
        for index, start_s in enumerate(starts)
    ]
    rounds[8] = replace(rounds[8], preparation_s=100.0)
    trace = Trace({}, [], rounds, preparations=[Activity("target", "capture verify", 8.5, 108.5)])
    assert "milliseconds" in timeline_svg({"run": trace}) and ">5000<" in timeline_svg({"run": trace})
    assert "graphs are captured" not in timeline_svg({"run": trace})
    assert "graphs are captured" in timeline_svg({"run": trace}, first=0, span_s=200.0)


def test_the_views_mark_what_was_captured_and_say_how_long_it_took() -> None:
    clock = measured_clock(prepared_trace(capture_s=2.0))
    assert [span[:4] for span in clock["spans"] if span[1] == "preparation"] == [
        ("target", "preparation", 0.5, 2.5), ("target", "preparation", 4.5, 6.5),
    ]  # fmt: skip
    assert [one[3:] for one in clock["rounds"]] == [[], [2.0], []]
