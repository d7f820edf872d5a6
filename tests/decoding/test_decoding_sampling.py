"""The distribution a request samples from, against a slow twin written from the definitions."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd_lab.decoding.sampling import SamplingBatch, likeliest, sample, target_distribution


def slow_distribution(logits: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float) -> np.ndarray:
    """One row, step by step."""
    if temperature == 0:
        return np.eye(len(logits))[int(np.argmax(logits))]
    exponents = np.exp((logits - logits.max()) / temperature)
    probs = exponents / exponents.sum()
    order = sorted(range(len(probs)), key=lambda token: (-probs[token], token))
    kept = order[: top_k or len(order)]
    total = sum(probs[token] for token in kept)
    result, before = np.zeros(len(probs)), 0.0
    for token in kept:
        share = probs[token] / total
        nucleus = before < top_p or top_p >= 1
        if nucleus and share >= min_p * probs[order[0]] / total:
            result[token] = share
        before += share
    return result / result.sum()


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    temperature=st.sampled_from([0.0, 0.3, 0.7, 1.0, 2.0]),
    top_k=st.sampled_from([0, 1, 3, 50]),
    top_p=st.sampled_from([1.0, 0.95, 0.5, 0.05]),
    min_p=st.sampled_from([0.0, 0.1, 0.9]),
)
def test_filters_match_their_definitions(seed: int, temperature: float, top_k: int, top_p: float, min_p: float) -> None:
    logits = torch.randn(1, 2, 11, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).float() * 2
    sampling = SamplingBatch.from_rows([(temperature, top_k, top_p, min_p, 0)])
    ours = target_distribution(logits, sampling)[0]
    for row in range(2):
        expected = slow_distribution(logits[0, row].double().numpy(), temperature, top_k, top_p, min_p)
        np.testing.assert_allclose(ours[row].numpy(), expected, atol=1e-5)


def test_rows_of_a_batch_keep_their_own_settings() -> None:
    logits = torch.randn(3, 1, 9, generator=torch.Generator().manual_seed(1))
    rows = [(0.0, 0, 1.0, 0.0, 1), (1.0, 2, 1.0, 0.0, 2), (0.5, 0, 1.0, 0.0, 3)]
    together = target_distribution(logits, SamplingBatch.from_rows(rows))
    for index, row in enumerate(rows):
        alone = target_distribution(logits[index : index + 1], SamplingBatch.from_rows([row]))
        torch.testing.assert_close(together[index], alone[0])


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 10_000), number=st.floats(6e-8, 1 - 6e-8))
def test_a_token_of_probability_zero_is_never_drawn(seed: int, number: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    probs = torch.softmax(torch.randn(1, 40, generator=generator) * 3, -1)
    probs = torch.where(torch.rand(1, 40, generator=generator) < 0.6, 0.0, probs)
    probs[0, 20] = 0.3
    token = sample(probs / probs.sum(), torch.tensor([number]))
    assert probs[0, token] > 0


def test_drawn_tokens_follow_the_distribution() -> None:
    probs = torch.tensor([0.5, 0.0, 0.3, 0.2])
    numbers = (torch.arange(10_000) + 0.5) / 10_000
    counts = torch.bincount(sample(probs.expand(10_000, 4), numbers), minlength=4)
    assert (counts - 10_000 * probs).abs().max() <= 2


def test_the_first_of_equal_logits_is_the_likeliest() -> None:
    assert likeliest(torch.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]])).tolist() == [1, 0]
