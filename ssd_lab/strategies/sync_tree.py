"""Synchronous tree speculation: the draft guesses a tree of continuations, the target verifies all of them at once."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from ssd_lab.decoding.tree_draws import Draws
from ssd_lab.drafting.proposer import Proposer
from ssd_lab.drafting.resources import Resources
from ssd_lab.simulate.scenario import Scenario
from ssd_lab.strategies.base import StrategyConfig
from ssd_lab.strategies.components.tree_drafting import DRAWS_DESCRIPTION, DrawsField, drawn, tree_plan, tree_scenario
from ssd_lab.strategies.components.tree_shapes import FixedTree, TreeTopologyConfig
from ssd_lab.strategies.registry import registry
from ssd_lab.strategies.step_sizes import StepSizes


@registry.register
class SyncTree(StrategyConfig):
    """A draft model guesses a tree while the target waits; the target keeps the best path through it."""

    strategy_name: ClassVar[str] = "sync_tree"
    needs_draft: ClassVar[bool] = True

    tree: TreeTopologyConfig = Field(
        FixedTree(widths=(2, 2, 1, 1)),
        description="the shape: fixed (widths or paths), optimal (for a budget) or dynamic (EAGLE-2)",
    )
    draws: DrawsField = Field("auto", description=DRAWS_DESCRIPTION)

    @model_validator(mode="after")
    def _exact(self) -> SyncTree:
        drawn(self.tree, self.draws)
        return self

    @property
    def drawn(self) -> Draws:
        """How children are chosen at temperature > 0."""
        return drawn(self.tree, self.draws)

    @property
    def lookahead(self) -> int:
        """The longest path."""
        return self.tree.depth

    @property
    def reserved_positions(self) -> int:
        """All nodes: each takes a place in the target's cache while it is verified, and in the draft's."""
        return tree_plan(self.tree, self.draws, record=False).reserved_positions

    @property
    def step_sizes(self) -> StepSizes:
        """All nodes at once in the target, about as many distributions from the draft."""
        return StepSizes(self.tree.num_nodes, chain=self.tree.num_nodes)

    @property
    def scenario(self) -> Scenario:
        """Its nodes by depth, if they are a comb."""
        return tree_scenario(self.strategy_name, self.tree)

    def build(self, resources: Resources) -> Proposer:
        """A draft worker in the engine's own thread, which needs to know of no outcome but where the device left it."""
        plan = tree_plan(self.tree, self.draws, record=resources.config.record)
        return resources.open_worker(plan, link="inline", needs_outcomes=False)
