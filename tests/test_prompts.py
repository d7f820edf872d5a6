"""What may be given as a prompt, and what is said of anything else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from ssd_lab import LLM, SamplingParams
from ssd_lab.engine.prompts import as_prompts
from ssd_lab.errors import ConfigError, PromptError

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("given", "prompts"),
    [
        ("Hi", ["Hi"]),
        (["Hi", "there"], ["Hi", "there"]),
        (("Hi",), ["Hi"]),
        (np.array(["Hi", "there"]), ["Hi", "there"]),
        ([5, 6, 7], [[5, 6, 7]]),
        ((5, 6), [[5, 6]]),
        (range(3), [[0, 1, 2]]),
        (iter([5, 6]), [[5, 6]]),
        ([np.int64(5), np.int32(6)], [[5, 6]]),
        ([torch.tensor(5), torch.tensor(6)], [[5, 6]]),
        ([[5, 6], (7,)], [[5, 6], [7]]),
        (np.array([5, 6], dtype=np.uint16), [[5, 6]]),
        (torch.tensor([5, 6]), [[5, 6]]),
        (torch.tensor([5, 6], dtype=torch.int32), [[5, 6]]),
        (torch.tensor([[5, 6], [7, 8]]), [[5, 6], [7, 8]]),
        (np.array([[5, 6]]), [[5, 6]]),
        ([np.array([5]), torch.tensor([6, 7]), "Hi"], [[5], [6, 7], "Hi"]),
        (CHAT, [CHAT]),
        ([CHAT, "Hi", CHAT[1:]], [CHAT, "Hi", CHAT[1:]]),
    ],
)
def test_prompts_come_as_tokenizers_and_people_have_them(given: Any, prompts: list[Any]) -> None:
    assert as_prompts(given) == prompts


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "NoneType None was given"),
        (42, "int 42 was given"),
        (b"hello", "bytes b'hello' was given"),
        ({5, 6}, "set {5, 6} was given"),
        ([], "no prompt was given"),
        (torch.zeros(0, dtype=torch.int64), "no prompt was given"),
        ({"role": "user", "content": "Hi"}, "a dictionary with .* was given: put the message in a list"),
        ({"input_ids": [[5]], "attention_mask": [[1]]}, "was given: give its input_ids"),
        ([None], "NoneType None is no token id"),
        ([5.9, 6.2], r"float 5\.9 is no token id"),
        ([True, False], "bool True is no token id"),
        ([[5.9]], r"float 5\.9 is no token id"),
        (["Hi", None], r"prompt 1 \(of 2, counted from 0\): NoneType None was given"),
        (["Hi", b"there"], r"prompt 1 \(of 2, counted from 0\): bytes b'there' was given"),
        ([[5], [6.5], "Hi", ["a"]], r"prompt 1 .*: float 6\.5 is no token id.*; prompt 3 .*: str 'a' is no token id"),
        ([5, "Hi"], r"prompt 0 .*: int 5 was given"),
        (torch.tensor([0.5, 1.5]), r"a Tensor of shape \(2,\) and torch\.float32 was given"),
        (torch.tensor([True]), "torch.bool was given"),
        (np.array(5), r"a ndarray of shape \(\) and int64 was given"),
        (torch.zeros(1, 2, 3, dtype=torch.int64), r"shape \(1, 2, 3\)"),
        ([torch.tensor([0.5])], r"a Tensor of shape \(1,\) and torch\.float32 was given|float 0\.5 is no token id"),
    ],
)
def test_anything_else_is_refused_with_what_was_given_and_where(given: Any, said: str) -> None:
    with pytest.raises(PromptError, match=said) as caught:
        as_prompts(given)
    assert "no prompt was given" in str(caught.value) or "a prompt is a text, token ids" in str(caught.value)


@pytest.fixture(scope="module")
def llm(tiny_pair: Any) -> Iterator[LLM]:
    torch.set_num_threads(1)
    with LLM(tiny_pair.target, strategy="autoregressive", progress=False, threads=1, dtype="float32") as llm:
        yield llm


PARAMS = SamplingParams(max_tokens=3, ignore_eos=True)


def test_the_same_ids_give_the_same_text_in_any_container(llm: LLM) -> None:
    outputs = [llm.generate(ids, PARAMS)[0] for ids in ([5, 6, 7], np.array([5, 6, 7]), torch.tensor([[5, 6, 7]]))]
    assert len({tuple(output.token_ids) for output in outputs}) == 1
    assert [token for chunk in llm.stream(np.array([5, 6, 7]), PARAMS) for token in chunk.token_ids] == outputs[
        0
    ].token_ids
    assert llm.encode(torch.tensor([5, 6])) == [5, 6]


def test_every_prompt_that_does_not_fit_is_named_before_anything_runs(llm: LLM) -> None:
    steps = llm._engine._next_id
    with pytest.raises(PromptError) as caught:
        llm.generate(["Hi", "x" * 600, [], [5, 300], "there"], PARAMS)
    said = str(caught.value)
    assert "prompt 1 (of 5, counted from 0): the prompt has 600 tokens" in said
    assert "prompt 2 (of 5, counted from 0): the prompt is empty" in said
    assert "prompt 3 (of 5, counted from 0): token ids [300] are outside the vocabulary" in said
    assert "prompt 0" not in said and "prompt 4" not in said
    assert llm._engine._next_id == steps


def test_one_prompt_that_does_not_fit_has_no_number(llm: LLM) -> None:
    with pytest.raises(PromptError, match=r"^the prompt has 600 tokens"):
        llm.generate("x" * 600, PARAMS)


def test_a_stream_takes_one_prompt(llm: LLM) -> None:
    with pytest.raises(PromptError, match="2 prompts were given where one is wanted"):
        next(llm.stream(["Hi", "there"], PARAMS))


@pytest.mark.parametrize("number", [2**31, 2**63, 2**200])
def test_a_top_k_beyond_every_vocabulary_means_all_tokens(llm: LLM, number: int) -> None:
    params = SamplingParams(max_tokens=12, temperature=1.0, seed=3, ignore_eos=True)
    everything = llm.generate("Hi", params)[0].token_ids
    assert llm.generate("Hi", params.model_copy(update={"top_k": number}))[0].token_ids == everything


def test_a_temperature_that_float32_does_not_hold_is_none(llm: LLM) -> None:
    greedy = llm.generate("Hi", SamplingParams(max_tokens=12, ignore_eos=True))[0].token_ids
    for temperature in (1e-320, 1e-40, 1e-30):
        params = SamplingParams(max_tokens=12, ignore_eos=True, temperature=temperature, seed=1)
        assert llm.generate("Hi", params)[0].token_ids == greedy


def test_any_number_of_tokens_may_be_asked_for(tiny_pair: Any) -> None:
    with LLM(tiny_pair.target, strategy="autoregressive", threads=1, dtype="float32", max_model_len=32) as llm:
        output = llm.generate("Hi", SamplingParams(max_tokens=10**400, ignore_eos=True))[0]
    assert len(output.prompt_ids) + len(output.token_ids) == 32


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"seed": 2**63}, r"seed 9223372036854775808 does not fit in 64 bits: give one from"),
        ({"stop_token_ids": [5, 259, -1]}, r"stop_token_ids \[259, -1\] are outside the vocabulary: .* 0 to 258"),
    ],
)
def test_numbers_that_the_engine_cannot_hold_are_refused_in_words(llm: LLM, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        llm.generate("Hi", SamplingParams(max_tokens=2, **fields))
    params = [PARAMS, SamplingParams(max_tokens=2, **fields)]
    with pytest.raises(ConfigError, match=r"prompt 1 \(of 2, counted from 0\): "):
        llm.generate(["Hi", "there"], params)
    assert llm.generate("Hi", PARAMS)[0].finish_reason == "length"


def test_stop_strings_need_a_tokenizer(tiny_pair: Any, tmp_path: Any) -> None:
    import shutil

    for name in ("config.json", "model.safetensors"):
        shutil.copy(f"{tiny_pair.target}/{name}", tmp_path / name)
    with (
        LLM(str(tmp_path), strategy="autoregressive", progress=False, threads=1, dtype="float32") as llm,
        pytest.raises(ConfigError, match="no tokenizer, so no stop string can be found: give stop_token_ids"),
    ):
        llm.generate([5, 6], SamplingParams(max_tokens=2, stop=["x"]))
