"""Put measured speed beside predicted, run by run, and find the cause to blame."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from typing import Any

from ssd_lab.errors import ConfigError
from ssd_lab.explain.explanation import Explanation, RunExplanation
from ssd_lab.explain.terms import RunMachine, terms_of, tokens_per_second
from ssd_lab.simulate.clock import MissCost
from ssd_lab.simulate.hardware import HardwareProfile
from ssd_lab.simulate.published import PUBLISHED_PROFILES, find_profile
from ssd_lab.simulate.run_times import RunTimes
from ssd_lab.simulate.simulation import simulate
from ssd_lab.simulate.time_models import TableTime
from ssd_lab.simulate.workload import Rates, Workload, recorded_strategy, workload_of_trace
from ssd_lab.trace import Metrics, Trace, compute_metrics
from ssd_lab.trace.named import named_traces, strategy_name

BATCHES = (1, 2, 4, 8, 16, 32, 64)
_ROUNDS = 2000  # sequence-rounds drawn at each batch size

Hardware = str | PathLike[str] | HardwareProfile


def explain(subject: Any, hardware: Hardware | None = None) -> Explanation:
    """Explain each speculative run of a comparison, a run (`RunResult`), a trace, or traces (by name, or in order).

    Times come from the runs' own spans, and those of one autoregressive step from an autoregressive run among them;
    without one there is nothing to compare with, unless `hardware` (a profile of this machine, or a published one's
    name) says it. With `hardware` the rounds are priced there.

    Raises ConfigError if no run has rounds, or none is speculative.
    """
    traces = named_traces(subject)
    empty = [name for name, trace in traces.items() if not trace.rounds]
    if empty or not traces:
        raise ConfigError(f"no rounds were recorded in {', '.join(empty) or 'nothing'}: run with record=True")
    speculative = {n: t for n, t in traces.items() if recorded_strategy(t.rounds) != "autoregressive"}
    if not speculative:
        raise ConfigError("only autoregressive runs were given: there is no speculation to explain; add another run")
    plain = next((t for n, t in traces.items() if n not in speculative), None)
    profile = None if hardware is None else find_profile(hardware)
    return Explanation({name: _explained(trace, plain, traces, profile) for name, trace in speculative.items()})


def _explained(
    trace: Trace, plain: Trace | None, traces: Mapping[str, Trace], hardware: HardwareProfile | None
) -> RunExplanation:
    metrics = compute_metrics(trace)
    workload = workload_of_trace(trace)
    batch = max(len(rows) for rows in workload.rounds)
    caveats: list[str] = []
    if hardware is None:
        machine = _own_machine(trace, workload, plain, traces, batch)
        baseline = None if plain is None else compute_metrics(plain).tokens_per_second
        measured = metrics.tokens_per_second
    else:
        miss_cost: MissCost = "paper" if hardware.name in PUBLISHED_PROFILES else "full"
        machine = RunMachine(hardware, miss_cost, hardware.autoregressive_s(batch) - hardware.overhead_s)
        baseline, measured = batch / hardware.autoregressive_s(batch), None
        caveats += [*hardware.notes, f"priced on {hardware.name}, not measured"]
    predicted = tokens_per_second(workload, machine.profile, machine.miss_cost)
    curve: dict[int, float] = {}
    if machine.step_s is not None:
        curve = _speedup_by_batch(metrics, workload, machine)
        if measured and baseline:  # at its own batch the run itself tells
            curve[batch] = measured / baseline
        caveats += _range_caveats(machine, batch)
    else:
        caveats.append("no autoregressive run: whether speculation pays is not known; add one, or give --hardware")
    rows = statistics.median(sum(row.verify_rows for row in rows) for rows in workload.rounds)
    own_rows = max(row.verify_rows for each in workload.rounds for row in each)
    interval = None if plain is None or not (measured and baseline) else _interval(trace, plain, measured / baseline)
    return RunExplanation(
        strategy=strategy_name(trace, workload.strategy),
        batch=batch,
        measured_tokens_per_second=measured,
        predicted_tokens_per_second=predicted,
        baseline_tokens_per_second=baseline,
        tokens_per_round=metrics.emitted_per_round or 0.0,
        acceptance_rate=metrics.acceptance_rate,
        hit_rate=metrics.cache_hit_rate,
        verify_over_step=None if machine.step_s is None else machine.profile.verify_s.at(round(rows)) / machine.step_s,
        terms=terms_of(workload, machine),
        speedup_by_batch=curve,
        caveats=caveats,
        timed_to=_timed_to(machine.profile, own_rows, batch),
        speedup_interval=interval,
    )


def _timed_to(profile: HardwareProfile, rows: int, batch: int) -> int | None:
    """The largest batch of so many rows a sequence that a table of times covers, the run's own at least; None for times
    that are no table.
    """
    table = profile.verify_s
    return max(batch, table.rows[-1] // rows) if isinstance(table, TableTime) else None


def _interval(trace: Trace, plain: Trace, speedup: float) -> tuple[float, float] | None:
    """95 % of a ratio of two rates, each of a run's rounds; None for a single round."""
    spreads = [_relative_error(one) for one in (trace, plain)]
    if None in spreads:
        return None
    error = 1.96 * math.hypot(*(spread for spread in spreads if spread is not None))
    return speedup * math.exp(-error), speedup * math.exp(error)


