"""Where asynchronous speculation beats synchronous: a map over T and the hit rate, and machines as points on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike

from ssd_lab.errors import ConfigError
from ssd_lab.simulate import HardwareProfile, Rates, find_profile, simulate
from ssd_lab.simulate.closed_form import speedup_async, speedup_sync
from ssd_lab.simulate.run_times import RunTimes
from ssd_lab.trace import Trace, compute_metrics
from ssd_lab.trace.named import strategy_name

MOST_T = 3.0


@dataclass(frozen=True)
class MapPoint:
    """A machine. draft_time: T, of the draft's tree over the verification. gain: speed of asynchronous over synchronous
    speculation there, which differs from the map's where target and draft share a device or the tree costs more than
    the chain. source: how both are known.
    """

    name: str
    draft_time: float
    hit_rate: float
    gain: float
    source: str


def gain_at(draft_time: float, hit_rate: float) -> float:
    """Asynchronous over synchronous: each on a device of its own, tree and chain both take T, tokens alike."""
    ahead = speedup_async(
        hit_rate=hit_rate, tokens_hit=1.0, tokens_miss=1.0, draft_time=draft_time, fallback_time=draft_time
    )
    return ahead / speedup_sync(1.0, draft_time)


def machine_point(
    name: str,
    hardware: HardwareProfile | str | PathLike[str],
    *,
    k: int,
    fan_out: int,
    acceptance: float,
    hit_rate: float,
) -> MapPoint:
    """A machine by its profile, its gain from the simulator. Raises ConfigError for one that does not exist."""
    profile = find_profile(hardware)
    tree_s = profile.tree_s(steps=k, branches=fan_out * (k + 1), rows=k + 1)
    ahead = Rates(acceptance=acceptance, k=k, hit_rate=hit_rate, branches=fan_out * (k + 1))
    turns = simulate(Rates(acceptance=acceptance, k=k), profile).tokens_per_second
    gain = simulate(ahead, profile).tokens_per_second / turns
    return MapPoint(name, tree_s / profile.verify_s.at(k + 1), hit_rate, gain, f"simulated: {profile.source}")


def measured_point(name: str, traces: Mapping[str, Trace]) -> MapPoint:
    """This machine, from a synchronous and an asynchronous run of the same prompts. Raises ConfigError if one is
    missing.
    """
    chain = next((trace for trace in traces.values() if strategy_name(trace) == "sync_chain"), None)
    tree = next((trace for trace in traces.values() if strategy_name(trace) == "async_tree"), None)
    if chain is None or tree is None:
        raise ConfigError(f"a machine's own point needs runs of sync_chain and async_tree; there are {list(traces)}")
    times, ahead, turns = RunTimes.of(tree), compute_metrics(tree), compute_metrics(chain)
    if not times.tree_step or ahead.cache_hit_rate is None or not (ahead.tokens_per_second and turns.tokens_per_second):
        raise ConfigError("the runs are too short to tell times from: give them more tokens")
    steps = max(len(row.draft_tokens) for one in tree.rounds for row in one.sequences)
    tree_s = steps * _largest(times.tree_step)
    gain = ahead.tokens_per_second / turns.tokens_per_second
    return MapPoint(name, tree_s / _largest(times.verify), ahead.cache_hit_rate, gain, "measured: these two runs")


def _largest(times: Mapping[int, float]) -> float:
    """Of the largest size, which is a full round's."""
    return times[max(times)]
