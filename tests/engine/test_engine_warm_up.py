"""After `LLM.warm_up` a run captures nothing, and is otherwise the run that it would have been."""

from __future__ import annotations

from typing import Any

import pytest
from replay_graphs import Backends

import ssd_lab
from ssd_lab import LLM, SamplingParams
from ssd_lab.errors import ConfigError
from ssd_lab.trace import Trace

PROMPTS = [[1, 2, 3, 4], [60, 61, 62], [7, 8, 9, 10, 11, 12, 13], [100, 101]]
STRATEGIES: dict[str, dict[str, Any]] = {
    "autoregressive": {},
    "sync_chain": {"k": 3},
    "async_tree": {"k": 3, "f": 2},
    "fast fallback": {"strategy": "async_tree", "k": 3, "f": 1, "fallback": "fast"},
    "adaptive": {"strategy": "async_tree", "k": 3, "fan_out": {"kind": "adaptive", "budget": 7}},
    "sync_tree": {"tree": {"kind": "fixed", "widths": (3, 2, 1)}},
    "dynamic tree": {"strategy": "sync_tree", "tree": {"kind": "dynamic", "top_k": 3, "depth": 3, "num_nodes": 7}},
    "prompt_lookup": {"k": 3},
    "cascade": {"first": {"strategy": "prompt_lookup", "k": 3}, "second": {"strategy": "sync_chain", "k": 3}},
}


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> Backends:
    return Backends.installed(monkeypatch)


def build(tiny_pair: Any, strategy: str, **fields: Any) -> LLM:
    options = {"dtype": "float32", "progress": False, "threads": 1, "draft_link": "inline", "max_batch": 3}
    return LLM(tiny_pair.target, tiny_pair.draft, **{**options, "strategy": strategy, **STRATEGIES[strategy], **fields})


def params(temperature: float, tokens: int = 20) -> list[SamplingParams]:
    return [
        SamplingParams(max_tokens=tokens + 3 * i, temperature=temperature, seed=i, ignore_eos=True)
        for i in range(len(PROMPTS))
    ]


def rounds(trace: Trace) -> list[Any]:
    """What happened, without times and whose request it was."""
    first = trace.requests[0].request_id
    return [[{**vars(row), "request_id": row.request_id - first} for row in one.sequences] for one in trace.rounds]


@pytest.mark.quick("prompt_lookup-0.8", full=["autoregressive-0.0"])
@pytest.mark.grid(one_of=5)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_run_after_it_captures_nothing_and_is_the_same_run(
    tiny_pair: Any, backends: Backends, strategy: str, temperature: float
) -> None:
    with build(tiny_pair, strategy) as llm:
        expected = llm.run(PROMPTS, params(temperature))
    with build(tiny_pair, strategy) as llm:
        llm.warm_up(PROMPTS, params(temperature))
        assert llm.num_free_blocks == llm._engine._blocks.num_usable
        assert not llm.take_trace().rounds
        captured = sum(backend.captured for _, backend in backends.made)
        got = llm.run(PROMPTS, params(temperature))
        assert sum(backend.captured for _, backend in backends.made) == captured
    assert got.metrics.num_untimed_rounds == 0 and not got.trace.preparations
    assert [o.token_ids for o in got.outputs] == [o.token_ids for o in expected.outputs]
    assert rounds(got.trace) == rounds(expected.trace)
    assert got.metrics.prefill_time_s > 0, "no prefix was found"


@pytest.mark.full
def test_without_arguments_it_covers_every_batch_up_to_the_largest(tiny_pair: Any, backends: Backends) -> None:
    with build(tiny_pair, "sync_chain", max_batch=5) as llm:
        llm.warm_up()
        captured = sum(backend.captured for _, backend in backends.made)
        for count in (1, 2, 3, 5):
            llm.run([PROMPTS[0]] * count, SamplingParams(max_tokens=12, ignore_eos=True))
        assert sum(backend.captured for _, backend in backends.made) == captured


@pytest.mark.full
def test_longer_contexts_are_covered_if_the_run_has_them(
    tiny_pair: Any, backends: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ssd_lab.execution.graphs.SMALLEST_CONTEXT", 64)
    run = {"prompts": [list(range(1, 120)), [5, 6, 7]], "params": SamplingParams(max_tokens=60, ignore_eos=True)}
    with build(tiny_pair, "sync_chain", max_model_len=256) as llm:
        llm.warm_up(**run)
        captured = sum(backend.captured for _, backend in backends.made)
        assert not llm.run(**run).trace.preparations
        llm.run([list(range(1, 200))], SamplingParams(max_tokens=50, ignore_eos=True))
        assert sum(backend.captured for _, backend in backends.made) == captured


@pytest.mark.full
def test_what_comes_later_all_the_same_is_marked(tiny_pair: Any, backends: Backends) -> None:
    with build(tiny_pair, "autoregressive") as llm:
        llm.warm_up(batch_sizes=[1])
        assert not llm.run(PROMPTS[:1], SamplingParams(max_tokens=20, ignore_eos=True)).trace.preparations
        larger = llm.run(PROMPTS[:3], SamplingParams(max_tokens=20, ignore_eos=True))
    assert larger.trace.preparations and 0 < larger.metrics.num_untimed_rounds < larger.metrics.num_rounds


def test_requests_are_not_disturbed(tiny_pair: Any, backends: Backends) -> None:
    with build(tiny_pair, "sync_chain") as llm:
        plain = "".join(chunk.text for chunk in llm.stream(PROMPTS[0], SamplingParams(max_tokens=40, ignore_eos=True)))
        stream = llm.stream(PROMPTS[0], SamplingParams(max_tokens=40, ignore_eos=True))
        text = next(stream).text
        with pytest.raises(ConfigError, match="requests are under way"):
            llm.warm_up()
        assert text + "".join(chunk.text for chunk in stream) == plain


def test_nothing_is_done_where_nothing_is_prepared(tiny_pair: Any) -> None:
    with build(tiny_pair, "async_tree") as llm:
        llm._engine.step = None  # type: ignore[assignment,method-assign]
        llm.warm_up()


@pytest.mark.full
@pytest.mark.grid(most=2)
@pytest.mark.parametrize("warm_up", [True, False])
def test_compare_warms_up_unless_told_otherwise(tiny_pair: Any, backends: Backends, warm_up: bool) -> None:
    options: dict[str, Any] = {} if warm_up else {"warm_up": False}
    found = ssd_lab.compare(
        PROMPTS, strategies=["autoregressive", "sync_chain"], target=tiny_pair.target, draft=tiny_pair.draft,
        dtype="float32", progress=False, threads=1, max_batch=3, max_tokens=20, ignore_eos=True, **options,
    )  # fmt: skip
    for run in found.runs.values():
        assert (run.metrics.num_untimed_rounds == 0) == warm_up
        assert ("are in no rate" in str(run)) != warm_up
