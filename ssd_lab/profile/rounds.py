"""Rounds of whole runs, engine and all, beside the phases that they are made of."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from ssd_lab import demo
from ssd_lab.config import SamplingParams
from ssd_lab.errors import RunInterrupted
from ssd_lab.execution.observing import NOBODY
from ssd_lab.llm import LLM
from ssd_lab.models.loader import LoadedModel
from ssd_lab.profile.answering import Answering, host_fields
from ssd_lab.profile.host_time import Replays, idle_s
from ssd_lab.profile.measure import DRAFTING, Sizes
from ssd_lab.profile.phase_times import PhaseTimer, Work
from ssd_lab.profile.points import RoundPoint
from ssd_lab.results import RunResult
from ssd_lab.simulate import HardwareProfile, TableTime
from ssd_lab.simulate.clock import round_on_clock
from ssd_lab.simulate.run_times import RunTimes
from ssd_lab.simulate.workload import recorded_strategy, workload_of_rounds
from ssd_lab.trace import RoundRecord, Trace
from ssd_lab.trace.named import strategy_name

FIRST_ROUNDS = 3  # in which caches are cold
FEWEST_ROUNDS = 16
MOST_TOKENS = 96
PASSES = 2
ASKED = "async_tree"  # the kind whose draft answers beside the target, and drafts now where something missed
FEWEST_MISSES = 8  # rounds of that kind, or so many times the passes:
MORE = 3
STALL = 3.0  # times the usual share of its price, from which on a round is none of the machine's own


@dataclass(frozen=True)
class HeldOut:
    """A run of which no profile knows, made beside the runs that one is made of."""

    strategy: str
    batch: int
    trace: Trace


@dataclass(frozen=True)
class Runs:
    """Of one kind. host_s: of a round, in which the device was idle. alone_s: of a round, its phases timed alone."""

    name: str
    batch: int
    results: Sequence[RunResult]
    host_s: float | None = None
    alone_s: float | None = None


def measure_rounds(
    target: LoadedModel,
    draft: LoadedModel,
    sizes: Sizes,
    *,
    phases: HardwareProfile | None = None,
    held_out: list[HeldOut] | None = None,
    only: Collection[str] = (),
    head: str | None = None,
    passes: int = PASSES,
    max_model_len: int = 1024,
) -> list[RoundPoint]:
    """Rounds of each kind of strategy on real prompts: at the first batch size of all, with the phases alone of the
    usual ones at the mean context; at the others of those that a hardware profile tells of. phases: prices the same
    rounds. held_out: takes as many runs of those kinds on other prompts, in turn with the measured ones, so that a
    machine that slows down favours neither. only: these strategies (none: all of them). head: EAGLE3 head of this
    target; None: the bundled one for the bundled target. passes: runs of each kind.

    The phases of an asynchronous round are the longer of verification and tree: what both take on one device together
    is the device's matter, and shows as overhead.
    """
    found: list[Runs] = []
    device = target.decoder.device
    max_tokens = max(MOST_TOKENS, FEWEST_ROUNDS * (sizes.k + 1))  # rounds enough even if everything is accepted
    params = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
    runs: list[tuple[str, dict[str, Any]]] = [
        ("autoregressive", {}), ("sync_chain", {"k": sizes.k}), ("async_tree", {"k": sizes.k, "f": sizes.fan_out[0]}),
        ("sync_tree", {}), ("prompt_lookup", {}), ("suffix_tree", {}), ("cascade", {}),
    ]  # fmt: skip
    if head is not None or target.source == str(demo.TARGET):
        runs += [("eagle3", {"head": head}), ("eagle3", {"head": head, "mode": "async"})]

    def of_one_kind(name: str, batch: int, strategy: str, fields: dict[str, Any]) -> Runs:
        options: dict[str, Any] = {"device": str(device), "max_batch": batch, "max_model_len": max_model_len}
        prompts, others = _prompts(batch)
        replays = Replays() if device.type == "cuda" else None
        with LLM(target, draft, strategy, progress=False, observer=replays or NOBODY, **options, **fields) as llm:
            llm.run(prompts, params.model_copy(update={"max_tokens": 24})).whole()
            results: list[RunResult] = []
            for _ in range(passes):
                results.append(llm.run(prompts, params).whole())
                if held_out is not None and name in DRAFTING:
                    held_out.append(HeldOut(name, batch, llm.run(others, params).whole().trace))
            while name == ASKED and len(results) < MORE * passes and not _missed(results):
                results.append(llm.run(prompts, params).whole())
            host_s = None if replays is None else _host_s(llm, prompts[:batch], params, replays)
        measured = Runs(name, batch, results, host_s)
        if batch != sizes.batches[0] or strategy not in ("autoregressive", "sync_chain", "async_tree"):
            return measured
        context = _context([one for own, _ in _rounds(measured) for one in own])
        alone_s = _phases_s(target, draft, strategy, Work(batch, context), sizes)
        return dataclasses.replace(measured, alone_s=alone_s)

    for batch, (strategy, fields) in itertools.product(sizes.batches, runs):
        name = " ".join([strategy, *(f"{key}={value}" for key, value in fields.items() if key == "mode")])
        if (batch > sizes.batches[0] and name not in DRAFTING) or (only and strategy not in only):
            continue
        try:
            found.append(of_one_kind(name, batch, strategy, fields))
        except KeyboardInterrupt as stopped:
            said = f"interrupted: whole runs of {len(found)} kinds are measured"
            raise RunInterrupted(points_of_runs(found, phases), said) from stopped
    return points_of_runs(found, phases)


def _missed(results: Sequence[RunResult]) -> bool:
    """Were there rounds enough in which something missed?"""
    rounds = [one for result in results for one in result.trace.timed_rounds]
    return sum(any(s.cache_hit is False for s in one.sequences) for one in rounds) >= FEWEST_MISSES


def _prompts(batch: int) -> tuple[list[str], list[str]]:
    """For a measured run and for one that is held out, as many of each."""
    canned = demo.canned_prompts()
    half = len(canned) // 2
    one, other = ([some[i % len(some)] for i in range(max(2, batch))] for some in (canned[:half], canned[half:]))
    return one, other


def _host_s(llm: LLM, prompts: Sequence[Any], params: SamplingParams, replays: Replays) -> float:
    """Of one batch from its first round to its last, so that no prompt is computed in between."""
    replays.events.clear()
    llm.run(list(prompts), params).whole()
    return idle_s(replays.spans(), skipped=FIRST_ROUNDS)


def full_rounds(trace: Trace, batch: int) -> list[RoundRecord]:
    """Rounds of a full batch, those left out in which caches are cold."""
    return [one for one in trace.timed_rounds if len(one.sequences) == batch][FIRST_ROUNDS:]


def points_of_runs(runs: Sequence[Runs], phases: HardwareProfile | None = None) -> list[RoundPoint]:
    """Of the rounds of a full batch. phases: prices them, with the steps of an EAGLE3 head as the synchronous runs here
    took them, and the host's part of asynchronous ones, at every batch size, as the hardware profile will have them.
    """
    steps = {one.batch: _head_step_s(one) for one in runs if one.name == "eagle3"}
    answered = {} if phases is None else {one.batch: _answering(one, phases) for one in runs if one.name == ASKED}
    if phases is not None:
        head = {"head_step_s": TableTime.of(steps)} if steps else {}
        phases = phases.model_copy(update={**head, **host_fields(answered)})
    return [
        _point(
            one,
            phases,
            step_s=steps.get(one.batch) if one.name == "eagle3" else None,
            answering=answered.get(one.batch) if one.name == ASKED else None,
        )
        for one in runs
    ]


def _answering(runs: Runs, phases: HardwareProfile) -> Answering:
    """Of all its runs."""
    found = Answering()
    for rounds, trace in _rounds(runs):
        found.add(rounds, trace, phases)
    return found


def _head_step_s(runs: Runs) -> float:
    """Median of the runs."""
    steps = [RunTimes.of_rounds(own, trace).chain_step.get(runs.batch) for own, trace in _rounds(runs)]
    return statistics.median(step for step in steps if step is not None)


def _rounds(runs: Runs) -> list[tuple[list[RoundRecord], Trace]]:
    return [(full_rounds(one.trace, runs.batch), one.trace) for one in runs.results]


def _point(
    runs: Runs, phases: HardwareProfile | None, *, step_s: float | None, answering: Answering | None
) -> RoundPoint:
    by_run = _rounds(runs)
    full = [one for rounds, _ in by_run for one in rounds]
    mean_s, priced_s = statistics.mean(one.end_s - one.start_s for one in full), None
    if phases is not None and runs.name in DRAFTING:
        priced = itertools.chain(*(priced_rounds_s(*own, phases) for own in by_run))
        mean_s, priced_s = without_stalls([(one.end_s - one.start_s, s) for one, s in zip(full, priced, strict=True)])
    return RoundPoint(
        strategy=runs.name,
        batch=runs.batch,
        context=_context(full),
        round_s=statistics.median(r.end_s - r.start_s for r in full),
        phases_s=runs.alone_s,
        tokens_per_second=statistics.mean(result.metrics.tokens_per_second or 0.0 for result in runs.results),
        tokens_per_round=statistics.mean(result.metrics.tokens_per_round or 0.0 for result in runs.results),
        host_s=runs.host_s,
        mean_s=mean_s,
        priced_s=priced_s,
        step_s=step_s,
        fallback_host_s=None if answering is None else answering.fallback,
        turnaround_s=None if answering is None else answering.turnaround,
    )


def without_stalls(rounds: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Means of measured and of priced seconds, rounds left out that took several times as long, of their price, as
    usual: those in which the machine did something else.
    """
    usual = statistics.median(measured / priced for measured, priced in rounds)
    kept = [(measured, priced) for measured, priced in rounds if measured / priced <= STALL * usual]
    return statistics.mean(measured for measured, _ in kept), statistics.mean(priced for _, priced in kept)


