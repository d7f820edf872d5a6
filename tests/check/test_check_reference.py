"""The reference distribution, and numbers that are uniform exactly if tokens follow it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from power import ALPHA

from ssd_lab.check.evidence import PathTests, Tally, text_tests
from ssd_lab.check.reference import Filters, probabilities
from ssd_lab.check.statistics import Floats
from ssd_lab.check.steps import Step
from ssd_lab.decoding.sampling import SamplingBatch, target_distribution

SETTINGS = [
    Filters(0.7),
    Filters(1.0, top_k=3),
    Filters(1.3, top_p=0.8),
    Filters(1.0, min_p=0.2),
    Filters(0.9, top_k=6, top_p=0.9, min_p=0.05),
]


def slowly(logits: list[float], filters: Filters) -> list[float]:
    """One row, one token at a time."""
    weights = [math.exp(logit / filters.temperature) for logit in logits]
    order = sorted(range(len(weights)), key=lambda i: -weights[i])
    kept = order[: filters.top_k] if filters.top_k else order
    total, before, nucleus = sum(weights[i] for i in kept), 0.0, []
    for i in kept:
        if filters.top_p >= 1 or before / total < filters.top_p:
            nucleus.append(i)
        before += weights[i]
    final = [i for i in nucleus if weights[i] >= filters.min_p * weights[order[0]]]
    total = sum(weights[i] for i in final)
    return [weights[i] / total if i in final else 0.0 for i in range(len(weights))]


@pytest.mark.parametrize("filters", SETTINGS, ids=str)
def test_filters_are_what_the_words_say(filters: Filters):
    logits = torch.randn(20, 12, generator=torch.Generator().manual_seed(1)) * 2
    expected = [slowly(row, filters) for row in logits.double().tolist()]
    assert probabilities(logits, filters) == pytest.approx(np.array(expected), abs=1e-12)


@pytest.mark.parametrize("filters", SETTINGS, ids=str)
def test_the_engine_samples_from_the_same_distribution(filters: Filters):
    logits = torch.randn(50, 40, generator=torch.Generator().manual_seed(2)) * 3
    row = (filters.temperature, filters.top_k, filters.top_p, filters.min_p, 0)
    ours = target_distribution(logits[:, None], SamplingBatch.from_rows([row] * len(logits)))[:, 0]
    assert probabilities(logits, filters) == pytest.approx(ours.numpy(), abs=1e-5)


def draw(probs: np.ndarray, random: np.random.Generator) -> list[int]:
    return [int(random.choice(len(row), p=row)) for row in probs]


def outcome(probs: Floats, tokens: list[int]) -> PathTests:
    """Tests of tokens that should have been drawn from `probs`, one a row."""
    tally = Tally(probs.shape[1], 5, "a cell")
    tally.add([Step(token, row, "draft") for token, row in zip(tokens, probs, strict=True)])
    return tally.tests(text_tests)[0]


def test_draws_from_the_distribution_are_not_rejected():
    random = np.random.default_rng(3)
    logits = torch.randn(1500, 12, generator=torch.Generator().manual_seed(4)) * 2
    probs = np.concatenate([probabilities(logits, filters) for filters in SETTINGS])
    found = outcome(probs, draw(probs, random))
    assert min(found.p_values.values()) > ALPHA
    assert found.draws == len(probs) and found.impossible == 0 and found.deviation is not None


def test_too_many_likely_tokens_are_seen_from_the_likeliest_down():
    random = np.random.default_rng(6)
    logits = torch.randn(5000, 12, generator=torch.Generator().manual_seed(7)) * 2
    sharper = probabilities(logits, Filters(0.8))  # drawn a little colder than asked
    found = outcome(probabilities(logits, Filters(1.0)), draw(sharper, random))
    assert found.p_values["chi-square by likelihood"] < 1e-6
    assert found.p_values["mean surprise"] < 1e-6


def test_a_fault_that_keeps_the_ranks_is_seen_in_the_shuffled_order():
    random = np.random.default_rng(8)
    logits = torch.zeros(8000, 12)  # all tokens alike: their order by likelihood is that of the shuffle
    probs = np.full((8000, 12), 1 / 12)
    probs[:, 3], probs[:, 8] = 1.3 / 12, 0.7 / 12
    found = outcome(probabilities(logits, Filters(1.0)), draw(probs, random))
    assert found.p_values["chi-square by shuffle"] < 1e-6


def test_a_token_that_could_not_have_come_is_marked():
    logits = torch.tensor([[2.0, 1.0, 0.0]])
    assert outcome(probabilities(logits, Filters(1.0, top_k=1)), [2]).impossible == 1
