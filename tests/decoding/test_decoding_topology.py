"""Fixed shapes of draft trees, and the best one for a budget."""

from __future__ import annotations

import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd_lab.decoding.topology import Topology, chain, from_paths, from_widths, k_ary, optimal


def test_shapes_by_hand() -> None:
    assert chain(3).parents == (-1, 0, 1)
    assert from_widths([2, 2, 1]).parents == (-1, -1, 0, 0, 1, 1, 2, 3, 4, 5)
    assert k_ary(2, 2).parents == (-1, -1, 0, 0, 1, 1)
    assert from_paths([[0, 0], [1], [0], [0, 1], [1, 0], [0, 1, 0]]).parents == (-1, -1, 0, 0, 1, 3)


def test_what_is_known_of_a_shape() -> None:
    tree = from_paths([[0], [1], [2], [0, 0], [0, 1], [2, 0], [0, 1, 0]])
    assert tree.num_nodes == 7
    assert tree.depths == (1, 1, 1, 2, 2, 2, 3)
    assert tree.ranks == (0, 1, 2, 0, 1, 0, 0)
    assert tree.levels == (range(3), range(3, 6), range(6, 7))
    assert (tree.depth, tree.width) == (3, 3)
    assert tree.parent_tensor(2).tolist() == [list(tree.parents)] * 2
    assert tree.expected_accepted([0.5, 0.2]) == pytest.approx(0.5 + 0.2 + 0.25 + 0.1 + 0 + 0.05)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Topology(()), "at least one node"),
        (lambda: Topology((0,)), "node 0 has parent 0"),
        (lambda: Topology((-1, 0, -1)), "level by level"),
        (lambda: from_widths([]), "number of children at each depth"),
        (lambda: from_widths([2, 0]), "each at least 1"),
        (lambda: from_paths([[0], [0]]), "comes twice"),
        (lambda: from_paths([[0, 0]]), r"\[0\], where it begins, is not"),
        (lambda: from_paths([[0], [2]]), r"its sibling \[1\] is not"),
        (lambda: from_paths([[0], []]), "one or more ranks"),
        (lambda: optimal(5, [0.5], max_depth=4), "no tree of 5 nodes"),
        (lambda: optimal(2, [0.9, 0.3], max_depth=2), "sum of at most 1"),
    ],
)
def test_a_wrong_shape_says_why(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@functools.cache
def forests(nodes: int, ranks: int, depth: int) -> list[list[tuple[int, ...]]]:
    """Every set of paths of that many nodes, by trying each."""
    if nodes == 0:
        return [[]]
    found = {()}
    for _ in range(nodes):
        grown = set()
        for tree in found:
            for path in ((), *tree):
                rank = sum(1 for other in tree if other[:-1] == path and len(other) == len(path) + 1)
                if rank < ranks and len(path) < depth:
                    grown.add(tuple(sorted((*tree, (*path, rank)))))
        found = grown
    return [list(tree) for tree in sorted(found)]


@settings(max_examples=60, deadline=None)
@given(
    nodes=st.integers(1, 6),
    depth=st.integers(1, 4),
    weights=st.lists(st.floats(0.01, 1), min_size=1, max_size=3),
    misses=st.floats(0, 1),
)
def test_no_tree_of_the_budget_beats_the_optimum(nodes: int, depth: int, weights: list[float], misses: float) -> None:
    acceptance = [weight / (sum(weights) + misses) for weight in weights]
    every = forests(nodes, len(acceptance), depth)
    if not every:
        with pytest.raises(ValueError, match="no tree"):
            optimal(nodes, acceptance, max_depth=depth)
        return
    tree = optimal(nodes, acceptance, max_depth=depth)
    assert tree.num_nodes == nodes and tree.depth <= depth
    values = [from_paths(paths).expected_accepted(acceptance) for paths in every]
    assert tree.expected_accepted(acceptance) == pytest.approx(max(values))


def test_a_good_third_child_pays_for_a_poor_second_one() -> None:
    """Where taking the likeliest nodes one by one goes wrong."""
    tree = optimal(3, [0.35, 0.05, 0.6], max_depth=3)
    assert tree.parents == (-1, -1, -1)
    assert tree.expected_accepted([0.35, 0.05, 0.6]) > chain(3).expected_accepted([0.35])


def test_sure_drafts_make_chains_and_unsure_ones_make_bushes() -> None:
    assert optimal(6, [0.95, 0.02, 0.01], max_depth=6) == chain(6)
    assert optimal(3, [0.25, 0.24, 0.23], max_depth=6).parents == (-1, -1, -1)
