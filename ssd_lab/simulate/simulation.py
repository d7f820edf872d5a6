"""Rounds on another machine's clock: the entry point and its result."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from os import PathLike
from typing import Any, get_args

from ssd_lab.errors import ConfigError
from ssd_lab.simulate.clock import MissCost, SimulatedRound, autoregressive_time_s, replay
from ssd_lab.simulate.drawing import draw_workload
from ssd_lab.simulate.hardware import HardwareProfile
from ssd_lab.simulate.outcome_model import OutcomeModel
from ssd_lab.simulate.published import PUBLISHED_70B, find_profile
from ssd_lab.simulate.scenario import Scenario
from ssd_lab.simulate.workload import Rates, Strategy, Workload, with_strategy, workload_of_trace
from ssd_lab.trace import Trace, compute_metrics
from ssd_lab.trace.named import strategy_name


@dataclass(frozen=True)
class Simulation:
    """What the rounds would cost there. Times in seconds of the virtual clock; nothing here was measured.

    tokens_per_second: of the whole batch. tokens_per_round: emitted, per sequence. hit_rate: None without lookups.
    speedup: over the machine's own autoregressive decoding of the same tokens. conservative_speedup: over the faster of
    that and a decoder whose step costs one verification, so never more than tokens per round. time_by_cause: seconds on
    the critical path.
    """

    hardware: str
    source: str
    strategy: str
    num_tokens: int
    time_s: float
    tokens_per_second: float
    tokens_per_second_per_sequence: float
    tokens_per_round: float
    hit_rate: float | None
    autoregressive_tokens_per_second: float
    speedup: float
    conservative_speedup: float
    time_by_cause: dict[str, float]
    caveats: tuple[str, ...]
    rounds: tuple[SimulatedRound, ...] = field(repr=False)
    recorded_tokens_per_second: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain data without the rounds, ready for JSON, marked as simulated."""
        numbers = {name: value for name, value in vars(self).items() if name != "rounds"}
        return {"simulated": True, **numbers, "caveats": list(self.caveats)}

    def __str__(self) -> str:
        hits = "" if self.hit_rate is None else f", {self.hit_rate:.0%} hits"
        return (
            f"simulated on {self.hardware}: {self.strategy}, {self.tokens_per_second:.1f} tokens/s, "
            f"{self.speedup:.2f}x autoregressive, {self.tokens_per_round:.2f} tokens per round{hits}"
        )


def simulate(
    trace_or_rates: Trace | Rates | OutcomeModel,
    hardware: str | PathLike[str] | HardwareProfile = PUBLISHED_70B.name,
    *,
    scenario: Scenario | None = None,
    strategy: Strategy | None = None,
    hit_rate: float | None = None,
    miss_cost: MissCost = "paper",
    seed: int = 0,
    draft_gpus: int | None = None,
) -> Simulation:
    """Time recorded or drawn rounds on a machine's virtual clock.

    A trace is replayed as it was, or with a scenario fitted (acceptance by place, law of ranks, apart for hit and miss
    rounds) and drawn anew for any strategy, schedule, fallback and batch; an `OutcomeModel` needs a scenario.

    hardware: a published profile's name, a saved profile's path, or a profile. strategy: replay the same accepted
    lengths as `autoregressive`, `sync`, `async` or `free` (drafting costs nothing); None: as recorded. hit_rate:
    draws the lookups of `async`, with `seed`, instead of taking the recorded ones; needed if there were none.
    miss_cost: `paper` or `full`, see `clock.replay`. draft_gpus: devices of the draft's own, instead of the profile's.

    Raises ConfigError for anything not allowed.
    """
    if miss_cost not in get_args(MissCost):
        raise ConfigError(f"miss_cost is {miss_cost!r}; allowed: {', '.join(get_args(MissCost))}")
    profile = find_profile(hardware)
    if draft_gpus is not None:
        profile = profile.with_draft_gpus(draft_gpus)
    if scenario is not None or isinstance(trace_or_rates, OutcomeModel):
        if strategy is not None or hit_rate is not None:
            raise ConfigError("strategy and hit_rate change recorded rounds; a scenario says itself what is drawn")
        return _of_scenario(trace_or_rates, scenario, profile, miss_cost)
    recorded = None
    if isinstance(trace_or_rates, Trace):
        workload = workload_of_trace(trace_or_rates)
        recorded = compute_metrics(trace_or_rates).tokens_per_second if strategy is None and hit_rate is None else None
        if strategy_name(trace_or_rates) == "eagle3":
            profile = profile.for_head()
    elif isinstance(trace_or_rates, Rates):
        workload = trace_or_rates.workload()
    else:
        raise ConfigError(f"simulate takes a Trace or Rates, not {type(trace_or_rates).__name__}; a run's is run.trace")
    found = _simulate(with_strategy(workload, strategy, hit_rate, seed), profile, miss_cost)
    return replace(found, recorded_tokens_per_second=recorded)


def _of_scenario(
    given: Trace | Rates | OutcomeModel, scenario: Scenario | None, profile: HardwareProfile, miss_cost: MissCost
) -> Simulation:
    if scenario is None:
        raise ConfigError("an OutcomeModel says how rounds end, not which: give scenario=Scenario(strategy=..., k=...)")
    if isinstance(given, Rates):
        raise ConfigError("Rates hold a run already: give an OutcomeModel or a Trace beside a scenario")
    model = OutcomeModel.from_trace(given) if isinstance(given, Trace) else given
    if scenario.strategy == "eagle3":
        profile = profile.for_head()
    simulation = _simulate(draw_workload(model, scenario, profile, miss_cost), profile, miss_cost)
    caveats = (*simulation.caveats, f"rounds were drawn, not recorded; outcomes: {model.source}")
    return replace(simulation, strategy=scenario.strategy, caveats=caveats)


def _simulate(workload: Workload, profile: HardwareProfile, miss_cost: MissCost) -> Simulation:
    rows = [row for round_rows in workload.rounds for row in round_rows]
    num_tokens = sum(row.emitted for row in rows)
    base_s = autoregressive_time_s(workload, profile.autoregressive_s)
    verify_s = autoregressive_time_s(
        workload,
        lambda batch: (profile.verify_s.at(batch) + profile.overhead_s) * profile.round_factor("none", batch),
    )
    if workload.strategy == "autoregressive":
        causes, time_s = {"verify": base_s}, base_s
        rounds: list[SimulatedRound] = []
        tokens_per_round = 1.0
    else:
        rounds, causes = replay(workload, profile, miss_cost)
        time_s = rounds[-1].end_s
        tokens_per_round = num_tokens / len(rows)
    if not num_tokens or time_s <= 0:
        raise ConfigError(f"nothing to time: {num_tokens} tokens in {time_s} s on {profile.name}")
    lookups = [row.hit for row in rows if row.hit is not None] if workload.strategy == "async" else []
    per_second = num_tokens / time_s
    return Simulation(
        hardware=profile.name,
        source=profile.source,
        strategy=workload.strategy,
        num_tokens=num_tokens,
        time_s=time_s,
        tokens_per_second=per_second,
        tokens_per_second_per_sequence=per_second * len(workload.rounds) / len(rows),
        tokens_per_round=tokens_per_round,
        hit_rate=sum(lookups) / len(lookups) if lookups else None,
        autoregressive_tokens_per_second=num_tokens / base_s,
        speedup=base_s / time_s,
        conservative_speedup=min(base_s, verify_s) / time_s,
        time_by_cause=causes,
        caveats=profile.notes + workload.caveats,
        rounds=tuple(rounds),
    )
