"""Shapes of synchronous draft trees as settings: `fixed`, `optimal` for a budget, `dynamic` (EAGLE-2)."""

from __future__ import annotations

import functools
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ssd_lab.decoding.dynamic_tree import pool_size
from ssd_lab.decoding.random import MAX_SIBLINGS
from ssd_lab.decoding.topology import Topology, from_paths, from_widths, optimal
from ssd_lab.strategies.components.kinds import OpenKinds

MAX_NODES = 256
MAX_DEPTH = 32
_optimal = functools.lru_cache(maxsize=64)(optimal)  # a config of the same fields may be made thousands of times
Probability = Annotated[float, Field(ge=0, le=1)]


class TreeShape(BaseModel):
    """Base of shapes that are settled before anything is drafted: `topology` says the tree."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def topology(self) -> Topology:
        """The tree."""
        raise NotImplementedError(f"{type(self).__name__} must say its tree")

    @property
    def num_nodes(self) -> int:
        """Draft tokens verified in one round."""
        return self.topology.num_nodes

    @property
    def depth(self) -> int:
        """The most draft tokens that can be accepted, and the forwards that the draft needs."""
        return self.topology.depth

    @property
    def width(self) -> int:
        """The most children of a node."""
        return self.topology.width

    @model_validator(mode="after")
    def _within_limits(self) -> TreeShape:
        tree = self.topology  # raises ValueError for a shape that is none
        if tree.num_nodes > MAX_NODES or tree.width > MAX_SIBLINGS or tree.depth > MAX_DEPTH:
            raise ValueError(
                f"the tree has {tree.num_nodes} nodes, up to {tree.width} children a node and depth {tree.depth}; "
                f"allowed are {MAX_NODES}, {MAX_SIBLINGS} and {MAX_DEPTH}"
            )
        return self


class FixedTree(TreeShape):
    """So many children at each depth (`widths`), or nodes listed as paths of ranks (`paths`, as Medusa's choices)."""

    kind: Literal["fixed"] = "fixed"
    widths: tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        None, description="children of each node at depth 0, 1, ...: [4, 2, 1] has 4 + 8 + 8 nodes"
    )
    paths: tuple[tuple[int, ...], ...] | None = Field(
        None, description="nodes as ranks from the root: [[0], [1], [0, 0]] is two children, the first with a child"
    )

    @functools.cached_property
    def topology(self) -> Topology:
        """The tree. Raises ValueError if both or neither of `widths` and `paths` are given, or they make no tree."""
        if (self.widths is None) == (self.paths is None):
            raise ValueError("give either widths or paths")
        if self.widths is not None:
            _check_size(self.widths)
            return from_widths(self.widths)
        return from_paths(self.paths or ())


class OptimalTree(TreeShape):
    """The tree of `budget` nodes that keeps the most tokens on average (Sequoia, arXiv 2402.12374)."""

    kind: Literal["optimal"] = "optimal"
    budget: int = Field(12, ge=1, le=64, description="draft tokens verified in one round")
    acceptance: tuple[Probability, ...] = Field(
        (0.81, 0.09, 0.04, 0.02),
        min_length=1,
        max_length=MAX_SIBLINGS,
        description="probability that the child of each rank is the accepted one; as given, those of the bundled pair "
        "at temperature 0",
    )
    max_depth: int = Field(8, ge=1, le=MAX_DEPTH, description="deepest node; each level is one forward of the draft")

    @functools.cached_property
    def topology(self) -> Topology:
        """The tree. Raises ValueError if no tree of that size fits the other fields."""
        return _optimal(self.budget, self.acceptance, max_depth=self.max_depth)


class DynamicTree(BaseModel):
    """The draft's confidence shapes each round's tree (EAGLE-2, arXiv 2406.16858)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["dynamic"] = "dynamic"
    top_k: int = Field(10, ge=1, le=MAX_SIBLINGS, description="nodes expanded at each level, and children of each")
    depth: int = Field(7, ge=1, le=MAX_DEPTH, description="levels; each is one forward of the draft")
    num_nodes: int = Field(59, ge=1, le=MAX_NODES, description="best nodes kept, verified in one round")

    @property
    def width(self) -> int:
        """The most children of a node."""
        return self.top_k

    @model_validator(mode="after")
    def _enough_candidates(self) -> DynamicTree:
        candidates = pool_size(self.top_k, self.depth)
        if self.num_nodes > candidates:
            raise ValueError(
                f"num_nodes is {self.num_nodes}, and top_k = {self.top_k} with depth = {self.depth} makes {candidates} "
                "candidates: lower num_nodes, or raise one of the others"
            )
        return self


TREES = OpenKinds("tree shape", TreeShape, ("fixed", "optimal", "dynamic"))
TreeTopologyConfig = Annotated[FixedTree | OptimalTree | DynamicTree, Field(discriminator="kind"), TREES]
register_tree = TREES.register


def _check_size(widths: tuple[int, ...]) -> None:
    """Refuse a tree that is too large before it is built: it grows by the product of the widths."""
    nodes, level = 0, 1
    for depth, width in enumerate(widths):
        level *= width
        nodes += level
        if nodes > MAX_NODES:
            raise ValueError(f"widths {list(widths)} make more than {MAX_NODES} nodes by depth {depth + 1}")
