"""Requests that do not fit: what the error advises helps whoever follows it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ssd_lab import LLM, SamplingParams
from ssd_lab.errors import CacheCapacityError, PromptError
from ssd_lab.models.loader import LoadedModel, load_model

CONTEXT = 512  # of the tiny pair
ONE = SamplingParams(max_tokens=1)


@pytest.fixture(scope="module")
def target(tiny_pair) -> LoadedModel:
    """The tiny target, loaded once."""
    return load_model(tiny_pair.target, dtype="float32")


def refusal(target: LoadedModel, length: int, params: SamplingParams = ONE, **fields: Any) -> str:
    """What a prompt of that length is told; empty if it is taken."""
    with LLM(target, strategy="autoregressive", threads=1, progress=False, **fields) as llm:
        try:
            llm.generate([5] * length, params)
        except (PromptError, CacheCapacityError) as error:
            return str(error)
    return ""


def number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    assert match is not None, text
    return int(match[1])


def test_raising_max_model_len_as_advised_helps(target: LoadedModel) -> None:
    said = refusal(target, 100, max_model_len=64)
    advised = number(r"raise max_model_len to (\d+)", said)
    assert refusal(target, 100, max_model_len=advised - 1) != "" and refusal(target, 100, max_model_len=advised) == ""


def test_shortening_the_prompt_as_advised_helps(target: LoadedModel) -> None:
    advised = number(r"shorten the prompt to at most (\d+) tokens", refusal(target, 100, max_model_len=64))
    assert refusal(target, advised, max_model_len=64) == "" and refusal(target, advised + 1, max_model_len=64) != ""


@pytest.mark.parametrize("given", [None, CONTEXT, 4096])
def test_beyond_the_models_context_nobody_is_told_to_raise_max_model_len(target: LoadedModel, given) -> None:
    said = refusal(target, 600, max_model_len=given)
    assert "raise max_model_len" not in said and f"longer context: {CONTEXT} is this one's" in said
    assert refusal(target, number(r"at most (\d+) tokens", said), max_model_len=given) == ""


def test_a_max_model_len_beyond_the_context_is_cut_and_said(
    target: LoadedModel, capsys: pytest.CaptureFixture[str]
) -> None:
    with LLM(target, strategy="autoregressive", max_model_len=4096, threads=1, progress=True) as llm:
        said = f"max_model_len=4,096 was given, and the model's context is {CONTEXT}"
        assert said in capsys.readouterr().err and said in " ".join(llm.memory_plan.notes)
        assert llm.memory_plan.max_model_len == CONTEXT
    with LLM(target, strategy="autoregressive", max_model_len=CONTEXT, threads=1, progress=False) as llm:
        assert llm.memory_plan.notes == ()


@pytest.mark.parametrize("strategy", [{"strategy": "autoregressive"}, {"strategy": "prompt_lookup", "k": 4}])
def test_what_is_advised_where_the_cache_is_too_small_helps(target: LoadedModel, strategy: dict[str, Any]) -> None:
    def told(length: int, max_tokens: int, num_blocks: int) -> str:
        options = {**strategy, "num_blocks": num_blocks, "block_size": 8, "threads": 1, "progress": False}
        with LLM(target, **options) as llm:
            try:
                llm.generate([5] * length, SamplingParams(max_tokens=max_tokens, ignore_eos=True))
            except CacheCapacityError as error:
                return str(error)
        return ""

    said = told(40, 100, 12)
    blocks, fewer = number(r"num_blocks=(\d+)", said), number(r"max_tokens=(\d+) is enough", said)
    assert told(40, 100, blocks) == "" and told(40, 100, blocks - 1) != ""
    assert told(40, fewer, 12) == "" and told(40, fewer + 1, 12) != ""
    assert "max_tokens" not in told(120, 1, 12) and "shorten the prompt" in told(120, 1, 12)
