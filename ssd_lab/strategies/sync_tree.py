"""Synchronous tree speculation: the draft guesses a tree of continuations, the target verifies all of them at once."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from ssd_lab.decoding.tree_draws import Draws
from ssd_lab.strategies.base import StrategyConfig
from ssd_lab.strategies.tree_shapes import DynamicTree, FixedTree, TreeShape


class SyncTree(StrategyConfig):
    """A draft model guesses a tree while the target waits; the target keeps the best path through it."""

    strategy_name: ClassVar[str] = "sync_tree"
    needs_draft: ClassVar[bool] = True

    tree: TreeShape = Field(
        FixedTree(widths=(2, 2, 1, 1)),
        description="the shape: fixed (widths or paths), optimal (for a budget) or dynamic (EAGLE-2)",
    )
    draws: Literal["auto", "without_replacement", "top"] = Field(
        "auto",
        description="children at temperature > 0: drawn from the draft's distribution, or its likeliest tokens as "
        "certain guesses; auto draws them unless the tree is dynamic",
    )

    @model_validator(mode="after")
    def _exact(self) -> SyncTree:
        if isinstance(self.tree, DynamicTree) and self.draws == "without_replacement":
            raise ValueError(
                "a dynamic tree keeps nodes by their probability, so what it keeps no longer has the distribution it "
                "was drawn from: take draws='top', or a fixed or optimal tree"
            )
        return self

    @property
    def drawn(self) -> Draws:
        """How children are chosen at temperature > 0."""
        if self.draws == "auto":
            return "top" if isinstance(self.tree, DynamicTree) else "without_replacement"
        return self.draws

    @property
    def lookahead(self) -> int:
        """All nodes: each takes a place in the target's cache while it is verified."""
        return self.tree.num_nodes
