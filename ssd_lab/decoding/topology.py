"""Fixed shapes of draft trees: chains, so many children at each depth, given paths, and the best for a budget."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Topology:
    """The shape of a draft tree: `parents[i]` of node i, -1 for the last committed token, level after level.

    Siblings stand next to each other in the order in which they are drawn and tried.
    """

    parents: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.parents:
            raise ValueError("a tree needs at least one node")
        for node, parent in enumerate(self.parents):
            if not -1 <= parent < node:
                raise ValueError(f"node {node} has parent {parent}; a parent must be -1 or an earlier node")
        order = list(zip(self.depths, self.parents, strict=True))
        if order != sorted(order):
            raise ValueError(
                f"parents {list(self.parents)} do not go level by level with siblings side by side: order the nodes "
                "by depth, then by parent"
            )

    @property
    def num_nodes(self) -> int:
        """Draft tokens in the tree."""
        return len(self.parents)

    @functools.cached_property
    def depths(self) -> tuple[int, ...]:
        """Of each node; the children of the root's place have depth 1."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(depths[parent] + 1 if parent >= 0 else 1)
        return tuple(depths)

    @functools.cached_property
    def ranks(self) -> tuple[int, ...]:
        """Place of each node among its siblings, from 0."""
        return tuple(node - self.parents.index(parent) for node, parent in enumerate(self.parents))

    @property
    def depth(self) -> int:
        """The most tokens that can be accepted."""
        return self.depths[-1]

    @property
    def width(self) -> int:
        """The most children of a node."""
        return max(self.ranks) + 1

    @functools.cached_property
    def levels(self) -> tuple[range, ...]:
        """The nodes of depth 1, 2, ...: each level is drafted in one forward."""
        firsts = [self.depths.index(depth) for depth in range(1, self.depth + 1)]
        return tuple(range(a, b) for a, b in zip(firsts, [*firsts[1:], self.num_nodes], strict=True))

    def parent_tensor(self, batch: int, device: torch.device | str = "cpu") -> torch.Tensor:
        """`parents` `[batch, nodes]` as verification takes them."""
        return torch.tensor(self.parents, device=device).expand(batch, -1)

    def expected_accepted(self, acceptance: Sequence[float]) -> float:
        """Draft tokens kept a round on average, if a child of rank r is the accepted one with probability
        `acceptance[r]` at every node (Sequoia, arXiv 2402.12374); ranks past the list never are.
        """
        reached: list[float] = []
        for parent, rank in zip(self.parents, self.ranks, strict=True):
            chance = acceptance[rank] if rank < len(acceptance) else 0.0
            reached.append(chance * (reached[parent] if parent >= 0 else 1.0))
        return sum(reached)


def chain(k: int) -> Topology:
    """k nodes, one after another."""
    return Topology(tuple(range(-1, k - 1)))


def from_widths(widths: Sequence[int]) -> Topology:
    """Each node of depth d has `widths[d]` children: `[4, 2, 1]` has 4 + 8 + 8 nodes."""
    if not widths or min(widths) < 1:
        raise ValueError(f"widths {list(widths)}: give the number of children at each depth, each at least 1")
    parents: list[int] = []
    level = [-1]
    for width in widths:
        first = len(parents)
        parents += [parent for parent in level for _ in range(width)]
        level = list(range(first, len(parents)))
    return Topology(tuple(parents))


def k_ary(arity: int, depth: int) -> Topology:
    """Every node down to `depth` has `arity` children."""
    return from_widths([arity] * depth)


def from_paths(paths: Sequence[Sequence[int]]) -> Topology:
    """Nodes as paths of ranks from the root, as Medusa lists them (arXiv 2401.10774): `[[0], [1], [0, 0]]` is the
    likeliest token, the second likeliest, and what most likely follows the first.

    Raises ValueError for a path whose beginning, or whose earlier sibling, is missing, and for one that comes twice.
    """
    wanted = [tuple(path) for path in paths]
    known = set(wanted)
    if len(known) < len(wanted):
        twice = next(path for path in wanted if wanted.count(path) > 1)
        raise ValueError(f"path {list(twice)} comes twice")
    for path in wanted:
        if not path or min(path) < 0:
            raise ValueError(f"path {list(path)}: a path is one or more ranks, each 0 or more")
        if len(path) > 1 and path[:-1] not in known:
            raise ValueError(f"path {list(path)} is given and {list(path[:-1])}, where it begins, is not")
        if path[-1] > 0 and (*path[:-1], path[-1] - 1) not in known:
            raise ValueError(f"path {list(path)} is given and its sibling {[*path[:-1], path[-1] - 1]} is not")
    ordered = sorted(wanted, key=lambda path: (len(path), path))
    place = {path: node for node, path in enumerate(ordered)}
    return Topology(tuple(place[path[:-1]] if len(path) > 1 else -1 for path in ordered))


def optimal(budget: int, acceptance: Sequence[float], *, max_depth: int) -> Topology:
    """The tree of `budget` nodes, at most `max_depth` deep, that keeps the most draft tokens on average.

    Dynamic programming over (nodes, depth left, rank), after Sequoia (arXiv 2402.12374). Unlike taking the
    likeliest nodes one by one it needs no falling `acceptance`: a good third child may pay for a poor second one.

    Args: acceptance: for each rank, the probability that the child of that rank is the accepted one. Raises ValueError
    if no tree of that size fits.
    """
    if not acceptance or not all(0 <= chance <= 1 for chance in acceptance) or sum(acceptance) > 1 + 1e-9:
        raise ValueError(f"acceptance {list(acceptance)}: probabilities by rank, with a sum of at most 1")
    ranks = len(acceptance)
    if budget < 1 or max_depth < 1 or budget > sum(ranks**depth for depth in range(1, max_depth + 1)):
        raise ValueError(f"no tree of {budget} nodes has at most {ranks} children a node and depth {max_depth}")
    nothing = (float("-inf"), 0)

    @functools.cache
    def best(nodes: int, depth: int, rank: int) -> tuple[float, int]:
        """Most tokens kept by `nodes` nodes spread over children `rank`, `rank + 1`, ... and what is below them; with
        it the size of the first child's part.
        """
        if nodes == 0:
            return 0.0, 0
        if depth == 0 or rank == ranks:
            return nothing
        choices = [
            (acceptance[rank] * (1 + best(size - 1, depth - 1, 0)[0]) + best(nodes - size, depth, rank + 1)[0], size)
            for size in range(1, nodes + 1)
            if best(size - 1, depth - 1, 0) != nothing and best(nodes - size, depth, rank + 1) != nothing
        ]
        return max(choices, default=nothing, key=lambda choice: (choice[0], -choice[1]))

    paths: list[tuple[int, ...]] = []

    def unfold(nodes: int, depth: int, at: tuple[int, ...]) -> None:
        rank = 0
        while nodes > 0:
            size = best(nodes, depth, rank)[1]
            paths.append((*at, rank))
            unfold(size - 1, depth - 1, (*at, rank))
            nodes, rank = nodes - size, rank + 1

    unfold(budget, max_depth, ())
    return from_paths(paths)
