"""Prompts and strategies that the end-to-end tests share."""

from __future__ import annotations

PROMPTS = [
    "Hello there",
    "The quick brown fox jumps over the lazy dog, and then it sleeps.",
    "def add(a, b):",
    "a",
    "Once upon a time there was a very small model that knew nothing at all but said it well",
    "1 + 2 =",
]

STRATEGIES: dict[str, dict] = {
    "autoregressive": {"strategy": "autoregressive"},
    "sync k=1": {"strategy": "sync_chain", "k": 1},
    "sync k=4": {"strategy": "sync_chain", "k": 4},
    "async jit": {"strategy": "async_tree", "k": 3, "f": 2},
    "async fast": {"strategy": "async_tree", "k": 3, "f": 3, "fallback": "fast"},
    "async lists": {
        "strategy": "async_tree",
        "k": 3,
        "fan_out": {"kind": "explicit", "hit": [3, 1, 0, 2], "miss": [1, 1, 2, 2]},
    },
    "async by confidence": {"strategy": "async_tree", "k": 4, "fan_out": {"kind": "adaptive", "budget": 9}},
    "async geometric, auto": {
        "strategy": "async_tree",
        "k": 3,
        "fan_out": {"kind": "geometric", "budget": 8},
        "fallback": {"kind": "auto", "explore": 2, "revisit": 2},
        "saguaro_c": 0.5,
    },
    "async n-gram": {"strategy": "async_tree", "k": 3, "f": 1, "fallback": {"kind": "fast", "source": "ngram"}},
    "async random": {"strategy": "async_tree", "k": 3, "f": 1, "fallback": {"kind": "fast", "source": "random"}},
    "async dynamic": {
        "strategy": "async_tree",
        "k": 5,
        "fan_out": {"kind": "adaptive", "budget": 9, "by_confidence": False},
        "dynamic_lookahead": True,
    },
    "sync dynamic": {"strategy": "sync_chain", "k": 6, "dynamic_lookahead": True, "draft_temperature": 0.5},
    "prompt lookup": {"strategy": "prompt_lookup", "k": 5},
    "suffix tree": {"strategy": "suffix_tree", "k": 8},
    "tree fixed": {"strategy": "sync_tree", "tree": {"kind": "fixed", "widths": [3, 2, 1]}},
    "tree top": {"strategy": "sync_tree", "tree": {"kind": "optimal", "budget": 9}, "draws": "top"},
    "tree dynamic": {"strategy": "sync_tree", "tree": {"kind": "dynamic", "top_k": 3, "depth": 4, "num_nodes": 10}},
    "cascade chain": {"strategy": "cascade", "least": 2},
    "cascade tree": {
        "strategy": "cascade",
        "first": {"strategy": "suffix_tree", "k": 9},
        "second": {"strategy": "sync_tree", "tree": {"kind": "fixed", "widths": [2, 2]}},
    },
}
