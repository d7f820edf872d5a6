"""Bad input gets a clear error; nothing finished is lost, nothing stays taken."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from end_to_end_cases import PROMPTS, STRATEGIES
from safetensors.torch import load_file, save_file

import ssd_lab
from ssd_lab import SamplingParams
from ssd_lab.errors import (
    CacheCapacityError,
    ConfigError,
    NonFiniteLogitsError,
    PromptError,
    ProposerError,
    UnknownStrategyError,
)
from ssd_lab.strategies import Context, Draft, SequenceStrategy

SHORT = SamplingParams(max_tokens=8)


def test_an_unknown_strategy_names_the_nearest(make_llm) -> None:
    with pytest.raises(UnknownStrategyError, match="did you mean 'async_tree'"):
        make_llm(strategy="asink_tree")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"strategy": "sync_chain", "k": 0}, "k=0: Input should be greater than or equal to 1"),
        ({"strategy": "async_tree", "k": 2, "f": 0}, "f=0"),
        ({"strategy": "async_tree", "k": 2, "branches": 3}, "unknown field 'branches'.*its fields are k, f"),
        ({"strategy": "sync_chain", "kk": 3}, "did you mean 'k'"),
        (
            {"strategy": "async_tree", "k": 3, "fan_out": {"kind": "explicit", "hit": [1, 2]}},
            r"has 2 numbers; k = 3 needs k \+ 1 = 4",
        ),
        (
            {"strategy": "async_tree", "k": 1, "fan_out": {"kind": "explicit", "hit": [1, 2], "miss": [1, 1]}},
            "hit sums to 3 and miss to 2",
        ),
        ({"strategy": "async_tree", "f": 2, "fan_out": {"kind": "uniform", "f": 2}}, "give one of them"),
        ({"strategy": "async_tree", "fallback": "slow"}, "fallback"),
    ],
)
def test_a_wrong_field_says_what_is_allowed(make_llm, fields: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_llm(**fields)


@pytest.mark.parametrize("fields", [{"temperature": -1}, {"top_p": 0}, {"max_tokens": 0}, {"stop": [""]}])
def test_wrong_sampling_settings_are_refused(tiny_pair, fields: dict) -> None:
    with pytest.raises(ConfigError):
        ssd_lab.run("hi", strategy="autoregressive", target=tiny_pair.target, progress=False, **fields)


@pytest.mark.parametrize("prompt", ["", "   ", []])
def test_an_empty_prompt_is_refused(make_llm, prompt) -> None:
    with pytest.raises(PromptError, match="empty"):
        make_llm(strategy="autoregressive").generate([prompt], SHORT)


def test_a_prompt_longer_than_the_context_is_refused(make_llm) -> None:
    with pytest.raises(PromptError, match="the context holds 512"):
        make_llm(strategy="autoregressive").generate("x" * 600, SHORT)


def test_ids_outside_the_vocabulary_are_refused(make_llm) -> None:
    with pytest.raises(PromptError, match=r"\[700\] are outside the vocabulary of 259"):
        make_llm(strategy="autoregressive").generate([[1, 700]], SHORT)


def test_a_request_for_more_blocks_than_exist_is_refused(make_llm) -> None:
    llm = make_llm(strategy="sync_chain", k=4, num_blocks=4, block_size=8)
    with pytest.raises(CacheCapacityError, match="raise num_blocks, or lower max_tokens"):
        llm.generate("hello", SamplingParams(max_tokens=100))


def test_a_strategy_that_needs_a_draft_says_so(target) -> None:
    with pytest.raises(ConfigError, match="needs a draft model"):
        ssd_lab.LLM(target, None, "sync_chain", progress=False)


def test_nan_logits_are_an_error_that_names_the_request(tiny_pair, tmp_path: Path, make_llm) -> None:
    import shutil

    folder = Path(shutil.copytree(tiny_pair.target, tmp_path / "nan"))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    llm = make_llm(strategy="autoregressive", target=str(folder), dtype="float32")
    with pytest.raises(NonFiniteLogitsError, match=r"request 0: .* NaN or infinity"):
        llm.generate(PROMPTS[:2], SHORT)


MISBEHAVIOUR: dict[str, object] = {
    "raises": "out of ideas",
    "too many": [1, 2, 3, 4],
    "outside": [999],
    "no ints": [1.5],
    "no list": 7,
    "wrong shape": Draft([1, 2], torch.ones(2, 5) / 5),
    "wrong sum": Draft([1], torch.ones(1, 259)),
    "nan": Draft([1], torch.full((1, 259), float("nan"))),
}


class Scripted(SequenceStrategy):
    """Misbehaves after two good rounds."""

    strategy_name: ClassVar[str] = "scripted"
    misbehaviour: str

    @property
    def lookahead(self) -> int:
        return 3

    def draft(self, context: Context) -> Draft | Sequence[int]:
        rounds = context.memory["rounds"] = context.memory.get("rounds", 0) + 1
        if rounds < 3:
            return [5]
        returned = MISBEHAVIOUR[self.misbehaviour]
        if isinstance(returned, str):
            raise RuntimeError(returned)
        return returned


@pytest.mark.parametrize(
    ("misbehaviour", "message"),
    [
        ("raises", r"raised RuntimeError in test_errors\.py, line \d+: out of ideas"),
        ("too many", "returned 4 tokens; its lookahead is 3"),
        ("outside", "token ids are ints from 0 to 258"),
        ("no ints", "token ids are ints"),
        ("no list", "returned int; return a Draft or a list"),
        ("wrong shape", r"probs of shape \[2, 5\]; \[tokens, vocab\] is \[2, 259\]"),
        ("wrong sum", "do not sum to 1"),
        ("nan", "not finite"),
    ],
)
def test_a_custom_strategy_that_misbehaves_is_an_error_and_finished_outputs_survive(
    make_llm, misbehaviour: str, message: str
) -> None:
    llm = make_llm(strategy=Scripted(misbehaviour=misbehaviour), max_batch=2)
    params = [SamplingParams(max_tokens=1, ignore_eos=True), SamplingParams(max_tokens=20, ignore_eos=True)]
    with pytest.raises(ProposerError, match=message) as caught:
        llm.generate(PROMPTS[:2], params)
    first, second = caught.value.outputs
    assert first.finish_reason == "length" and len(first.token_ids) == 1
    assert second.finish_reason == "cancelled" and len(second.token_ids) >= 1
    assert llm.num_free_blocks == llm._engine._blocks.num_usable


class Interrupting(SequenceStrategy):
    """Ctrl-C in the third round of a request."""

    strategy_name: ClassVar[str] = "interrupting"

    @property
    def lookahead(self) -> int:
        return 1

    def draft(self, context: Context) -> Sequence[int]:
        rounds = context.memory["rounds"] = context.memory.get("rounds", 0) + 1
        if rounds == 3:
            raise KeyboardInterrupt
        return []


def test_ctrl_c_returns_what_there_is_and_frees_everything(make_llm) -> None:
    llm = make_llm(strategy=Interrupting(), max_batch=2)
    params = [SamplingParams(max_tokens=n, ignore_eos=True) for n in (1, 20, 20)]
    outputs = llm.generate(PROMPTS[:3], params)
    assert [output.finish_reason for output in outputs] == ["length", "cancelled", "cancelled"]
    assert len(outputs[0].token_ids) == 1
    assert llm.num_free_blocks == llm._engine._blocks.num_usable
    assert make_llm(strategy="autoregressive").generate("still works", SHORT)[0].token_ids


@pytest.mark.parametrize("link", ["process"])
def test_a_draft_that_dies_leaves_the_run_finishing_with_a_warning(make_llm, link: str) -> None:
    expected = make_llm(strategy="autoregressive").generate(PROMPTS, SamplingParams(max_tokens=30))
    llm = make_llm(**STRATEGIES["async jit"], draft_link=link, timeout_s=30)
    llm.generate(PROMPTS[:1], SHORT)
    os.kill(llm._engine.proposer.link.process_id, 9)
    with pytest.warns(RuntimeWarning, match=re.escape("the run goes on without a draft")):
        result = llm.run(PROMPTS, SamplingParams(max_tokens=30))
    assert [o.token_ids for o in result.outputs] == [o.token_ids for o in expected]
    assert "degraded" in result.trace.meta
