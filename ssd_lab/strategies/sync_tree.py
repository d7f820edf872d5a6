"""Synchronous tree speculation: the draft guesses a tree of continuations, the target verifies all of them at once."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from ssd_lab.decoding.tree_draws import Draws
from ssd_lab.engine.phases.grow_dynamic_tree import DynamicShape
from ssd_lab.engine.proposer import Proposer
from ssd_lab.engine.resources import Resources
from ssd_lab.engine.step_sizes import StepSizes
from ssd_lab.engine.tree_worker import TreePlan
from ssd_lab.strategies.base import StrategyConfig
from ssd_lab.strategies.registry import registry
from ssd_lab.strategies.tree_shapes import DynamicTree, FixedTree, TreeShape


@registry.register
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
        """The longest path."""
        return self.tree.depth

    @property
    def reserved_positions(self) -> int:
        """All nodes: each takes a place in the target's cache while it is verified, and in the draft's."""
        return self._plan(record=False).reserved_positions

    @property
    def step_sizes(self) -> StepSizes:
        """All nodes at once in the target, about as many distributions from the draft."""
        return StepSizes(self.tree.num_nodes, chain=self.tree.num_nodes)

    def build(self, resources: Resources) -> Proposer:
        """A draft worker in the engine's own thread."""
        return resources.open_worker(self._plan(record=resources.config.record), link="inline")

    def _plan(self, *, record: bool) -> TreePlan:
        tree = self.tree
        shape = DynamicShape(tree.top_k, tree.depth, tree.num_nodes) if isinstance(tree, DynamicTree) else tree.topology
        return TreePlan(shape, drawn=self.drawn == "without_replacement", record=record)
