"""What the rounds of a run are made of: its spans by lane, on hits and on misses."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from ssd_lab.simulate.run_times import FIRST_ROUNDS
from ssd_lab.trace import RoundRecord, Trace
from ssd_lab.trace.device_times import on_devices
from ssd_lab.trace.spans import Interval, length_s, overlap_s, union

HITS, MISSES, OTHERS = "all hits", "with misses", "without lookups"


def breakdown(traces: Sequence[Trace], batch: int) -> dict[str, Any]:
    """Medians over settled rounds of a full batch, in seconds, by what their lookups found.

    Of each kind: how many rounds, how long they were, the spans of each lane and name, and `host`: what of a round is
    none of the target's spans and no waiting on a link.
    """
    kinds: dict[str, list[RoundRecord]] = defaultdict(list)
    for trace in traces:
        for one in [one for one in trace.timed_rounds if len(one.sequences) == batch][FIRST_ROUNDS:]:
            kinds[_kind(one)].append(one)
    return {kind: _medians(rounds) for kind, rounds in kinds.items()}


def _kind(one: RoundRecord) -> str:
    lookups = [own.cache_hit for own in one.sequences]
    if None in lookups:
        return OTHERS
    return HITS if all(lookups) else MISSES


def _medians(rounds: Sequence[RoundRecord]) -> dict[str, Any]:
    spans: dict[str, list[float]] = defaultdict(list)
    hosts = []
    for one in rounds:
        lanes: dict[str, list[Interval]] = defaultdict(list)
        for activity in on_devices(one):
            lanes[f"{activity.lane}: {activity.name}"].append((activity.start_s, activity.end_s))
        for name, own in lanes.items():
            spans[name].append(length_s(union(own)))
        held = union(
            span
            for name, own in lanes.items()
            if name.startswith("target: ") or "wait for draft" in name
            for span in own
        )
        hosts.append(one.end_s - one.start_s - overlap_s(held, [(one.start_s, one.end_s)]))
    return {
        "rounds": len(rounds),
        "round_s": statistics.median(one.end_s - one.start_s for one in rounds),
        "host_s": statistics.median(hosts),
        "spans_s": {name: statistics.median(times) for name, times in sorted(spans.items())},
    }
