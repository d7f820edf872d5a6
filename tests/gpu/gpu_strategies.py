"""Strategies as the tests on a GPU run them, by a name that fits on a command line; all with the bundled models."""

from __future__ import annotations

from typing import Any

from ssd_lab import LLM, demo

STRATEGIES: dict[str, dict[str, Any]] = {
    "autoregressive": {},
    "sync_chain": {"k": 4},
    "async_tree": {"k": 4, "f": 3, "fallback": "jit"},
    "async_tree-f1": {"strategy": "async_tree", "k": 4, "f": 1},
    "async_tree-fast": {"strategy": "async_tree", "k": 4, "f": 2, "fallback": "fast"},
    "async_tree-saguaro": {"strategy": "async_tree", "k": 4, "f": 2, "saguaro_c": 0.5},
    "sync_tree": {},
    "sync_tree-dynamic": {
        "strategy": "sync_tree", "tree": {"kind": "dynamic", "top_k": 4, "depth": 4, "num_nodes": 12},
    },
    "prompt_lookup": {},
    "suffix_tree": {},
    "cascade": {},
    "eagle3": {"mode": "sync"},
    "eagle3-tree": {"strategy": "eagle3", "mode": "sync", "tree": {"kind": "fixed", "widths": (3, 2, 1)}},
    "eagle3-async": {"strategy": "eagle3", "mode": "async"},
}  # fmt: skip


def fields_of(name: str) -> dict[str, Any]:
    """The strategy's name and its fields."""
    return {"strategy": name, **STRATEGIES[name]}


def opened(name: str, **engine: Any) -> LLM:
    """The bundled pair with this strategy on the GPU."""
    draft = None if name.startswith("eagle3") else str(demo.DRAFT)
    return LLM(str(demo.TARGET), draft, device="cuda", progress=False, **{**fields_of(name), **engine})
