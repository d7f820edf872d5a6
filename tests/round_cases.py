"""Strategies of every kind, prompts and memories, for tests of what a round does to requests that come and go."""

from __future__ import annotations

from typing import Any

from end_to_end_cases import STRATEGIES

PROMPTS = [[1, 2, 3, 4], [60, 61, 62], [7, 8, 9, 10, 11, 12, 13], [100, 101], [5, 5, 5, 9, 9], [5, 5, 5, 9, 9, 9, 9]]

# these go by measured times, or by what other requests taught: their drafts, and so a seed's text, are not repeated
LEARNING: dict[str, dict[str, Any]] = {
    **{name: STRATEGIES[name] for name in ("async geometric, auto", "async dynamic", "sync dynamic")},
    "adaptive, fast": {
        "strategy": "async_tree",
        "k": 3,
        "fan_out": {"kind": "adaptive", "budget": 9},
        "fallback": "fast",
    },
}
REPEATING: dict[str, dict[str, Any]] = {
    **{name: fields for name, fields in STRATEGIES.items() if name not in LEARNING},
    "async lists, C, fast": {**STRATEGIES["async lists"], "saguaro_c": 0.3, "fallback": "fast"},
    "cascade async": {
        "strategy": "cascade",
        "first": {"strategy": "prompt_lookup", "k": 3},
        "second": {"strategy": "async_tree", "k": 3, "f": 2, "fallback": "fast"},
    },
    "cascade of two async": {
        "strategy": "cascade",
        "first": {"strategy": "async_tree", "k": 3, "f": 2, "fallback": "fast"},
        "second": {"strategy": "async_tree", "k": 4, "f": 2},
        "least": 3,
    },
}
EVERY = {**REPEATING, **LEARNING}

MEMORIES: dict[str, dict[str, Any]] = {
    "alone": {"max_batch": 1},
    "roomy": {"max_batch": 6},
    "tight": {"max_batch": 6, "num_blocks": 25, "block_size": 8},
    "tight, nothing shared, small chunks": {
        "max_batch": 6,
        "num_blocks": 31,
        "block_size": 4,
        "prefix_reuse": False,
        "max_prefill_tokens": 7,
        "max_model_len": 60,
    },
}
