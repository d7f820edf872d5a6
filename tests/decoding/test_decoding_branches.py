"""Fan-out by the draft's own probabilities: the best outcomes, no better choice among all of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from ssd_lab.decoding.branches import (
    CANDIDATE_BINS,
    CONFIDENCE_BINS,
    TABLE,
    best_counts,
    branch_layout,
    candidate_bins,
    outcome_chances,
)
from ssd_lab.decoding.n_gram import continuation
from ssd_lab.decoding.tree import branch_prefixes
from ssd_lab.learning.confidence_fan_out import ConfidenceFanOut, isotonic_falling


@pytest.mark.parametrize("counts", [[2, 0, 1], [0, 0, 3], [3, 0, 0], [1, 1, 1]])
def test_the_layout_is_that_of_the_lists(counts: list[int]):
    prefixes, ranks = branch_layout(torch.tensor([counts]), sum(counts))
    assert prefixes[0].tolist() == branch_prefixes(counts)
    assert ranks[0].tolist() == [rank for count in counts for rank in range(count)]


def slow_chances(confidences: list[float], probs: list[list[float]], table: list[float]) -> list[list[float]]:
    accepted, rest = table[:CONFIDENCE_BINS], table[CONFIDENCE_BINS:]
    chances, reached = [], 1.0
    for a, row in enumerate(probs):
        last = a == len(confidences)
        own = rest[CANDIDATE_BINS:] if last else rest[:CANDIDATE_BINS]
        kept = 0.0 if last else accepted[min(CONFIDENCE_BINS - 1, int(confidences[a] * CONFIDENCE_BINS))]
        best, listed = 1.0, []
        for prob in row:
            best = min(best, own[candidate_bins(torch.tensor(prob)).item()])
            listed.append(reached * (1 - kept) * best)
        chances.append(listed)
        reached *= kept
    return chances


def test_chances_are_products_of_the_tables_and_counts_the_best_of_all():
    generator = torch.Generator().manual_seed(3)
    for _ in range(20):
        confidences = torch.rand(1, 2, generator=generator)
        probs = torch.rand(1, 3, 3, generator=generator).sort(-1, descending=True).values * 0.6
        table = torch.rand(1, TABLE, generator=generator)
        chances = outcome_chances(confidences, probs, table)
        slow = slow_chances(confidences[0].tolist(), probs[0].tolist(), table[0].tolist())
        torch.testing.assert_close(chances[0], torch.tensor(slow))
        counts, hit = best_counts(chances, 4)
        everything = [c for c in itertools.product(range(4), repeat=3) if sum(c) == 4]
        best = max(sum(sum(row[:c]) for row, c in zip(slow, choice, strict=True)) for choice in everything)
        chosen = sum(sum(row[:c]) for row, c in zip(slow, counts[0].tolist(), strict=True))
        assert chosen == pytest.approx(best) == pytest.approx(hit.item())
        assert counts.sum() == 4


def test_equal_chances_still_make_whole_rows():
    counts, hit = best_counts(torch.full((2, 3, 5), 0.1), 6)
    assert counts.sum(1).tolist() == [6, 6] and torch.allclose(hit, torch.tensor(0.6))


def test_the_tables_learn_how_far_the_draft_can_be_trusted():
    random = np.random.default_rng(0)
    learner = ConfidenceFanOut(budget=4)
    fresh = learner.table(True)
    assert fresh[CONFIDENCE_BINS - 1] > 0.9 > 0.1 > fresh[0]
    probs = np.array([0.4, 0.2, 0.1, 0.05])
    for _ in range(600):  # a draft that is right half as often as it says, when it samples
        accepted = int(random.random() < 0.45)
        rank = int(random.choice(5, p=[0.2, 0.1, 0.05, 0.025, 0.625]))
        learner.observe(True, [0.92], probs, accepted, rank if rank < 4 else None)
    table = learner.table(True)
    assert table[18] == pytest.approx(0.45, abs=0.08)
    bins = candidate_bins(torch.tensor(probs)).tolist()
    for place, chance in zip(bins, [0.2, 0.1, 0.05, 0.025], strict=True):
        for kind in (0, 1):
            assert table[CONFIDENCE_BINS + kind * CANDIDATE_BINS + place] == pytest.approx(chance, abs=0.06)
    assert learner.table(False) == fresh  # greedy requests are another matter


def test_usual_counts_follow_what_was_built():
    learner = ConfidenceFanOut(budget=9)
    assert learner.usual_counts(True, 2) == (3, 3, 3)
    for _ in range(400):
        learner.built(True, [6, 2, 1])
    assert learner.usual_counts(True, 2) == (6, 2, 1)
    assert learner.usual_counts(False, 2) == (3, 3, 3)


def test_falling_is_the_nearest_sequence_without_a_rise():
    assert isotonic_falling(np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 3.0])) == pytest.approx([3.0, 1.75, 1.75])
    assert isotonic_falling(np.array([1.0, 2.0, 3.0]), np.ones(3)) == pytest.approx([2.0, 2.0, 2.0])
    assert isotonic_falling(np.array([3.0, 2.0, 1.0]), np.ones(3)) == [3.0, 2.0, 1.0]


def slow_continuation(tokens: list[int], longest: int, count: int) -> list[int]:
    for size in range(longest, 0, -1):
        for end in range(len(tokens) - 1, size - 1, -1):
            if tokens[end - size : end] == tokens[-size:]:
                return tokens[end : end + count]
    return []


def test_a_continuation_is_that_of_the_longest_latest_match():
    generator = torch.Generator().manual_seed(1)
    for length in range(1, 40):
        tokens = torch.randint(0, 4, (length,), generator=generator).tolist()
        assert list(continuation(tokens, 3, 4)) == slow_continuation(tokens, 3, 4)
