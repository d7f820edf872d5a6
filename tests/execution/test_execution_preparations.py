"""What is captured in a run is marked in its trace and in no rate, no round time and no time to the first token."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import Any

import pytest
from replay_graphs import Backends, ReplayBackend

from ssd_lab import LLM, SamplingParams
from ssd_lab.engine.preparing import Preparing
from ssd_lab.learning.fallback_choice import FallbackChooser, MeasuredRound
from ssd_lab.trace import compute_metrics
from ssd_lab.trace.totals import Totals

PROMPTS = [[1, 2, 3, 4], [60, 61, 62], [7, 8, 9, 10, 11, 12, 13], [100, 101]]
PARAMS = [SamplingParams(max_tokens=30 + 3 * i, ignore_eos=True) for i in range(len(PROMPTS))]
TICK_S, CAPTURE_S = 0.001, 100.0
STRATEGIES: dict[str, dict[str, Any]] = {
    "autoregressive": {},
    "sync_chain": {"k": 3},
    "async_tree": {"k": 3, "f": 2},
    "sync_tree": {"tree": {"kind": "fixed", "widths": (3, 2, 1)}},
}


@pytest.fixture
def slow_captures(monkeypatch: pytest.MonkeyPatch) -> Backends:
    """Graphs on the CPU, and a clock that ticks each time it is read and jumps while a graph is captured."""
    now_s = 0.0

    def perf_counter() -> float:
        nonlocal now_s
        now_s += TICK_S
        return now_s

    capture = ReplayBackend.capture

    def slow(self: ReplayBackend, function: Any) -> Any:
        nonlocal now_s
        now_s += CAPTURE_S
        return capture(self, function)

    monkeypatch.setattr(Preparing, "pays", lambda *given: True)  # this clock would tell it otherwise
    monkeypatch.setattr(ReplayBackend, "capture", slow)
    monkeypatch.setattr(time, "perf_counter", perf_counter)
    return Backends.installed(monkeypatch)


def build(tiny_pair: Any, strategy: str, **fields: Any) -> LLM:
    options = {"dtype": "float32", "progress": False, "threads": 1, "draft_link": "inline", "max_batch": 3}
    options |= {"prefix_reuse": False, **STRATEGIES[strategy], **fields}
    return LLM(tiny_pair.target, tiny_pair.draft, strategy, **options)


@pytest.mark.full
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_rounds_that_count_take_what_they_take_in_a_run_without_captures(
    tiny_pair: Any, slow_captures: Backends, strategy: str
) -> None:
    with build(tiny_pair, strategy) as llm:
        cold, warm = (llm.run(PROMPTS, PARAMS) for _ in range(2))
    captured = sum(backend.captured for _, backend in slow_captures.made)
    assert [o.token_ids for o in cold.outputs] == [o.token_ids for o in warm.outputs]
    assert cold.metrics.preparation_time_s == pytest.approx(captured * CAPTURE_S, rel=0.01)
    assert warm.metrics.preparation_time_s == 0 and not warm.trace.preparations
    counted = [one.index for one in cold.trace.timed_rounds]
    assert 0 < len(cold.trace.rounds) - len(counted) == cold.metrics.num_untimed_rounds <= captured
    times = [{r.index: r.end_s - r.start_s for r in run.trace.rounds if r.index in counted} for run in (cold, warm)]
    assert times[0] == pytest.approx(times[1])
    emitted = sum(s.num_emitted for r in warm.trace.rounds if r.index in counted for s in r.sequences)
    assert cold.metrics.tokens_per_second == pytest.approx(emitted / sum(times[1].values()))
    assert cold.metrics.round_time_s is not None and cold.metrics.round_time_s.mean < 1
    for name in ("time_to_first_token_s", "inter_token_latency_s"):
        assert getattr(cold.metrics, name).mean == pytest.approx(getattr(warm.metrics, name).mean, rel=0.1)


@pytest.mark.quick("async_tree")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_capture_is_marked_where_it_happened(tiny_pair: Any, slow_captures: Backends, strategy: str) -> None:
    with build(tiny_pair, strategy) as llm:
        trace = llm.run(PROMPTS, PARAMS).trace
        names = [{key[0].name for key in executor._calls} for executor, _ in slow_captures.made]
    lanes = ["target"] if strategy == "autoregressive" else ["draft", "target"]
    for lane in lanes:
        told = {each.name.removeprefix("capture ") for each in trace.preparations if each.lane == lane}
        assert told in names
    assert all(each.is_preparation and each.end_s - each.start_s > CAPTURE_S for each in trace.preparations)
    marked = [one for one in trace.rounds if one.preparation_s]
    for one in trace.rounds:
        inside = [p for p in trace.preparations if p.start_s < one.end_s and p.end_s > one.start_s]
        assert (one in marked) == bool(inside)
    assert sum(one.preparation_s for one in marked) == pytest.approx(len(trace.preparations) * CAPTURE_S, rel=0.01)


@pytest.mark.full
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_without_records_the_counters_leave_out_the_same_rounds(
    tiny_pair: Any, slow_captures: Backends, strategy: str
) -> None:
    with build(tiny_pair, strategy) as llm:
        recorded = llm.run(PROMPTS, PARAMS)
    counted = Totals.from_dict(recorded.trace.meta["totals"])
    for name in ("rounds", "emitted", "untimed_rounds", "untimed_tokens"):
        assert getattr(counted, name) == getattr(Totals.from_trace(recorded.trace), name)
    with build(tiny_pair, strategy, record=False) as llm:
        plain = llm.run(PROMPTS, PARAMS)
    assert not plain.trace.rounds and plain.metrics.num_untimed_rounds == counted.untimed_rounds
    assert plain.metrics.tokens_per_second is not None and plain.metrics.tokens_per_second > 10
    assert compute_metrics(plain.trace).round_time_s.mean < 1  # type: ignore[union-attr]


COMPILES = """
import os, sys, triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from ssd_lab.execution.compilations import mark_compilations
from ssd_lab.execution.preparations import Preparations

@triton.jit
def copied(source, target):
    tl.store(target, tl.load(source))

others = []
triton.knobs.compilation.listener = lambda **about: others.append(about["src"].name)
one, two = Preparations(), Preparations()
mark_compilations(one)
mark_compilations(two)
triton.compile(ASTSource(copied, {"source": "*fp32", "target": "*fp32"}, {}), target=GPUTarget("cuda", 80, 32))
for preparations in (one, two):
    (span,) = preparations.between(0.0, float("inf"))
    assert span.name == "compile copied" and span.is_preparation and 0 < span.end_s - span.start_s < 600
assert others == ["copied"]
"""


@pytest.mark.full
def test_kernels_that_are_compiled_are_marked_too(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a GPU that need not be there; another listener in the process still hears of them."""
    pytest.importorskip("triton")
    program = tmp_path / "compiles.py"
    program.write_text(COMPILES, encoding="utf-8")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_learns_from_the_time_of_rounds_is_told_none_of_those(
    tiny_pair: Any, slow_captures: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The choice of a fallback weighs tokens against seconds: a capture would decide it for hundreds of rounds."""
    told: list[float] = []
    observe = FallbackChooser.observe

    def noted(self: FallbackChooser, measured: MeasuredRound) -> None:
        told.append(measured.round_s)
        observe(self, measured)

    monkeypatch.setattr(FallbackChooser, "observe", noted)
    with build(tiny_pair, "async_tree", fallback={"kind": "auto"}) as llm:
        trace = llm.run(PROMPTS, PARAMS).trace
    assert 0 < len(told) <= len(trace.timed_rounds) and max(told) < 1
