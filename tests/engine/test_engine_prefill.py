"""Prompts in the engine: many in one step, few rows beside those who decode, and none waits for the host."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from replay_graphs import Backends

from ssd_lab import LLM, SamplingParams
from ssd_lab.engine.prefill_budget import CHEAP_CPU, PrefillBudget
from ssd_lab.engine.prefilling import Prefilling
from ssd_lab.engine.rounds import Rounds
from ssd_lab.phases.prefill import prefill
from ssd_lab.rounds.prompt_lines import PromptPart

OPTIONS: dict[str, Any] = {"progress": False, "threads": 1, "draft_link": "inline", "block_size": 8}
STRATEGIES: dict[str, dict[str, Any]] = {
    "autoregressive": {},
    "sync_chain": {"k": 3},
    "async_tree": {"k": 3, "f": 2},
    "prompt_lookup": {"k": 3},
}
SHORT = [[1, 2, 3, 4], [60, 61, 62], [7, 8, 9, 10, 11, 12, 13], [100, 101], [5, 5, 5, 9, 9]]
LONG = [(7 * place + place // 5) % 100 + 1 for place in range(100)]


@dataclass
class Watched:
    """What happened, in order: prompt tokens that were computed, rounds that were launched and collected."""

    events: list[tuple[str, int]] = field(default_factory=list)

    @classmethod
    def engines(cls, patch: pytest.MonkeyPatch) -> Watched:
        own = cls()
        compute, launch, collect = Prefilling.compute, Rounds.launch, Rounds.collect

        def computing(prefilling: Any, chunks: Any) -> Any:
            if chunks:
                own.events.append(("prompts", sum(chunk.stop - chunk.start for chunk in chunks)))
            return compute(prefilling, chunks)

        def launching(rounds: Any, sequences: Any, start_s: float) -> Any:
            own.events.append(("launch", len(sequences)))
            return launch(rounds, sequences, start_s)

        def collecting(rounds: Any, flight: Any, drop: Any) -> Any:
            own.events.append(("collect", len(flight.sequences)))
            return collect(rounds, flight, drop)

        patch.setattr(Prefilling, "compute", computing)
        patch.setattr(Rounds, "launch", launching)
        patch.setattr(Rounds, "collect", collecting)
        return own

    def before_rounds(self) -> list[tuple[int, int]]:
        """Of each round: sequences, and prompt tokens that were computed since the round before was launched."""
        found, tokens = [], 0
        for what, count in self.events:
            if what == "prompts":
                tokens += count
            elif what == "launch":
                found.append((count, tokens))
                tokens = 0
        return found


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched.engines(monkeypatch)


def opened(pair: Any, strategy: str = "autoregressive", dtype: str = "float32", **fields: Any) -> LLM:
    options = {**OPTIONS, "strategy": strategy, **STRATEGIES[strategy], "dtype": dtype, **fields}
    return LLM(pair.target, pair.draft if STRATEGIES[strategy] and strategy != "prompt_lookup" else None, **options)


def arriving(llm: LLM, late: list[int], *, after: int, count: int = 40) -> list[list[int]]:
    """Tokens of the short prompts, and of one that comes when those have decoded so many rounds."""
    engine, params = llm._engine, SamplingParams(max_tokens=count, ignore_eos=True)
    ids = [engine.submit(prompt, params, seed=0) for prompt in SHORT]
    requests = [engine.sequence(request) for request in ids]
    for _ in range(after):
        engine.step()
    request = engine.submit(late, params, seed=0)
    requests.append(engine.sequence(request))
    while engine.has_work:
        engine.step()
    return [request.output_ids for request in requests]


# --- how much ---------------------------------------------------------------------------------------------------------


@pytest.mark.quick("autoregressive")
@pytest.mark.parametrize("strategy", ["autoregressive", "sync_chain"])
def test_a_long_prompt_beside_others_delays_no_round_for_long(tiny_pair: Any, watched: Watched, strategy: str) -> None:
    """By counts: a round of n rows gets at most 2 n rows of prompts, or few enough to be cheap."""
    with opened(tiny_pair, strategy, max_batch=6) as llm:
        texts = arriving(llm, LONG, after=4)
        most = max(CHEAP_CPU, 2 * (llm._engine.limits.lookahead + 1) * len(SHORT))
    first, *rounds = watched.before_rounds()
    assert first == (len(SHORT), sum(len(prompt) - 1 for prompt in SHORT)), "nobody decodes: all prompts in one step"
    while_prompt = [tokens for count, tokens in rounds if tokens]
    assert sum(while_prompt) == len(LONG) - 1 and max(while_prompt) <= most and len(while_prompt) > 1
    with opened(tiny_pair, strategy, max_batch=1) as llm:
        alone = llm.generate([*SHORT, LONG], SamplingParams(max_tokens=40, ignore_eos=True))
    assert texts == [output.token_ids for output in alone]


def test_the_caller_may_set_how_much(tiny_pair: Any, watched: Watched) -> None:
    with opened(tiny_pair, max_batch=6, max_prefill_beside=5) as llm:
        arriving(llm, LONG, after=2)
    assert {tokens for _, tokens in watched.before_rounds()[1:] if tokens} == {5, 99 % 5}


def test_a_budget_is_full_where_nobody_decodes_and_grows_with_those_who_wait() -> None:
    budget = PrefillBudget(most=2048, beside=None, cheap=128, rows_each=1)
    assert budget.tokens(decoding=0, waiting=1) == 2048
    assert budget.tokens(decoding=8, waiting=1) == 128
    assert budget.tokens(decoding=100, waiting=1) == 200
    assert budget.tokens(decoding=2, waiting=6) == 3 * 128
    assert budget.tokens(decoding=1, waiting=63) == 2048
    assert PrefillBudget(64, 512, 128, 1).tokens(decoding=1, waiting=1) == 64


# --- when -------------------------------------------------------------------------------------------------------------


@pytest.mark.quick("sync_chain")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_prompts_are_computed_behind_a_round_whose_outcome_is_not_read_yet(
    tiny_pair: Any, watched: Watched, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    with opened(tiny_pair, strategy, max_batch=6) as llm:
        expected = arriving(llm, LONG, after=4)
    watched.events.clear()
    Backends.installed(monkeypatch)
    with opened(tiny_pair, strategy, max_batch=6) as llm:
        assert arriving(llm, LONG, after=4) == expected
        free, usable = llm.num_free_blocks, llm._engine._blocks.num_usable
    assert free == usable
    names = [what for what, _ in watched.events]
    behind = [place for place, what in enumerate(names[:-1]) if what == "prompts" and names[place + 1] == "collect"]
    assert behind, "the device would have waited"
    assert sum(tokens for _, tokens in watched.before_rounds()[1:]) == len(LONG) - 1


@pytest.mark.quick("sync_chain")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_place_of_a_request_that_is_over_is_taken_before_its_text_is_made(
    tiny_pair: Any, watched: Watched, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    params = SamplingParams(max_tokens=9, ignore_eos=True)
    with opened(tiny_pair, strategy, max_batch=2) as llm:
        expected = llm.run(SHORT, params)
    Backends.installed(monkeypatch)
    watched.events.clear()
    publish = Rounds.publish

    def publishing(rounds: Any, settled: Any, next_start_s: Any) -> None:
        watched.events.append(("text", sum(sequence.is_complete for sequence in settled.flight.sequences)))
        publish(rounds, settled, next_start_s)

    monkeypatch.setattr(Rounds, "publish", publishing)
    with opened(tiny_pair, strategy, max_batch=2) as llm:
        result = llm.run(SHORT, params)
        assert llm.num_free_blocks == llm._engine._blocks.num_usable
    assert [one.token_ids for one in result.outputs] == [one.token_ids for one in expected.outputs]
    assert [one.text for one in result.outputs] == [one.text for one in expected.outputs]
    ended = [place for place, (what, count) in enumerate(watched.events) if what == "text" and count]
    assert any(watched.events[place - 1][0] in ("launch", "prompts") for place in ended)


def test_a_prompt_is_recorded_once_for_all_that_it_is_computed_with(tiny_pair: Any) -> None:
    with opened(tiny_pair, max_batch=6) as llm:
        result = llm.run(SHORT, SamplingParams(max_tokens=4, ignore_eos=True))
    assert len(result.trace.prefills) == 1
    assert (
        0
        < result.metrics.prefill_time_s
        == pytest.approx(result.trace.prefills[0].end_s - result.trace.prefills[0].start_s)
    )


# --- bits -------------------------------------------------------------------------------------------------------------


def kept(cache: Any, blocks: list[int], count: int) -> list[torch.Tensor]:
    """K/V of the first `count` positions of each layer."""
    size = cache.block_size
    return [layer.unflatten(0, (-1, size))[blocks].flatten(0, 1)[:count] for layer in cache.layers]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "fields",
    [{}, {"max_prefill_tokens": 7}, {"num_blocks": 26, "max_model_len": 120}],
    ids=["at once", "chunks", "preempted"],
)
def test_k_v_of_a_text_is_that_of_its_prompt_alone(tiny_pair: Any, dtype: str, fields: dict[str, Any]) -> None:
    """Target and draft: prefilled with others, in chunks, drafted and verified, given up and computed again."""
    with opened(tiny_pair, "sync_chain", dtype, **{"max_batch": 6, **fields}) as llm:
        engine = llm._engine
        params = SamplingParams(max_tokens=40, ignore_eos=True)
        requests = [engine.sequence(engine.submit(prompt, params, seed=0)) for prompt in [*SHORT, LONG[:60]]]
        longest = requests[-1]
        while len(longest.output_ids) < 30:
            engine.step()
        if "num_blocks" in fields:
            assert sum(request.num_preemptions for request in requests)
        draft = engine.proposer.link._worker._drafter.runner  # type: ignore[attr-defined]
        found = {}
        for request in (one for one in requests if one.blocks):
            count = len(request.token_ids) - 2
            for name, runner in (("target", engine._runner), ("draft", draft)):
                found[name, request.request_id] = (
                    list(request.token_ids[:count]),
                    kept(runner.cache, request.blocks, count),
                )
        runners = {"target": engine._runner, "draft": draft}
        engine.cancel_all()
        assert found
        with torch.inference_mode():
            for (name, _), (ids, layers) in found.items():
                blocks = list(range(1, 1 + -(-len(ids) // 8)))
                prefill(runners[name], [PromptPart(ids, 0, blocks)])
                for ours, alone in zip(layers, kept(runners[name].cache, blocks, len(ids)), strict=True):
                    assert torch.equal(ours, alone), name
