"""Strategies: where draft tokens come from. `ssd_lab.strategies()` maps each name to its config class."""

from __future__ import annotations

from ssd_lab.common.callable_module import make_callable
from ssd_lab.drafting.proposer import Proposer
from ssd_lab.strategies.base import Context, Draft, SequenceStrategy, StrategyConfig
from ssd_lab.strategies.registry import registry

register_strategy = registry.register

# the built-in strategies register themselves when imported
from ssd_lab.strategies import (  # noqa: E402
    async_tree,
    autoregressive,
    cascade,
    eagle3,
    fanout,
    prompt_lookup,
    suffix_tree,
    sync_chain,
    sync_tree,
)

make_callable(__name__, registry.all)

__all__ = [
    "Context",
    "Draft",
    "Proposer",
    "SequenceStrategy",
    "StrategyConfig",
    "async_tree",
    "autoregressive",
    "cascade",
    "eagle3",
    "fanout",
    "prompt_lookup",
    "register_strategy",
    "registry",
    "suffix_tree",
    "sync_chain",
    "sync_tree",
]
