"""Phases as graphs, with a backend that replays on the CPU what CUDA graphs would: same text, few captures, no leak."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest
import torch
from replay_graphs import Backends

from ssd_lab import LLM, SamplingParams
from ssd_lab.execution import graphs
from ssd_lab.execution.graphs import GraphedCall, batch_bucket, context_bucket

PROMPTS = [[1, 2, 3, 4], [60, 61, 62], [7, 8, 9, 10, 11, 12, 13], [100, 101]]


@pytest.fixture
def backends(monkeypatch: pytest.MonkeyPatch) -> Backends:
    """Makes engines and inline drafts use graphs on the CPU."""
    return Backends.installed(monkeypatch)


STRATEGIES: dict[str, dict[str, Any]] = {
    "autoregressive": {},
    "sync_chain": {"k": 3},
    "async_tree": {"k": 3, "f": 2},
    "prompt_lookup": {"k": 3},
    "by confidence": {"strategy": "async_tree", "k": 3, "fan_out": {"kind": "adaptive", "budget": 7}, "saguaro_c": 0.5},
    "learned lengths": {"strategy": "async_tree", "k": 3, "fan_out": {"kind": "adaptive", "budget": 7,
                        "by_confidence": False, "every": 2}, "saguaro_c": 0.5},
    "random": {"strategy": "async_tree", "k": 3, "f": 1, "fallback": {"kind": "fast", "source": "random"}},
    "temperature": {"strategy": "sync_chain", "k": 3, "draft_temperature": 0.3},
    "sync_tree": {"tree": {"kind": "fixed", "widths": (3, 2, 1)}},
    "dynamic tree": {"strategy": "sync_tree", "tree": {"kind": "dynamic", "top_k": 3, "depth": 3, "num_nodes": 7}},
    "cascade": {"first": {"strategy": "prompt_lookup", "k": 3}, "second": {"strategy": "sync_tree"}},
}  # fmt: skip


def texts(tiny_pair: Any, strategy: str, temperature: float, **fields: Any) -> tuple[list[list[int]], Any]:
    params = [
        SamplingParams(max_tokens=20 + 3 * i, temperature=temperature, seed=i, ignore_eos=True, top_p=0.9)
        for i in range(len(PROMPTS))
    ]
    options = {"dtype": "float32", "progress": False, "threads": 1, "draft_link": "inline", "max_batch": 3}
    options |= {"strategy": strategy, **STRATEGIES[strategy], **fields}
    with LLM(tiny_pair.target, tiny_pair.draft, **options) as llm:
        result = llm.run(PROMPTS, params)
        assert llm.num_free_blocks == llm._engine._blocks.num_usable
    return [output.token_ids for output in result.outputs], result


@pytest.mark.quick("temperature-0.8", full=["cascade-0.0"])
@pytest.mark.grid(one_of=5)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_graphs_give_the_eager_text(
    tiny_pair: Any, monkeypatch: pytest.MonkeyPatch, strategy: str, temperature: float
) -> None:
    """Also where the order of captures keeps changing."""
    expected, plain = texts(tiny_pair, strategy, temperature)
    own = Backends.installed(monkeypatch, recapture_every=11)
    got, graphed = texts(tiny_pair, strategy, temperature)
    assert got == expected
    assert graphed.metrics.tokens_per_round == plain.metrics.tokens_per_round
    assert graphed.metrics.cache_hit_rate == plain.metrics.cache_hit_rate
    assert sum(backend.replayed for _, backend in own.made) > 0
    assert recorded(graphed) == recorded(plain)


def recorded(result: Any) -> list[tuple[Any, ...]]:
    """What each request went through, round by round, and the trees that were prepared for it."""
    return [
        (s.request_id, s.position, s.draft_tokens, s.num_accepted, s.recovery_token, s.num_emitted, s.recovery_rank)
        + (() if s.tree is None else (s.tree.tokens, s.tree.parents))
        for s in sorted((s for r in result.trace.rounds for s in r.sequences), key=lambda s: (s.request_id, s.position))
    ]


def test_the_records_of_a_run_ahead_are_those_of_an_eager_one(tiny_pair: Any, backends: Backends) -> None:
    _, graphed = texts(tiny_pair, "async_tree", 0.8)
    assert [r.token_ids for r in graphed.trace.requests] == [o.token_ids for o in graphed.outputs]
    for request in graphed.trace.requests:
        own = [s for r in graphed.trace.rounds for s in r.sequences if s.request_id == request.request_id]
        text = [t for s in own for t in [*s.draft_tokens[: s.num_accepted], s.recovery_token][: s.num_emitted]]
        assert text == request.token_ids
        assert all(one.position + one.num_emitted == two.position for one, two in itertools.pairwise(own))
    starts = [r.start_s for r in graphed.trace.rounds]
    assert starts == sorted(starts) and all(r.start_s <= r.end_s for r in graphed.trace.rounds)


def test_nothing_is_captured_twice(tiny_pair: Any, backends: Backends) -> None:
    options = {"dtype": "float32", "progress": False, "threads": 1, "draft_link": "inline"}
    params = SamplingParams(max_tokens=30, ignore_eos=True)
    with LLM(tiny_pair.target, tiny_pair.draft, "sync_chain", k=3, **options) as llm:
        llm.run([PROMPTS[0]], params)
        captured = [backend.captured for _, backend in backends.made]
        assert captured == [1, 1]  # one verification, one chain
        llm.run([PROMPTS[1]], params)
        assert [backend.captured for _, backend in backends.made] == captured
        llm.run(PROMPTS[:3], params)  # another batch bucket
        assert [backend.captured for _, backend in backends.made] > captured


@pytest.mark.full
def test_schedules_that_change_capture_no_more_trees(tiny_pair: Any, backends: Backends) -> None:
    names: list[str] = []
    for name in ("by confidence", "learned lengths"):
        backends.made.clear()
        texts(tiny_pair, name, 0.8)
        _, draft = backends.made
        names = [key[0].name for key in draft[0]._calls]
        buckets = {batch_bucket(rows) for rows in (1, 2, 3)}
        assert names.count("draft_tree") <= len(buckets)


def test_stop_strings_and_logprobs_wait_for_the_text(tiny_pair: Any, backends: Backends) -> None:
    options = {"dtype": "float32", "progress": False, "threads": 1, "draft_link": "inline"}
    with LLM(tiny_pair.target, tiny_pair.draft, "sync_chain", k=3, **options) as llm:
        long = llm.generate([PROMPTS[0]], SamplingParams(max_tokens=40, ignore_eos=True))[0]
        stop = long.text[8:10]
        cut = llm.generate([PROMPTS[0]], SamplingParams(max_tokens=40, ignore_eos=True, stop=[stop], logprobs=2))[0]
        assert cut.text == long.text[: long.text.index(stop)] and cut.finish_reason == "stop"
        assert cut.logprobs is not None and [p["token_id"] for p in cut.logprobs] == cut.token_ids


def test_a_cancelled_request_leaves_nothing_behind(tiny_pair: Any, backends: Backends) -> None:
    options = {"dtype": "float32", "progress": False, "threads": 1, "draft_link": "inline"}
    with LLM(tiny_pair.target, tiny_pair.draft, "sync_chain", k=3, **options) as llm:
        stream = llm.stream(PROMPTS[0], SamplingParams(max_tokens=60, ignore_eos=True))
        next(stream)
        stream.close()
        after = llm.generate([PROMPTS[1]], SamplingParams(max_tokens=20, ignore_eos=True))[0]
        assert llm.num_free_blocks == llm._engine._blocks.num_usable
    alone, _ = texts(tiny_pair, "sync_chain", 0.0)
    assert after.token_ids == alone[1][:20]


def test_an_input_in_its_place_is_not_copied() -> None:
    place, other = torch.zeros(4), torch.ones(4)
    seen: list[torch.Tensor] = []
    call = GraphedCall("a phase", (place,), lambda: seen.append(place.clone()), (place,), place)
    call.ready((place,))()
    call.ready((other,))()
    assert [tensor.tolist() for tensor in seen] == [[0.0] * 4, [1.0] * 4]


def test_buckets_hold_what_they_are_for() -> None:
    assert [batch_bucket(n) for n in (1, 2, 3, 5, 8, 9, 17, 64)] == [1, 2, 4, 8, 8, 16, 24, 64]
    assert [context_bucket(n) for n in (1, 512, 513, 5000)] == [512, 512, 1024, 8192]
    assert graphs.SMALLEST_CONTEXT == 512


def test_details_are_the_likeliest_tokens_of_both_models(tiny_pair: Any) -> None:
    """With every token of the vocabulary kept, the numbers sum to one and are those that decided."""
    _, result = texts(tiny_pair, "async_tree", 0.8, record_details=64)
    for record in (s for r in result.trace.rounds for s in r.sequences):
        assert record.alternatives is not None and len(record.alternatives) == len(record.draft_tokens) + 1
        for place, (token, p, q) in enumerate(
            zip(record.draft_tokens, record.target_probs, record.draft_probs, strict=True)
        ):
            shown = record.alternatives[place]
            assert len(set(shown.tokens)) == len(shown.tokens) and sum(shown.target_probs) <= 1 + 1e-4
            assert shown.draft_probs is not None and sum(shown.draft_probs) <= 1 + 1e-4
            if token in shown.tokens:
                index = shown.tokens.index(token)
                assert shown.target_probs[index] == pytest.approx(p, abs=1e-6)
                assert shown.draft_probs[index] == pytest.approx(q, abs=1e-6)
        assert record.alternatives[-1].draft_probs is None
    assert result.trace.meta["ranked_candidates"] == 64


class Bar:
    """What tqdm would have been asked to show."""

    disable, delay = False, 2.0

    def __init__(self, running_s: float) -> None:
        self.start_t = time.time() - running_s
        self.shown: list[tuple[str, bool]] = []

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def update(self, count: int) -> None:
        pass

    def set_postfix_str(self, text: str, *, refresh: bool) -> None:
        self.shown.append((text, refresh))


@pytest.mark.parametrize("running_s", [0.0, 10.0])
def test_the_bar_says_which_graph_is_being_captured(
    tiny_pair: Any, backends: Backends, monkeypatch: pytest.MonkeyPatch, running_s: float
) -> None:
    """Target's and draft's, counted; taken away with the round; drawn at once if the bar is there already."""
    bars: list[Bar] = []
    monkeypatch.setattr(
        "ssd_lab.assembly.waiting.progress_bar", lambda *_, **__: bars.append(Bar(running_s)) or bars[-1]
    )
    options = {"dtype": "float32", "threads": 1, "draft_link": "inline", "k": 3, "f": 2}
    params = SamplingParams(max_tokens=8, ignore_eos=True)
    with LLM(tiny_pair.target, tiny_pair.draft, "async_tree", **options) as llm:
        llm.generate(PROMPTS[:1], params)
        captured = sum(backend.captured for _, backend in backends.made)
        llm.generate(PROMPTS[:1], params)
    told = [text for text, _ in bars[0].shown if text]
    assert [text.split(",")[0] for text in told] == [f"capturing graph {n + 1}" for n in range(captured)]
    assert {"verify", "draft_tree"} <= {text.split(", ")[1] for text in told}
    assert bars[0].shown[-1] == ("", False), "after a round nothing is being captured"
    assert all(drawn == (running_s > 2 and text != "") for text, drawn in bars[0].shown)
    assert len(bars) == 2 and not bars[1].shown, "nothing is captured twice"
