"""The timeline: spans on the lanes target, draft and link, on the clock of the run or of a simulated machine."""

from __future__ import annotations

from typing import Any

from ssd_lab.errors import ConfigError
from ssd_lab.simulate import PUBLISHED_70B, simulate
from ssd_lab.trace import Activity, RoundRecord, Trace
from ssd_lab.trace.device_times import on_devices
from ssd_lab.widgets.view_model.numbers import seconds

Span = tuple[str, str, float, float, int]


def clocks(trace: Trace) -> list[dict[str, Any]]:
    """The measured clock, and the simulated one of the published profile where the rounds can be replayed.

    A clock has `name`, `note`, `rounds` (`[start_s, end_s, stalled_by]`, the requests whose miss or wait held the round
    up; of rounds that are in no rate a fourth entry, the seconds of capturing and compiling in them) and `spans`
    (`[lane, kind, start_s, end_s, round]`, -1 for a prefill and for capturing).
    """
    return [measured_clock(trace), *simulated_clock(trace)]


def measured_clock(trace: Trace) -> dict[str, Any]:
    """What happened when, in seconds of the run's clock."""
    spans = [_span(activity, -1) for activity in (*trace.prefills, *trace.preparations)]
    for record in trace.rounds:
        spans += [_span(activity, record.index) for activity in on_devices(record)]
    return {
        "name": "measured",
        "note": f"measured on {trace.meta.get('device', 'an unknown device')}",
        "rounds": [
            [seconds(r.start_s), seconds(r.end_s), stalled_by(r), *([seconds(r.preparation_s)] * (r.preparation_s > 0))]
            for r in trace.rounds
        ],
        "spans": spans,
    }


def simulated_clock(trace: Trace) -> list[dict[str, Any]]:
    """The same rounds on the virtual clock of the published profile; empty where they cannot be replayed."""
    if trace.rounds and not any(row.draft_tokens for record in trace.rounds for row in record.sequences):
        return [_plain_clock(trace)]
    try:
        simulation = simulate(trace, PUBLISHED_70B)
    except ConfigError:
        return []
    if len(simulation.rounds) != len(trace.rounds):
        return []  # the simulator leaves out rounds without drafts or sequences, and the numbers would not agree
    rounds = list(zip(simulation.rounds, trace.rounds, strict=True))
    return [
        {
            "name": "simulated",
            "note": f"simulated on {simulation.hardware}, not a measurement",
            "rounds": [[seconds(s.start_s), seconds(s.end_s), stalled_by(r)] for s, r in rounds],
            "spans": [_span(activity, r.index) for s, r in rounds for activity in s.activities],
        }
    ]


def _plain_clock(trace: Trace) -> dict[str, Any]:
    """Rounds without drafts, one autoregressive step of the published profile each."""
    rounds: list[list[Any]] = []
    spans: list[Span] = []
    now_s = 0.0
    for record in trace.rounds:
        end_s = now_s + PUBLISHED_70B.autoregressive_s(len(record.sequences))
        rounds.append([seconds(now_s), seconds(end_s), []])
        spans.append(("target", "verify", seconds(now_s), seconds(end_s), record.index))
        now_s = end_s
    note = f"simulated on {PUBLISHED_70B.name}, not a measurement"
    return {"name": "simulated", "note": note, "rounds": rounds, "spans": spans}


def stalled_by(record: RoundRecord) -> list[int]:
    """Requests that missed while others of the batch hit: the whole batch waits for their fallback."""
    missed = [s.request_id for s in record.sequences if s.cache_hit is False]
    return missed if len(missed) < len(record.sequences) else []


def span_kind(name: str) -> str:
    """What a span means to a reader: verify, tree, draft, fallback, wait, prefill, link, keep, overhead, or other."""
    if name.startswith("wait"):
        return "wait"
    return {"jit": "fallback", "fast": "fallback", "outcome": "link", "speculation": "link"}.get(
        name, name if name in _KINDS else "other"
    )


_KINDS = ("verify", "tree", "draft", "fallback", "prefill", "link", "keep", "overhead")


def _span(activity: Activity, round_index: int) -> Span:
    # what is recorded as the link's waiting is the target's
    lane = "target" if activity.name.startswith("wait for draft") else activity.lane
    kind = "preparation" if activity.is_preparation else span_kind(activity.name)
    return (lane, kind, seconds(activity.start_s), seconds(activity.end_s), round_index)
