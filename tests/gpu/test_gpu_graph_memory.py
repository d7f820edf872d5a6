"""What leaves a phase, on a GPU: traces and texts where graphs are captured in every order, and memory is poisoned."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gpu_strategies import STRATEGIES, fields_of, opened

from ssd_lab import LLM, SamplingParams, demo
from ssd_lab.check import Extent, check
from ssd_lab.results import RunResult

PAIRS = {
    "bundled": (str(demo.TARGET), str(demo.DRAFT)),
    "8b": ("inflated:llama-8b:bundled-target", "inflated:llama-1b:bundled-draft"),
}
WORDS = ("river", "stone", "cloud", "garden", "engine", "letter")
DRAWS = 20_000


def prompts(count: int) -> list[str]:
    return [f"Tell me {n} things about a {WORDS[n % 6]} and {n % 7} about a {WORDS[n // 6 % 6]}." for n in range(count)]


def two_runs(pair: str, temperature: float, **fields: Any) -> list[RunResult]:
    """Of one LLM: in the second the prompts are known already, so that more of them begin in one round."""
    options = {"max_batch": 16, "max_model_len": 4608, "k": 4, "f": 3, "device": "cuda", "progress": False}
    if pair == "bundled":
        options["max_model_len"] = 512
    params = [SamplingParams(max_tokens=128, ignore_eos=True, temperature=temperature, seed=i) for i in range(48)]
    with LLM(*PAIRS[pair], "async_tree", **options, **fields) as llm:
        return [llm.run(prompts(48), params) for _ in range(2)]


def assert_trees_hold_what_was_verified(result: RunResult) -> None:
    """A tree begins with the tokens under verification, which are recorded twice, on two ways. An id outside the
    vocabulary would be missing.
    """
    assert "missing" not in result.trace.meta
    seen = 0
    for record in (s for r in result.trace.rounds for s in r.sequences if s.tree is not None):
        assert record.tree.tokens[: len(record.draft_tokens)] == record.draft_tokens
        seen += 1
    assert seen >= len(result.outputs)


@pytest.mark.timeout(500)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("debug_memory", [False, True])
@pytest.mark.parametrize("pair", PAIRS)
def test_every_tree_of_a_trace_holds_what_was_verified(pair: str, debug_memory: bool, temperature: float) -> None:
    """As found: in the second run, 64 ids of the first round's trees were another buffer's memory."""
    runs = two_runs(pair, temperature, debug_memory=debug_memory)
    for result in runs:
        assert_trees_hold_what_was_verified(result)
    first, second = ([output.token_ids for output in result.outputs] for result in runs)
    assert first == second
    if not debug_memory and temperature == 0:
        eager = two_runs(pair, temperature, eager=True)[1]
        assert second == [output.token_ids for output in eager.outputs]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_greedy_text_is_the_autoregressive_one_under_poison(strategy: str) -> None:
    params = SamplingParams(max_tokens=64, ignore_eos=True)
    texts = []
    for name, debug_memory in (("autoregressive", False), (strategy, True)):
        with opened(name, max_batch=8, num_blocks=2000, debug_memory=debug_memory) as llm:
            for _ in range(2):
                result = llm.run(prompts(24), params)
            assert "missing" not in result.trace.meta and "degraded" not in result.trace.meta
            texts.append([output.token_ids for output in result.outputs])
    assert texts[0] == texts[1]


@pytest.mark.timeout(560)
@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "autoregressive"])
def test_every_path_samples_from_the_target_under_poison(strategy: str) -> None:
    """20,000 draws on each path at temperature 1, graphs captured in adverse orders: nothing is rejected."""
    extent = Extent(batches=(), temperatures=(1.0,), draws=DRAWS)
    draft = None if strategy.startswith("eagle3") else str(demo.DRAFT)
    report = check(
        [fields_of(strategy)], target=str(demo.TARGET), draft=draft, extent=extent,
        device="cuda", debug_memory=True, num_blocks=4096, progress=False,
    )  # fmt: skip
    assert report.same, report.verdict()
    assert report.paths and all(path.impossible == 0 for path in report.paths)
    assert sum(path.draws for path in report.paths) >= DRAWS


def test_outputs_lie_outside_the_pool() -> None:
    """By the allocator's own account: a replayed graph's outputs are in no segment of a graphs' pool."""
    with opened("async_tree", max_batch=4, num_blocks=2000) as llm:
        llm.run(prompts(4), SamplingParams(max_tokens=32, ignore_eos=True))
        executor = llm._engine._runner.executor
        outputs = [tensor for call in executor._calls.values() for tensor in call.outputs]
        pools = [s for s in torch.cuda.memory_snapshot() if tuple(s["segment_pool_id"]) != (0, 0)]
    assert outputs and pools
    for tensor in outputs:
        inside = [s for s in pools if s["address"] <= tensor.data_ptr() < s["address"] + s["total_size"]]
        assert not inside, f"{tuple(tensor.shape)} lies in the pool {inside[0]['segment_pool_id']}"
