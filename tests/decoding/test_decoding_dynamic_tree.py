"""EAGLE-2's dynamic tree against a slow twin."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses import FakeTensorMode

from ssd_lab.decoding.dynamic_tree import Growth, begin, best, grow, pool_size, rerank
from ssd_lab.decoding.tree import ancestors

VOCAB = 7


def log_probs_after(text: tuple[int, ...], seed: int, ties: bool) -> torch.Tensor:
    """A draft: with ties, many tokens are equally likely and some are certain."""
    generator = torch.Generator().manual_seed(hash((seed, text)) % 2**31)
    if not ties:
        return torch.log_softmax(torch.randn(VOCAB, generator=generator) * 2, -1)
    certain = torch.rand(1, generator=generator) < 0.3
    levels = torch.tensor([0.0, -1.0, -1.0, -2.0, -2.0, -2.0, -4.0])
    return torch.where(certain, torch.zeros(VOCAB), levels[torch.randperm(VOCAB, generator=generator)])


def grown(seeds: list[int], ties: bool, top_k: int, depth: int) -> Growth:
    """A batch of trees, one for each seed."""
    growth = begin(torch.stack([log_probs_after((), seed, ties) for seed in seeds]), top_k)
    for level in range(1, depth):
        rows = []
        for row, seed in enumerate(seeds):
            texts = []
            for node in growth.frontier[row].tolist():
                text: list[int] = []
                while node >= 0:
                    text.insert(0, int(growth.tokens[row, node]))
                    node = int(growth.parents[row, node])
                assert len(text) == level
                texts.append(log_probs_after(tuple(text), seed, ties))
            rows.append(torch.stack(texts))
        growth = grow(growth, torch.stack(rows))
    return growth


def slowly(seed: int, ties: bool, top_k: int, depth: int, num_nodes: int) -> list[tuple[tuple[int, ...], float]]:
    """The kept nodes as (text, score), by sorting lists."""
    pool: list[tuple[tuple[int, ...], float]] = []
    frontier: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    for _ in range(depth):
        level = []
        for text, score in frontier:
            values = log_probs_after(text, seed, ties).tolist()
            for token in sorted(range(VOCAB), key=lambda token: -values[token])[:top_k]:
                level.append(((*text, token), float(torch.tensor(score) + torch.tensor(values[token]))))
        pool += level
        frontier = sorted(level, key=lambda node: -node[1])[:top_k]  # sorted() keeps the order of equal ones
    kept = sorted(range(len(pool)), key=lambda index: -pool[index][1])[:num_nodes]
    return [pool[index] for index in sorted(kept)]


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 10**6), ties=st.booleans(), top_k=st.integers(1, 4), depth=st.integers(1, 4), data=st.data())
def test_the_tree_is_the_slow_one(seed: int, ties: bool, top_k: int, depth: int, data: st.DataObject) -> None:
    num_nodes = data.draw(st.integers(1, pool_size(top_k, depth)))
    seeds = [seed, seed + 1]
    growth = grown(seeds, ties, top_k, depth)
    assert growth.tokens.shape == (2, pool_size(top_k, depth))
    tree = rerank(growth, num_nodes)
    for row, own in enumerate(seeds):
        paths = ancestors(tree.parents[row].tolist())  # refuses a parent that comes later
        texts = [tuple(int(tree.tokens[row, node]) for node in path) for path in paths]
        expected = slowly(own, ties, top_k, depth, num_nodes)
        assert texts == [text for text, _ in expected]
        assert tree.scores[row].tolist() == pytest.approx([score for _, score in expected])
        assert growth.tokens[row, tree.pool_index[row]].tolist() == [text[-1] for text in texts]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), top_k=st.integers(1, 4), depth=st.integers(1, 4))
def test_a_frontier_node_sees_its_own_path(seed: int, top_k: int, depth: int) -> None:
    """`ancestors` leads through the frontiers of all levels as `parents` leads through the pool."""
    frontiers = []
    for levels in range(1, depth + 1):
        growth = grown([seed], False, top_k, levels)
        frontiers.append(growth.frontier[0].tolist())
    for place, node in enumerate(frontiers[-1]):
        path = []
        while node >= 0:
            path.insert(0, node)
            node = int(growth.parents[0, node])
        seen = growth.ancestors[0, place].tolist()
        assert [frontiers[level][slot] for level, slot in enumerate(seen)] == path


def test_the_best_are_ordered_and_the_first_of_equal_ones_comes_first() -> None:
    scores = torch.tensor([[-0.0, -math.inf, 0.0, -3.5, 2.0, -3.5, 2.0, -1e-30]])
    values, places = best(scores, 8)
    assert places.tolist() == [[4, 6, 0, 2, 7, 3, 5, 1]]
    assert values.tolist() == [[2.0, 2.0, 0.0, 0.0, pytest.approx(-1e-30), -3.5, -3.5, -math.inf]]


def test_nothing_waits_for_the_device() -> None:
    with FakeTensorMode():
        growth = grow(begin(torch.zeros(2, 50), 4), torch.zeros(2, 4, 50))
        assert rerank(growth, 9).tokens.shape == (2, 9)