def _context(rounds: Sequence[RoundRecord]) -> int:
    """The mean."""
    return round(statistics.mean(s.position for r in rounds for s in r.sequences))


def priced_rounds_s(rounds: Sequence[RoundRecord], trace: Trace, phases: HardwareProfile) -> list[float]:
    """Seconds of each of these rounds of a trace, on the clock of a profile."""
    machine = phases.for_head() if strategy_name(trace) == "eagle3" else phases
    strategy = recorded_strategy(rounds)
    if strategy == "autoregressive":
        return [machine.autoregressive_s(len(one.sequences)) for one in rounds]
    replayed = workload_of_rounds(rounds, trace.meta)
    return [round_on_clock(0, 0.0, rows, strategy, machine, "full").end_s for rows in replayed]


def _phases_s(target: LoadedModel, draft: LoadedModel, strategy: str, work: Work, sizes: Sizes) -> float:
    k = 0 if strategy == "autoregressive" else sizes.k
    with PhaseTimer(target, work) as timer:
        verify_s = timer.verify_s(work, k, record=True, repeats=sizes.repeats)
    if k == 0:
        return verify_s
    with PhaseTimer(draft, work, scratch_positions=sum(sizes.fan_out) * k) as timer:
        if strategy == "sync_chain":
            return verify_s + timer.chain_s(work, k, record=True, repeats=sizes.repeats)
        return max(verify_s, timer.tree_s(work, k, sizes.fan_out, record=True, repeats=sizes.repeats))
