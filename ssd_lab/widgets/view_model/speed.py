"""The speed explorer's settings, and the closed forms over them (static/closed_form.js has the same for a page)."""

from __future__ import annotations

import math
from typing import Any

from ssd_lab.simulate.closed_form import expected_tokens, speedup_async_batch, speedup_sync

DEFAULTS: dict[str, Any] = {
    "verify_ms": 11.5,  # times as the reference's authors give them for 70B / 1B on H100 (arXiv 2603.03251)
    "draft_step_ms": 2.5,
    "branch_ms": 0.02,  # not theirs: so much that the number of branches is felt
    "acceptance": 0.8,
    "hit_rate": 0.85,
    "k": 4,
    "fan_out": 3,
    "batch": 1,
    "draft_gpus": 1,
    "fallback": "jit",
    "fast_acceptance": 0.2,
}


def tree_share(settings: dict[str, Any]) -> float:
    """Branches on the fullest draft GPU over branches in all."""
    branches = settings["batch"] * settings["fan_out"] * (settings["k"] + 1)
    return math.ceil(branches / settings["draft_gpus"]) / branches


def closed_form_speeds(settings: dict[str, Any]) -> dict[str, float]:
    """Speed-ups over autoregressive decoding: `sync`, and `async` by Corollary 16 of arXiv 2603.03251."""
    k, batch = settings["k"], settings["batch"]
    branches = batch * settings["fan_out"] * (k + 1) * tree_share(settings)
    tree = k * (settings["draft_step_ms"] + settings["branch_ms"] * branches) / settings["verify_ms"]
    chain = k * (settings["draft_step_ms"] + settings["branch_ms"] * batch) / settings["verify_ms"]
    tokens = expected_tokens(settings["acceptance"], k)
    fast = settings["fallback"] == "fast"
    ahead = speedup_async_batch(
        batch=batch,
        hit_rate=settings["hit_rate"],
        tokens_hit=tokens,
        tokens_miss=expected_tokens(settings["fast_acceptance"], k) if fast else tokens,
        draft_time=tree,
        fallback_time=0.0 if fast else chain,
    )
    return {"sync": speedup_sync(tokens, chain), "async": ahead}