def _relative_error(trace: Trace) -> float | None:
    """Of tokens per second: rounds vary in tokens and in time."""
    rounds = [(sum(row.num_emitted for row in one.sequences), one.end_s - one.start_s) for one in trace.timed_rounds]
    tokens, seconds = sum(emitted for emitted, _ in rounds), sum(taken for _, taken in rounds)
    if len(rounds) < 2 or not tokens or not seconds:
        return None
    off = sum((emitted - tokens / seconds * taken) ** 2 for emitted, taken in rounds)
    return math.sqrt(off * len(rounds) / (len(rounds) - 1)) / tokens


def _own_machine(
    trace: Trace, workload: Workload, plain: Trace | None, traces: Mapping[str, Trace], batch: int
) -> RunMachine:
    """This run's own times; those of an autoregressive step, and of verification without a draft beside it, from the
    other runs.
    """
    own = RunTimes.of(trace)
    step = {} if plain is None else dict(RunTimes.of(plain).verify)
    profile = own.profile("this run", step=step)
    if plain is not None:
        plain_overhead_s = RunTimes.of(plain).overhead_s
        step_table = profile.autoregressive_step_s
        if isinstance(step_table, TableTime):  # a step's overhead is its own run's, not this one's
            changed = tuple(max(0.0, s + plain_overhead_s - own.overhead_s) for s in step_table.seconds)
            profile = profile.model_copy(
                update={"autoregressive_step_s": TableTime(rows=step_table.rows, seconds=changed)}
            )
    sharing = None
    if workload.strategy == "async":
        alone: dict[int, float] = dict(step)
        for other in traces.values():
            if recorded_strategy(other.rounds) in ("sync", "free"):
                alone |= dict(RunTimes.of(other).verify)
        common = set(alone) & set(own.verify) - set(step)
        if common:
            sharing = max(1.0, statistics.median(own.verify[rows] / alone[rows] for rows in common))
    if not step:
        return RunMachine(profile, "full", None, sharing)
    nearest = min(step, key=lambda rows: abs(rows - batch))
    return RunMachine(profile, "full", step[nearest], sharing)


def _speedup_by_batch(metrics: Metrics, workload: Workload, machine: RunMachine) -> dict[int, float]:
    """Speed-up over the machine's autoregressive decoding of the same tokens, by batch size."""
    rows = [row for one in workload.rounds for row in one]
    k = max(1, round(sum(row.verify_rows - 1 for row in rows) / len(rows)))
    rates = Rates.from_metrics(metrics, k=k)
    if workload.strategy == "async":
        rates = replace(rates, branches=round(sum(row.branches for row in rows) / len(rows)))
    found = {}
    for batch in BATCHES:
        drawn = replace(rates, batch=batch, rounds=max(50, _ROUNDS // batch))
        found[batch] = simulate(drawn, machine.profile, strategy=workload.strategy, miss_cost=machine.miss_cost).speedup
    return found


def _range_caveats(machine: RunMachine, batch: int) -> list[str]:
    table = machine.profile.verify_s
    if isinstance(table, TableTime):
        return [f"verification was timed up to {table.rows[-1]} rows; beyond them nothing is said"]
    return []
