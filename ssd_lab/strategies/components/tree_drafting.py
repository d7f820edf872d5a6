"""Token trees in synchronous drafting, whatever drafts: how children are chosen, and what the worker is told."""

from __future__ import annotations

from typing import Literal

from ssd_lab.decoding.tree_draws import Draws
from ssd_lab.drafting.tree_worker import TreePlan
from ssd_lab.errors import ConfigError
from ssd_lab.phases.grow_dynamic_tree import DynamicShape
from ssd_lab.simulate.scenario import Scenario
from ssd_lab.strategies.components.tree_shapes import DynamicTree, TreeTopologyConfig

DrawsField = Literal["auto", "without_replacement", "top"]
DRAWS_DESCRIPTION = (
    "children at temperature > 0: drawn from the draft's distribution, or its likeliest tokens as certain guesses; "
    "auto draws them unless the tree is dynamic"
)


def drawn(tree: TreeTopologyConfig, draws: DrawsField) -> Draws:
    """How children are chosen at temperature > 0. Raises ValueError where the text would not follow the target."""
    if draws == "auto":
        return "top" if isinstance(tree, DynamicTree) else "without_replacement"
    if isinstance(tree, DynamicTree) and draws == "without_replacement":
        raise ValueError(
            "a dynamic tree keeps nodes by their probability, so what it keeps no longer has the distribution it "
            "was drawn from: take draws='top', or a fixed or optimal tree"
        )
    return draws


def tree_plan(tree: TreeTopologyConfig, draws: DrawsField, *, record: bool) -> TreePlan:
    """What a worker of these fields does each round."""
    shape = DynamicShape(tree.top_k, tree.depth, tree.num_nodes) if isinstance(tree, DynamicTree) else tree.topology
    return TreePlan(shape, drawn=drawn(tree, draws) == "without_replacement", record=record)


def tree_scenario(strategy: str, tree: TreeTopologyConfig) -> Scenario:
    """How the simulator draws rounds of this tree. Raises ConfigError unless it is a comb: siblings beside the draft's
    likeliest path, none of them with children.
    """
    topology = None if isinstance(tree, DynamicTree) else tree.topology
    if topology is None or any(parent >= 0 and topology.ranks[parent] for parent in topology.parents):
        raise ConfigError(
            f"the simulator draws trees whose nodes all hang on the likeliest path, such as paths [[0], [1], [0, 0]]; "
            f"{strategy} was given another one"
        )
    return Scenario(strategy, topology.depth, widths=tuple(map(len, topology.levels)), drafting="tree")
