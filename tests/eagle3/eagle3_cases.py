"""Prompts and settings that the tests of the strategy share."""

from __future__ import annotations

from typing import Any

from machine_threads import THREADS

from ssd_lab import LLM, SamplingParams
from ssd_lab.models.loader import LoadedModel

PROMPTS = [
    [4, 10, 11, 12],
    [5, 20, 22, 24, 26, 28, 30, 32, 34, 36],
    [9],  # no feature to draft its first token from
    [6, 9, 12, 15, 18, 21],
    [5, 20, 22, 24, 26, 28, 30, 32, 35],  # parts from the second where a block of four or eight ends
    [4, 40],
]
LENGTH = 30
MODES: dict[str, dict[str, Any]] = {
    "sync": {"mode": "sync", "k": 4},
    "async jit": {"mode": "async", "k": 3, "f": 2},
    "async fast": {"mode": "async", "k": 3, "f": 1, "fallback": "fast"},
}
TREES: dict[str, dict[str, Any]] = {
    "widths": {"tree": {"kind": "fixed", "widths": (3, 2, 1)}},
    "paths": {"tree": {"kind": "fixed", "paths": ((0,), (1,), (0, 0), (1, 0), (1, 1), (1, 1, 0), (1, 1, 0, 0))}},
    "dynamic": {"tree": {"kind": "dynamic", "top_k": 3, "depth": 4, "num_nodes": 9}},
}
COMPONENTS: dict[str, dict[str, Any]] = {
    "C": {"mode": "async", "k": 3, "f": 2, "saguaro_c": 0.3},
    "n-gram": {"mode": "async", "k": 3, "f": 1, "fallback": {"kind": "fast", "source": "ngram"}},
    "random": {"mode": "async", "k": 3, "f": 1, "fallback": {"kind": "fast", "source": "random"}},
    "auto": {"mode": "async", "k": 3, "f": 1, "fallback": {"kind": "auto", "explore": 2, "revisit": 2}},
    "adaptive": {"mode": "async", "k": 4, "fan_out": {"kind": "adaptive", "budget": 9}},
    "async dynamic": {"mode": "async", "k": 5, "f": 2, "dynamic_lookahead": True, "saguaro_c": 0.5},
    "sync dynamic": {"mode": "sync", "k": 6, "dynamic_lookahead": True, "draft_temperature": 0.5},
}


def eagle(target: LoadedModel, head: str, mode: str = "sync", **fields: Any) -> LLM:
    """An engine on the head, for a context of 64 tokens."""
    options = {
        "progress": False,
        "threads": THREADS,
        "num_blocks": 400,
        **{**MODES, **TREES, **COMPONENTS}[mode],
        **fields,
    }
    return LLM(target, None, "eagle3", head=head, **options)


def params(temperature: float = 0.0, *, length: int = LENGTH, **fields: Any) -> list[SamplingParams]:
    """One for each prompt, with seeds of their own."""
    return [
        SamplingParams(max_tokens=length, temperature=temperature, seed=index, ignore_eos=True, **fields)
        for index in range(len(PROMPTS))
    ]


def autoregressive(target: LoadedModel, prompts: list[list[int]] = PROMPTS, length: int = LENGTH) -> list[list[int]]:
    """The greedy text, one request at a time."""
    with LLM(target, None, "autoregressive", max_batch=1, progress=False, threads=THREADS, num_blocks=400) as llm:
        outputs = llm.generate(prompts, SamplingParams(max_tokens=length, ignore_eos=True))
    return [output.token_ids for output in outputs]
