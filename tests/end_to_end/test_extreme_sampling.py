"""Settings so extreme that one token is left give the greedy text, in every strategy."""

from __future__ import annotations

from typing import Any

import pytest

from ssd_lab import LLM, SamplingParams
from ssd_lab.models.loader import load_model

STRATEGIES: dict[str, dict[str, Any]] = {
    "autoregressive": {"strategy": "autoregressive"},
    "sync_chain": {"strategy": "sync_chain", "k": 3},
    "a draft of its own temperature": {"strategy": "sync_chain", "k": 3, "draft_temperature": 1e-46},
    "sync_tree": {"strategy": "sync_tree"},
    "async_tree": {"strategy": "async_tree", "k": 3, "f": 2, "draft_link": "inline"},
    "async_tree by confidence": {
        "strategy": "async_tree", "k": 3, "fan_out": {"kind": "adaptive", "budget": 8}, "draft_link": "inline",
    },
}  # fmt: skip
NARROW = [{"temperature": t} for t in (1e-300, 1e-46, 1e-45, 1e-38, 1e-30)]
NARROW += [{"temperature": 1.0, "top_p": p} for p in (1e-300, 1e-46, 1e-45, 1e-30)]
NARROW += [{"temperature": 1.0, "min_p": 1.0}, {"temperature": 1e-46, "top_p": 1e-46, "min_p": 1.0, "top_k": 1}]


@pytest.mark.quick("a draft of its own temperature", "sync_tree", "async_tree")
@pytest.mark.parametrize("name", STRATEGIES)
def test_where_one_token_is_left_the_text_is_the_greedy_one(tiny_pair, name: str) -> None:
    target, draft = (load_model(place, dtype="float32") for place in (tiny_pair.target, tiny_pair.draft))
    with LLM(target, draft, **STRATEGIES[name], threads=1, progress=False) as llm:
        greedy = llm.generate("Hi there", SamplingParams(max_tokens=12, ignore_eos=True))[0].token_ids
        each = [SamplingParams(max_tokens=12, ignore_eos=True, seed=1, **settings) for settings in NARROW]
        outputs = llm.generate(["Hi there"] * len(each), each)
    assert [output.token_ids for output in outputs] == [greedy] * len(each)
