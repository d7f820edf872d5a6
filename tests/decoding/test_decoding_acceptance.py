"""Acceptance keeps the target's distribution, whatever the draft's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from power import ALPHA, POWER, chi_square_power, critical, effect

from ssd_lab.decoding.acceptance import accept_greedy, accept_sampled
from ssd_lab.decoding.sampling import sample

DRAWS = 40_000


def distributions(seed: int, *shape: int, zeros: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    probs = torch.softmax(torch.randn(*shape, generator=generator) * 2, -1)
    mask = torch.rand(*shape, generator=generator) < zeros
    mask[..., 0] = False
    probs = torch.where(mask, 0.0, probs)
    return probs / probs.sum(-1, keepdim=True)


def law_of_first_token(target: torch.Tensor, draft: torch.Tensor, seed: int) -> torch.Tensor:
    """Observed frequencies of the first emitted token; target `[2, vocab]`, draft `[1, vocab]`."""
    generator = torch.Generator().manual_seed(seed)
    drafted = sample(draft.expand(DRAWS, -1, -1), torch.rand(DRAWS, 1, generator=generator) * 0.9999999)
    outcome = accept_sampled(
        target.expand(DRAWS, -1, -1),
        drafted,
        draft.expand(DRAWS, -1, -1),
        torch.ones(DRAWS, dtype=torch.long),
        torch.rand(DRAWS, 1, generator=generator),
        torch.rand(DRAWS, 2, generator=generator) * 0.9999999,
    )
    first = torch.where(outcome.num_accepted > 0, drafted[:, 0], outcome.recovery_token)
    return torch.bincount(first, minlength=target.shape[-1]) / DRAWS


def chi_square(observed: torch.Tensor, expected: torch.Tensor) -> float:
    possible = expected > 0
    assert observed[~possible].sum() == 0
    return float((DRAWS * (observed - expected)[possible] ** 2 / expected[possible]).sum())


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("zeros", [0.0, 0.5])
def test_the_first_token_follows_the_target(seed: int, zeros: float) -> None:
    target, draft = distributions(seed, 2, 6, zeros=zeros), distributions(seed + 100, 1, 6, zeros=zeros)
    assert chi_square(law_of_first_token(target, draft, seed), target[0]) < critical(degrees=5, alpha=ALPHA)


@pytest.mark.parametrize("guess", [0, 3])
def test_a_certain_guess_keeps_the_target_too(guess: int) -> None:
    target = distributions(5, 2, 6)
    draft = torch.eye(6)[guess].view(1, 6)
    assert chi_square(law_of_first_token(target, draft, 1), target[0]) < critical(degrees=5, alpha=ALPHA)


def test_accepting_guesses_greedily_would_be_noticed() -> None:
    """The same test rejects: keep the draft token if it is the target's likeliest, else draw from the target."""
    target, draft = torch.tensor([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]]), torch.tensor([[0.6, 0.3, 0.1]])
    generator = torch.Generator().manual_seed(0)
    drafted = sample(draft.expand(DRAWS, -1, -1), torch.rand(DRAWS, 1, generator=generator) * 0.9999999)[:, 0]
    redrawn = sample(target[0].expand(DRAWS, -1), torch.rand(DRAWS, generator=generator) * 0.9999999)
    wrong = torch.where(drafted == target[0].argmax(), drafted, redrawn)
    law = 0.6 * torch.tensor([1.0, 0.0, 0.0]) + 0.4 * target[0]
    assert chi_square_power(effect(target[0].tolist(), law.tolist()), DRAWS, cells=3) > POWER
    assert chi_square(torch.bincount(wrong, minlength=3) / DRAWS, target[0]) > critical(degrees=2, alpha=ALPHA)


def test_equal_distributions_are_always_accepted() -> None:
    probs = distributions(1, 1, 3, 7)
    outcome = accept_sampled(
        probs,
        torch.tensor([[2, 4]]),
        probs[:, :2],
        torch.tensor([2]),
        torch.tensor([[0.999, 0.999]]),
        torch.full((1, 3), 0.5),
    )
    assert outcome.num_accepted.tolist() == [2]


def test_after_a_rejection_the_rejected_surplus_is_not_drawn() -> None:
    """Where the draft gives a token more than the target does, the residual gives it nothing."""
    target = torch.tensor([[[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]]])
    draft = torch.tensor([[[0.8, 0.1, 0.1]]])
    tokens = [
        int(
            accept_sampled(
                target, torch.tensor([[0]]), draft, torch.tensor([1]), torch.tensor([[0.99]]), torch.tensor([[u, 0.5]])
            ).recovery_token
        )
        for u in torch.linspace(0.01, 0.99, 50).tolist()
    ]
    assert set(tokens) == {1, 2}


def slow_greedy(target: list[int], draft: list[int], drafted: int) -> tuple[int, int]:
    kept = 0
    while kept < drafted and draft[kept] == target[kept]:
        kept += 1
    return kept, target[kept]


@settings(max_examples=200, deadline=None)
@given(data=st.data(), k=st.integers(0, 6), batch=st.integers(1, 4))
def test_greedy_acceptance_matches_a_loop(data: st.DataObject, k: int, batch: int) -> None:
    token = st.integers(0, 1)
    target = data.draw(st.lists(st.lists(token, min_size=k + 1, max_size=k + 1), min_size=batch, max_size=batch))
    draft = data.draw(st.lists(st.lists(token, min_size=k, max_size=k), min_size=batch, max_size=batch))
    drafted = data.draw(st.lists(st.integers(0, k), min_size=batch, max_size=batch))
    outcome = accept_greedy(
        torch.tensor(target), torch.tensor(draft, dtype=torch.long).view(batch, k), torch.tensor(drafted)
    )
    expected = [slow_greedy(*row) for row in zip(target, draft, drafted, strict=True)]
    assert list(zip(outcome.num_accepted.tolist(), outcome.recovery_token.tolist(), strict=True)) == expected
