"""Shapes of draft trees."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ssd_lab.decoding.tree import (
    ancestors,
    async_tree_parents,
    branch_prefixes,
    recovery_candidates,
)


def branch_ranks(fan_out: list[int]) -> list[int]:
    """Rank of each branch's recovery token among the candidates at its accepted length."""
    return [rank for count in fan_out for rank in range(count)]


@given(st.lists(st.integers(0, 10**6), max_size=30))
def test_paths_lead_to_the_root(numbers: list[int]) -> None:
    parents = [number % (index + 1) - 1 for index, number in enumerate(numbers)]
    for node, path in enumerate(ancestors(parents)):
        assert path[-1] == node
        assert [parents[step] for step in path] == [-1, *path[:-1]]


def test_a_parent_that_comes_later_is_refused() -> None:
    with pytest.raises(ValueError, match="node 0 has parent 1"):
        ancestors([1, -1])


@given(st.lists(st.integers(0, 4), min_size=1, max_size=8).filter(any))
def test_branches_of_a_schedule(fan_out: list[int]) -> None:
    pairs = list(zip(branch_prefixes(fan_out), branch_ranks(fan_out), strict=True))
    assert pairs == [(length, rank) for length, count in enumerate(fan_out) for rank in range(count)]


@given(k=st.integers(1, 5), data=st.data())
def test_an_async_tree_is_a_chain_with_branches(k: int, data: st.DataObject) -> None:
    fan_out = data.draw(st.lists(st.integers(0, 3), min_size=k + 1, max_size=k + 1))
    parents = async_tree_parents(k, fan_out)
    assert len(parents) == k + sum(fan_out) * (k + 1)
    paths = ancestors(parents)
    for branch, prefix in enumerate(branch_prefixes(fan_out)):
        last = k + (branch + 1) * (k + 1) - 1
        assert len(paths[last]) == prefix + k + 1
        assert paths[last][:prefix] == list(range(prefix))


def test_candidates_are_the_likeliest_tokens_but_never_the_drafted_one() -> None:
    logits = torch.tensor([[[5.0, 4.0, 3.0, 0.0], [1.0, 2.0, 3.0, 4.0], [9.0, 8.0, 7.0, 6.0]]])
    drafted = torch.tensor([[0, 2]])
    found = recovery_candidates(logits, drafted, 2)
    assert found.tolist() == [[[1, 2], [3, 1], [0, 1]]]
    prefixes, ranks = branch_prefixes([2, 1, 2]), branch_ranks([2, 1, 2])
    assert found[0, prefixes, ranks].tolist() == [1, 2, 3, 0, 1]
