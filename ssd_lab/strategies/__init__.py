"""Strategies: where draft tokens come from. `ssd_lab.strategies()` maps each name to its config class."""

from __future__ import annotations

from ssd_lab.common.callable_module import make_callable
from ssd_lab.drafting.composition import propose_some, replace_rows
from ssd_lab.drafting.proposer import Proposer
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.strategies.base import StrategyConfig
from ssd_lab.strategies.components.fallback import FallbackConfig, register_fallback
from ssd_lab.strategies.components.fan_out import Schedule, register_schedule
from ssd_lab.strategies.components.nested import NestedStrategy
from ssd_lab.strategies.components.tree_shapes import TreeShape, register_tree
from ssd_lab.strategies.context import Context, Draft
from ssd_lab.strategies.registry import registry
from ssd_lab.strategies.sequence_strategy import SequenceStrategy
from ssd_lab.strategies.wrapper import WrapperStrategy

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
    "FallbackConfig",
    "NestedStrategy",
    "Proposal",
    "Proposer",
    "Schedule",
    "SequenceStrategy",
    "StrategyConfig",
    "TreeShape",
    "WrapperStrategy",
    "async_tree",
    "autoregressive",
    "cascade",
    "eagle3",
    "fanout",
    "prompt_lookup",
    "propose_some",
    "register_fallback",
    "register_schedule",
    "register_strategy",
    "register_tree",
    "registry",
    "replace_rows",
    "suffix_tree",
    "sync_chain",
    "sync_tree",
]
