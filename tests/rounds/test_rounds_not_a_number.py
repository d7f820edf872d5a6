"""NaN stays where it arose: the request fails by name, its neighbours and successors do not notice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from ssd_lab import LLM, SamplingParams
from ssd_lab.errors import NonFiniteLogitsError
from ssd_lab.models.files.checkpoint import read_config
from ssd_lab.models.loader import LoadedModel, from_tensors

POISON = 77  # the token whose embedding is not a number
STRATEGIES: dict[str, dict[str, Any]] = {
    "autoregressive": {},
    "sync_chain": {"k": 3},
    "async_tree": {"k": 3, "f": 2},
    "prompt_lookup": {"k": 3},
}
every_strategy = pytest.mark.parametrize("strategy", STRATEGIES)
every_temperature = pytest.mark.parametrize("temperature", [0.0, 1.0])
NOT_A_NUMBER = r"request \d+: the target's logits after token \d+ hold NaN or infinity"


def load(folder: str, value: float | None = None, everywhere: bool = False) -> LoadedModel:
    """A model of the tiny pair, with `value` in the poison's embedding or in the last norm."""
    tensors = load_file(Path(folder) / "model.safetensors")
    if value is not None and everywhere:
        tensors["model.norm.weight"][3] = value
    elif value is not None:
        tensors["model.embed_tokens.weight"][POISON] = value
    return from_tensors(read_config(Path(folder)), tensors, dtype="float32")


def build(target: LoadedModel, draft: LoadedModel, strategy: str, **fields: Any) -> LLM:
    options = {"progress": False, "threads": 1, "draft_link": "inline", **STRATEGIES[strategy], **fields}
    return LLM(target, draft, strategy, **options)


@pytest.fixture(scope="module")
def pair(tiny_pair: Any) -> tuple[LoadedModel, LoadedModel]:
    torch.set_num_threads(1)
    return load(tiny_pair.target), load(tiny_pair.draft)


@every_temperature
@every_strategy
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_target_without_numbers_is_named(tiny_pair: Any, pair: Any, strategy: str, temperature: float, value: float):
    params = SamplingParams(max_tokens=6, temperature=temperature)
    with (
        build(load(tiny_pair.target, value, everywhere=True), pair[1], strategy) as llm,
        pytest.raises(NonFiniteLogitsError, match=NOT_A_NUMBER) as caught,
    ):
        llm.generate([[1, 2, 3], [4, 5]], params)
    assert [output.finish_reason for output in caught.value.outputs] == ["error", "error"]
    assert llm.num_free_blocks == llm._engine._blocks.num_usable


@every_temperature
@every_strategy
def test_neighbours_of_a_failing_request_finish_with_their_own_text(
    tiny_pair: Any, pair: Any, strategy: str, temperature: float
):
    prompts = [[1, 2, 3, 4, 5], [9, 8, POISON, 3, 2, 1, 5], [4], [POISON], [5, 6]]
    params = SamplingParams(max_tokens=8, temperature=temperature, seed=3, ignore_eos=True)
    with build(*pair, strategy) as llm:
        expected = [output.token_ids for output in llm.generate(prompts, params)]
    poisoned = load(tiny_pair.target, float("nan"))
    with build(poisoned, pair[1], strategy) as llm, pytest.raises(NonFiniteLogitsError) as caught:
        llm.generate(prompts, params)
    for prompt, output, tokens in zip(prompts, caught.value.outputs, expected, strict=True):
        if POISON in prompt:
            assert output.finish_reason == "error"
        elif POISON not in tokens:
            assert output.token_ids == tokens


@pytest.mark.quick("async_tree")
@every_strategy
def test_what_a_failed_request_leaves_in_its_blocks_harms_nobody(tiny_pair: Any, pair: Any, strategy: str):
    """Five blocks in all, so that each next request takes over the blocks of the last."""
    prompts = [[1, 2, 3, 4, 5], [4], [5, 6]]
    params = SamplingParams(max_tokens=8, ignore_eos=True)
    with build(*pair, strategy) as llm:
        expected = [llm.generate([prompt], params)[0].token_ids for prompt in prompts]
    poisoned = load(tiny_pair.target, float("nan"))
    with build(poisoned, pair[1], strategy, block_size=4, num_blocks=6) as llm:
        for bad in ([POISON], [9, 8, 7, POISON, 3, 2, 1], [POISON] * 7):
            with pytest.raises(NonFiniteLogitsError):
                llm.generate([bad], SamplingParams(max_tokens=4))
            assert llm.num_free_blocks == 5
            assert [llm.generate([prompt], params)[0].token_ids for prompt in prompts] == expected


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("strategy", ["sync_chain", "async_tree"])
def test_a_draft_without_numbers_is_given_up_with_a_warning(
    tiny_pair: Any, pair: Any, strategy: str, temperature: float
):
    params = SamplingParams(max_tokens=8, temperature=temperature, seed=1)
    with build(*pair, "autoregressive") as llm:
        expected = [output.token_ids for output in llm.generate([[1, 2, 3], [4, 5]], params)]
    broken = load(tiny_pair.draft, float("nan"), everywhere=True)
    with (
        build(pair[0], broken, strategy) as llm,
        pytest.warns(RuntimeWarning, match=r"the draft's logits hold NaN or infinity.*goes on without a draft"),
    ):
        result = llm.run([[1, 2, 3], [4, 5]], params)
    assert [output.token_ids for output in result.outputs] == expected


def test_the_trace_of_a_failed_run_can_be_saved(tiny_pair: Any, pair: Any, tmp_path: Path):
    """JSON has no NaN, so a failed round's probabilities stay out of the records."""
    poisoned = load(tiny_pair.target, float("nan"))
    with build(poisoned, pair[1], "autoregressive") as llm:
        for prompt in ([1, 2], [POISON]):
            llm._engine.submit(prompt, SamplingParams(max_tokens=4), seed=0)
        while llm._engine.has_work:
            llm._engine.step()
        trace = llm._engine.take_trace()
    trace.save(tmp_path / "trace.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "trace.jsonl").read_text().splitlines()]
    assert len(lines) > 2
    assert [request.finish_reason for request in trace.requests] == ["length", "error"]
