"""async_tree's fields: what they accept, and what they do on the bundled pair."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ssd_lab import LLM, SamplingParams, demo
from ssd_lab.common.parsing import parse_strategy
from ssd_lab.errors import ConfigError
from ssd_lab.strategies import registry
from ssd_lab.strategies.components.fallback import Auto, Fast, Jit
from ssd_lab.strategies.fanout import Adaptive, Geometric

PROMPTS = ["Write a story about a cat.", "What is 3 times 14?", "def add(a, b):", "List three colours.",
           "Why is the sky blue?", "Say hello in French."]  # fmt: skip


def config(text: str) -> Any:
    own = parse_strategy(text)
    return registry.config(own.pop("strategy"), own)


def test_fields_are_given_as_words_on_a_command_line():
    made = config("async_tree fan_out.kind=geometric fan_out.budget=16 saguaro_c=0.5 fallback=auto")
    assert made.fan_out == Geometric(budget=16) and made.saguaro_c == 0.5 and made.fallback == Auto()
    assert config("async_tree fallback.kind=fast fallback.source=ngram").fallback == Fast(source="ngram")
    assert config("async_tree fan_out.kind=adaptive fan_out.budget=9").fan_out == Adaptive(budget=9)
    assert config("async_tree").fallback == Jit()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("async_tree f=2 fan_out.kind=uniform", "both say the fan-out"),
        ("async_tree k=2 fan_out.kind=explicit 'fan_out.hit=[1,2]'", "the fan-out list for hit rounds has 2 numbers"),
        ("async_tree k=1 fan_out.kind=explicit 'fan_out.hit=[1,2]' dynamic_lookahead=true", "fit one k"),
        ("async_tree saguaro_c=1.5", "saguaro_c"),
        ("async_tree fallback=slow", "fallback"),
        ("async_tree draft_temperature=-1", "draft_temperature"),
        ("async_tree fan_out.kind=adaptive fan_out.budget=8 fan_out.prior.acceptance=0.5", "by_confidence"),
    ],
)
def test_what_means_nothing_is_refused_in_words(text: str, words: str):
    with pytest.raises(ConfigError, match=words):
        config(text)


@pytest.mark.parametrize("name", ["async_tree", "sync_chain"])
def test_fields_survive_json_and_their_schema_explains_them(name: str):
    made = config(name)
    assert registry.config(name, json.loads(made.model_dump_json())) == made
    properties = type(made).model_json_schema()["properties"]
    assert all(field.get("description") for field in properties.values())


def run(temperature: float, **fields: Any) -> Any:
    params = [
        SamplingParams(max_tokens=64, temperature=temperature, seed=i, ignore_eos=True) for i in range(len(PROMPTS))
    ]
    options = {"progress": False, "threads": 1, "draft_link": "inline", "max_batch": 6, "k": 4, **fields}
    with LLM(str(demo.TARGET), str(demo.DRAFT), "async_tree", **options) as llm:
        return llm.run(PROMPTS, params).metrics


@pytest.mark.full
def test_saguaro_sampling_trades_acceptance_for_hits():
    plain, modified = run(1.0, f=3), run(1.0, f=3, saguaro_c=0.05)  # by 0.07 and 0.11 at least, of three seeds
    assert modified.cache_hit_rate > plain.cache_hit_rate + 0.03
    assert modified.acceptance_rate < plain.acceptance_rate - 0.03


@pytest.mark.full
def test_branches_spent_by_confidence_hit_more_often():
    uniform, confident = run(1.0, f=2), run(1.0, fan_out={"kind": "adaptive", "budget": 10})
    assert confident.tokens_per_round == uniform.tokens_per_round  # the same text, the same rounds
    assert confident.cache_hit_rate > uniform.cache_hit_rate + 0.02
    for metrics in (uniform, confident):
        assert metrics.predicted_cache_hit_rate == pytest.approx(metrics.cache_hit_rate, abs=0.2)
