"""The reference distribution, and numbers that are uniform exactly if tokens follow it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from power import ALPHA

from ssd_lab.check.reference import Filters, Transform, Uniforms, filtered
from ssd_lab.check.statistics import chi_square_uniform, kolmogorov_uniform, mean_zero
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


def by_token(logits: torch.Tensor, filters: Filters) -> np.ndarray:
    ordered = filtered(logits, filters)
    probs = np.zeros_like(ordered.probs)
    np.put_along_axis(probs, ordered.tokens, ordered.probs, axis=-1)
    return probs


@pytest.mark.parametrize("filters", SETTINGS, ids=str)
def test_filters_are_what_the_words_say(filters: Filters):
    logits = torch.randn(20, 12, generator=torch.Generator().manual_seed(1)) * 2
    expected = [slowly(row, filters) for row in logits.double().tolist()]
    assert by_token(logits, filters) == pytest.approx(np.array(expected), abs=1e-12)


@pytest.mark.parametrize("filters", SETTINGS, ids=str)
def test_the_engine_samples_from_the_same_distribution(filters: Filters):
    logits = torch.randn(50, 40, generator=torch.Generator().manual_seed(2)) * 3
    row = (filters.temperature, filters.top_k, filters.top_p, filters.min_p, 0)
    ours = target_distribution(logits[:, None], SamplingBatch.from_rows([row] * len(logits)))[:, 0]
    assert by_token(logits, filters) == pytest.approx(ours.numpy(), abs=1e-5)


def draw(probs: np.ndarray, random: np.random.Generator) -> list[int]:
    return [int(random.choice(len(row), p=row)) for row in probs]


def test_draws_from_the_distribution_give_uniform_numbers():
    random = np.random.default_rng(3)
    transform = Transform(12, seed=5)
    parts = []
    for filters in SETTINGS:
        logits = torch.randn(1500, 12, generator=torch.Generator().manual_seed(4)) * 2
        parts.append(transform(filtered(logits, filters), draw(by_token(logits, filters), random)))
    uniforms = Uniforms.joined(parts)
    for numbers in (uniforms.by_likelihood, uniforms.by_shuffle):
        assert 0 <= numbers.min() <= numbers.max() <= 1
        assert chi_square_uniform(numbers).p_value > ALPHA
        assert kolmogorov_uniform(numbers).p_value > ALPHA
    assert mean_zero(uniforms.surprise, uniforms.surprise_variance).p_value > ALPHA


def test_too_many_likely_tokens_are_seen_from_the_likeliest_down():
    random = np.random.default_rng(6)
    logits = torch.randn(5000, 12, generator=torch.Generator().manual_seed(7)) * 2
    sharper = by_token(logits, Filters(0.8))  # drawn a little colder than asked
    uniforms = Transform(12, seed=0)(filtered(logits, Filters(1.0)), draw(sharper, random))
    assert chi_square_uniform(uniforms.by_likelihood).p_value < 1e-6
    assert mean_zero(uniforms.surprise, uniforms.surprise_variance).p_value < 1e-6


def test_a_fault_that_keeps_the_ranks_is_seen_in_the_shuffled_order():
    random = np.random.default_rng(8)
    logits = torch.zeros(8000, 12)  # all tokens alike: their order by likelihood is that of their ids
    probs = np.full((8000, 12), 1 / 12)
    probs[:, 3], probs[:, 8] = 1.3 / 12, 0.7 / 12
    uniforms = Transform(12, seed=0)(filtered(logits, Filters(1.0)), draw(probs, random))
    assert chi_square_uniform(uniforms.by_shuffle).p_value < 1e-6


def test_a_token_that_could_not_have_come_is_marked():
    logits = torch.tensor([[2.0, 1.0, 0.0]])
    uniforms = Transform(3, seed=0)(filtered(logits, Filters(1.0, top_k=1)), [2])
    assert uniforms.probs.tolist() == [0.0]
    assert uniforms.by_likelihood.tolist() == [1.0]
