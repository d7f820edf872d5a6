"""Seconds of measuring: phases by rows, then short recorded runs that tell outcomes, overhead and contention."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ssd_lab.assembly.build import share_threads
from ssd_lab.config import EngineConfig
from ssd_lab.profile.phase_times import Work
from ssd_lab.simulate import HardwareProfile, TableTime
from ssd_lab.simulate.run_times import RunTimes, times
from ssd_lab.strategies import registry
from ssd_lab.trace import Trace
from ssd_lab.tune.candidates import Candidate, heads
from ssd_lab.tune.phases import coarse_profile
from ssd_lab.tune.recorded_runs import Subject
from ssd_lab.tune.scoring import Machine

K, F = 8, 2  # long, so that acceptance is seen at every place
PHASES, PLAIN, CHAIN, HEAD, TREE = 0.12, 0.06, 0.08, 0.06, 0.22  # shares of the budget


@dataclass
class Calibration:
    """What was measured. trace: of the asynchronous run, from which outcomes are learned. head: of a synchronous one of
    an EAGLE3 head (None where none was tried). start_s: what the asynchronous draft worker took to start. seconds: by
    part.
    """

    machine: Machine
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


def machine_of(base: HardwareProfile, plain: Trace, chain: Trace, tree: Trace, head: Trace | None = None) -> Machine:
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
    return Machine(alone, beside, plain_times.overhead_s, "full", with_head)
