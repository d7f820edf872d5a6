"""Token trees in synchronous drafting, whatever drafts: how children are chosen, and what the worker is told."""

from __future__ import annotations

from typing import Literal

from ssd_lab.decoding.tree_draws import Draws
from ssd_lab.drafting.tree_worker import TreePlan
from ssd_lab.phases.grow_dynamic_tree import DynamicShape
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
