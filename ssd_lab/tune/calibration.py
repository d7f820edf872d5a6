"""Seconds of measuring: phases by rows, then short recorded runs that tell outcomes, overhead and contention."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ssd_lab.assembly.build import share_threads
from ssd_lab.config import EngineConfig
from ssd_lab.models.loader import LoadedModel
from ssd_lab.profile.phase_times import PhaseTimer, Work
from ssd_lab.simulate import HardwareProfile, TableTime
from ssd_lab.simulate.run_times import RunTimes, times
from ssd_lab.strategies import registry
from ssd_lab.trace import Trace
from ssd_lab.tune.candidates import Candidate, heads
from ssd_lab.tune.recorded_runs import Subject
from ssd_lab.tune.scoring import TuneMachine

K, F = 8, 2  # long, so that acceptance is seen at every place
PHASES, PLAIN, CHAIN, HEAD, TREE = 0.12, 0.06, 0.08, 0.06, 0.22  # shares of the budget
VERIFIED = (0, 1, 3, 6, 8)  # draft tokens of a timed verification
TREE_DEPTH, TREE_FAN_OUTS = 4, (1, 3)
_WARM_CALLS = 3  # that timing spends before it counts
_MOST_REPEATS = 7


@dataclass
class Calibration:
    """What was measured. trace: of the asynchronous run, from which outcomes are learned. head: of a synchronous one of
    an EAGLE3 head (None where none was tried). start_s: what the asynchronous draft worker took to start. seconds: by
    part.
    """

    machine: TuneMachine
    trace: Trace
    head: Trace | None
    start_s: float
    seconds: dict[str, float] = field(default_factory=dict)


def calibrate(
    subject: Subject, batch: int, budget_s: float, on_part: Callable[[str], None], *, head: str | None = None
) -> Calibration:
    """Measure within about half of the budget; head: of EAGLE3, as `heads` takes it. Raises ConfigError if a run has no
    round.
    """
    seconds: dict[str, float] = {}
    started_s: dict[str, float] = {}
    device = subject.target.decoder.device
    plain, chain, tree = (
        Candidate("autoregressive"), Candidate("sync_chain", {"k": K}), Candidate("async_tree", {"k": K, "f": F}),
    )  # fmt: skip

    def recorded(candidate: Candidate, share: float, what: str) -> Trace:
        on_part(what)
        start_s = time.perf_counter()
        with subject.opened(candidate) as llm:
            started_s[candidate.strategy] = time.perf_counter() - start_s
            trace = subject.run(llm, subject.prompts, budget_s=share * budget_s).trace
        seconds[what] = time.perf_counter() - start_s
        return trace

    plain_trace = recorded(plain, PLAIN, "autoregressive run")
    chain_trace = recorded(chain, CHAIN, "synchronous run")
    head_traces = [recorded(one, HEAD, "EAGLE3 run") for one in heads(head, [K])]
    tree_trace = recorded(tree, TREE, "asynchronous run")
    on_part("phases")
    start_s = time.perf_counter()
    lengths = [s.position for one in plain_trace.rounds for s in one.sequences]
    threads = torch.get_num_threads()
    own_threads, _ = share_threads(EngineConfig(**subject.engine), registry.config("sync_chain", {"k": K}), device)
    if own_threads is not None and device.type == "cpu":
        torch.set_num_threads(own_threads)
    try:
        work = Work(batch, round(statistics.mean(lengths)))
        base = coarse_profile(subject.target, subject.draft, work, budget_s=PHASES * budget_s)
    finally:
        torch.set_num_threads(threads)
    seconds["phases"] = time.perf_counter() - start_s
    head_trace = head_traces[0] if head_traces else None
    machine = machine_of(base, plain_trace, chain_trace, tree_trace, head_trace)
    return Calibration(machine, tree_trace, head_trace, started_s[tree.strategy], seconds)


def coarse_profile(target: LoadedModel, draft: LoadedModel, work: Work, *, budget_s: float) -> HardwareProfile:
    """Times by rows for `work.batch` sequences of `work.context` tokens, as an engine that records would take them."""
    sizes = len(VERIFIED) + 2 * len(TREE_FAN_OUTS) + 2
    verify, extension, tree = {}, {}, {}
    with PhaseTimer(target, work) as timer:
        start_s = time.perf_counter()
        timer.verify_s(work, VERIFIED[-1], record=True, repeats=1)
        call_s = (time.perf_counter() - start_s) / (_WARM_CALLS + 1)
        repeats = max(1, min(_MOST_REPEATS, int(budget_s / sizes / call_s) - _WARM_CALLS))
        for k in VERIFIED:
            verify[work.batch * (k + 1)] = timer.verify_s(work, k, record=True, repeats=repeats)
    widest = max(TREE_FAN_OUTS) * (TREE_DEPTH + 1)
    with PhaseTimer(draft, work, scratch_positions=widest * TREE_DEPTH) as timer:
        chain_s = timer.chain_s(work, TREE_DEPTH, record=True, repeats=repeats) / TREE_DEPTH
        for k in (VERIFIED[1], VERIFIED[-1]):
            extension[work.batch * (k + 1)] = timer.verify_s(work, k, record=True, repeats=repeats)
        extended = TableTime.of(extension)
        for f in TREE_FAN_OUTS:
            fan_out = (f,) * (TREE_DEPTH + 1)
            tree_s = timer.tree_s(work, TREE_DEPTH, fan_out, record=True, repeats=repeats)
            grown_s = tree_s - extended.at(work.batch * (TREE_DEPTH + 1))
            tree[work.batch * sum(fan_out)] = grown_s / TREE_DEPTH
    return HardwareProfile(
        name="this machine",
        source=f"measured: {target.source} and {draft.source}, batch {work.batch}, context {work.context}",
        verify_s=TableTime.of(verify),
        draft_step_s=TableTime.of({work.batch: chain_s}),
        draft_tree_step_s=TableTime.of(tree),
        draft_extension_s=extended,
    )


def machine_of(
    base: HardwareProfile, plain: Trace, chain: Trace, tree: Trace, head: Trace | None = None
) -> TuneMachine:
    """The phases alone, made as slow as they were in whole runs: one after the other, and both at once."""
    plain_times = RunTimes.of(plain)
    alone = RunTimes.of(chain).scaled(base, "this machine", depth=K)
    # an autoregressive step has its own overhead, which the profile's does not include
    expected_s = sum(base.verify_s.at(rows) for rows in plain_times.verify)
    step = times(base.verify_s, sum(plain_times.verify.values()) / expected_s)
    extra_s = plain_times.overhead_s - alone.overhead_s
    assert isinstance(step, TableTime)
    steps = TableTime(rows=step.rows, seconds=tuple(max(0.0, seconds + extra_s) for seconds in step.seconds))
    alone = alone.model_copy(update={"autoregressive_step_s": steps})
    beside = RunTimes.of(tree).scaled(base, "this machine, both at work", depth=K)
    beside = beside.model_copy(update={"autoregressive_step_s": steps})
    with_head = None
    if head is not None:
        own = RunTimes.of(head).scaled(base, "this machine, with a head", depth=K)
        with_head = own.model_copy(update={"autoregressive_step_s": steps, "head_step_s": own.draft_step_s})
    return TuneMachine(alone, beside, plain_times.overhead_s, "full", with_head)
