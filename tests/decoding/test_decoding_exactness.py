"""Acceptance keeps the target's law exactly: integrated over all uniforms, not estimated from draws.

Probabilities are quarters, so that every threshold on a uniform number is a multiple of 1/12 and twelve midpoints give
each integral exactly: no tolerance but rounding.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from decoding.chi_square import chi_square_p
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from power import ALPHA

from ssd_lab.decoding.acceptance import Outcome, accept_sampled
from ssd_lab.decoding.random import Purpose, uniform
from ssd_lab.decoding.sampling import SamplingBatch, sample, target_distribution

VOCAB, PARTS = 3, 4
MIDPOINTS = (torch.arange(12) + 0.5) / 12
EVERYDAY = settings(max_examples=30, deadline=None)
OF_LAWS = settings(max_examples=10, deadline=None)  # each example goes through the whole grid of numbers
SMALLEST, LARGEST = 2.0**-24, 1 - 2.0**-24  # what `uniform` can return

distribution = st.sampled_from(
    [parts for parts in itertools.product(range(PARTS + 1), repeat=VOCAB) if sum(parts) == PARTS]
).map(lambda parts: torch.tensor(parts) / PARTS)


def slowly(
    target: np.ndarray, tokens: list[int], draft: np.ndarray, drafted: int, accept: list[float], recovery: list[float]
) -> tuple[int, int]:
    """One sequence, token by token, from the paper's algorithm; a certain guess by looking up the target's draw."""
    for place in range(drafted):
        token = tokens[place]
        if draft[place, token] == 1:  # a certain guess: was it what the target draws?
            drawn = inverted(target[place], recovery[place])
            if drawn == token:
                continue
            return place, drawn
        if accept[place] * draft[place, token] < target[place, token]:
            continue
        residual = np.maximum(target[place] - draft[place], 0)
        return place, inverted(residual if residual.sum() > 0 else target[place], recovery[place])
    return drafted, inverted(target[drafted], recovery[drafted])


def inverted(weights: np.ndarray, number: float) -> int:
    """The first token at which the running sum exceeds its share."""
    return next(i for i, total in enumerate(np.cumsum(weights)) if total > number * weights.sum())


@EVERYDAY
@given(
    rows=st.lists(
        st.tuples(
            st.lists(distribution, min_size=4, max_size=4),
            st.lists(distribution, min_size=3, max_size=3),
            st.lists(st.integers(0, VOCAB - 1), min_size=3, max_size=3),
            st.integers(0, 3),
            st.lists(st.sampled_from(MIDPOINTS.tolist()), min_size=7, max_size=7),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_a_batch_decides_each_row_as_a_loop_would(rows: list):
    targets, drafts, tokens, drafted, numbers = zip(*rows, strict=True)
    target = torch.stack([torch.stack(row) for row in targets])
    draft = torch.stack([torch.stack(row) for row in drafts])
    uniforms = torch.tensor(numbers)
    outcome = accept_sampled(
        target, torch.tensor(tokens), draft, torch.tensor(drafted), uniforms[:, :3], uniforms[:, 3:]
    )
    for row in range(len(rows)):
        expected = slowly(
            target[row].numpy(), tokens[row], draft[row].numpy(), drafted[row], numbers[row][:3], numbers[row][3:]
        )
        assert (int(outcome.num_accepted[row]), int(outcome.recovery_token[row])) == expected


def law(target: torch.Tensor, draft: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Exact law of the first emitted token `[vocab]`, and of the second where the first was accepted `[vocab, vocab]`.

    target: `[1 + vocab + vocab, vocab]`: at the start, after each first token, and after any two; draft `[1 + vocab,
    vocab]`. Every draft (x1, x2) and every cell of the grid of uniforms is one row of a batch.
    """
    grid = torch.cartesian_prod(torch.arange(VOCAB), torch.arange(VOCAB), *[torch.arange(12)] * 4)
    first, second = grid[:, 0], grid[:, 1]
    accept, recovery = MIDPOINTS[grid[:, 2:4]], MIDPOINTS[grid[:, [4, 5, 5]]]  # no third token is looked at
    rows = len(grid)
    target_probs = torch.stack([target[0].expand(rows, -1), target[1 + first], target[1 + VOCAB + second]], 1)
    draft_probs = torch.stack([draft[0].expand(rows, -1), draft[1 + first]], 1)
    weight = draft[0][first] * draft[1 + first, second] / 12**4
    outcome = accept_sampled(target_probs, grid[:, :2], draft_probs, torch.full((rows,), 2), accept, recovery)
    emitted_first = torch.where(outcome.num_accepted > 0, first, outcome.recovery_token)
    kept = outcome.num_accepted > 0
    emitted_second = torch.where(outcome.num_accepted > 1, second, outcome.recovery_token)
    firsts = torch.zeros(VOCAB, dtype=torch.float64).index_add_(0, emitted_first, weight.double())
    pairs = torch.zeros(VOCAB * VOCAB, dtype=torch.float64)
    pairs.index_add_(0, (first * VOCAB + emitted_second)[kept], weight[kept].double())
    return firsts, pairs.view(VOCAB, VOCAB)


@OF_LAWS
@given(
    target=st.lists(distribution, min_size=1 + 2 * VOCAB, max_size=1 + 2 * VOCAB),
    draft=st.lists(distribution, min_size=1 + VOCAB, max_size=1 + VOCAB),
)
def test_emitted_tokens_follow_the_target_whatever_the_draft(target: list[torch.Tensor], draft: list[torch.Tensor]):
    first, pairs = law(torch.stack(target), torch.stack(draft))
    assert first.numpy() == pytest.approx(target[0].double().numpy(), abs=1e-6)
    reached = pairs.sum(1)  # how often each first token was drafted and accepted
    for token in range(VOCAB):
        expected = reached[token] * target[1 + token].double()
        assert pairs[token].numpy() == pytest.approx(expected.numpy(), abs=1e-6)


@OF_LAWS
@given(target=distribution, guess=st.integers(0, VOCAB - 1))
def test_a_certain_guess_follows_the_target(target: torch.Tensor, guess: int):
    certain = torch.eye(VOCAB)[guess]
    first, pairs = law(torch.stack([target] * (1 + 2 * VOCAB)), torch.stack([certain] * (1 + VOCAB)))
    assert first.numpy() == pytest.approx(target.double().numpy(), abs=1e-6)
    assert float(pairs.sum()) == pytest.approx(
        float(target[guess]), abs=1e-6
    )  # and is accepted as often as it is right


@EVERYDAY
@given(
    target=st.lists(distribution, min_size=4, max_size=4),
    guesses=st.lists(st.integers(0, VOCAB - 1), min_size=3, max_size=3),
    numbers=st.lists(st.sampled_from(MIDPOINTS.tolist()), min_size=4, max_size=4),
    spelled_out=st.booleans(),
)
def test_certain_guesses_leave_the_text_of_a_seed_alone(
    target: list[torch.Tensor], guesses: list[int], numbers: list[float], spelled_out: bool
):
    """What is emitted is what the target draws with the number of each place; the coins are not looked at."""
    probs = torch.eye(VOCAB)[torch.tensor(guesses)][None] if spelled_out else None
    for coin in (SMALLEST, LARGEST):
        outcome = accept_sampled(
            torch.stack(target)[None], torch.tensor([guesses]), probs, torch.tensor([3]), torch.full((1, 3), coin),
            torch.tensor([numbers]),
        )  # fmt: skip
        text = [*guesses[: int(outcome.num_accepted)], int(outcome.recovery_token)]
        drawn = [inverted(one.numpy(), number) for one, number in zip(target, numbers, strict=True)]
        assert text == drawn[: len(text)]
        assert int(outcome.num_accepted) == 3 or guesses[int(outcome.num_accepted)] != text[-1]


def outcome_of(target: torch.Tensor, draft: torch.Tensor, token: int, accept: float, recovery: float) -> Outcome:
    """One draft token, one sequence; the target thinks the same after it."""
    return accept_sampled(
        target.expand(1, 2, -1), torch.tensor([[token]]), draft.view(1, 1, -1), torch.tensor([1]),
        torch.tensor([[accept]]), torch.tensor([[recovery, recovery]]),
    )  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(logits=st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=9), token=st.integers(0, 8), low=st.booleans())
def test_a_draft_equal_to_the_target_is_always_accepted(logits: list[float], token: int, low: bool):
    probs = torch.softmax(torch.tensor(logits), -1)
    assume(token < len(logits))
    outcome = outcome_of(probs, probs, token, LARGEST, SMALLEST if low else LARGEST)
    assert outcome.num_accepted.tolist() == [1]


@settings(max_examples=100, deadline=None)
@given(
    logits=st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=9),
    other=st.lists(st.floats(-8, 8, width=32), min_size=9, max_size=9),
    number=st.sampled_from([SMALLEST, 0.25, 0.5, LARGEST]),
)
def test_a_rejection_returns_a_token_that_the_target_likes_more(logits: list[float], other: list[float], number: float):
    """For every token that can be rejected, at both ends of the interval too. Where one softmax sums to a little less
    than the other, the target may like no token more: then there is nothing to ask for.
    """
    target, draft = torch.softmax(torch.tensor(logits), -1), torch.softmax(torch.tensor(other[: len(logits)]), -1)
    assume((target > draft).any() or torch.equal(target, draft))
    for token in range(len(logits)):
        outcome = outcome_of(target, draft, token, LARGEST, number)
        if outcome.num_accepted.item() == 0:
            recovered = int(outcome.recovery_token)
            assert target[recovered] > draft[recovered]


def test_distributions_without_overlap_always_reject_and_recover_from_the_target():
    target, draft = torch.tensor([0.0, 0.25, 0.75, 0.0]), torch.tensor([0.5, 0.0, 0.0, 0.5])
    for token in (0, 3):
        recovered = [outcome_of(target, draft, token, SMALLEST, number) for number in MIDPOINTS.tolist()]
        assert {int(outcome.num_accepted) for outcome in recovered} == {0}
        assert [int(outcome.recovery_token) for outcome in recovered] == [1] * 3 + [2] * 9


def test_a_sequence_without_a_draft_draws_from_the_target():
    target = torch.tensor([[[0.25, 0.25, 0.5], [1.0, 0.0, 0.0]]]).expand(12, -1, -1)
    drafted_beside = torch.zeros(12, 1, dtype=torch.long)  # another sequence of the batch has a draft token, this not
    probs = torch.tensor([1.0, 0.0, 0.0]).expand(12, 1, -1)
    outcome = accept_sampled(
        target,
        drafted_beside,
        probs,
        torch.zeros(12, dtype=torch.long),
        MIDPOINTS[:, None],
        MIDPOINTS[:, None].expand(-1, 2),
    )
    assert outcome.num_accepted.tolist() == [0] * 12
    assert outcome.recovery_token.tolist() == [0] * 3 + [1] * 3 + [2] * 6


@pytest.mark.parametrize("k", [1, 3])
def test_the_engines_own_numbers_give_the_targets_law(k: int):
    """Draft, accept and recover with the counter-based numbers: 20,000 seeds, joint law of position and token."""
    generator = torch.Generator().manual_seed(k)
    seeds = torch.arange(20_000)[:, None]
    target = torch.softmax(torch.randn(k + 1, 6, generator=generator) * 1.5, -1)
    draft = torch.softmax(torch.randn(k, 6, generator=generator) * 1.5, -1)
    places = torch.arange(k + 1)
    tokens = sample(draft.expand(len(seeds), -1, -1), uniform(seeds, places[:k], Purpose.DRAFT))
    outcome = accept_sampled(
        target.expand(len(seeds), -1, -1), tokens, draft.expand(len(seeds), -1, -1), torch.full((len(seeds),), k),
        uniform(seeds, places[:k], Purpose.ACCEPT), uniform(seeds, places, Purpose.RECOVERY),
    )  # fmt: skip
    for place in range(k + 1):
        reached = outcome.num_accepted >= place
        drawn = outcome.recovery_token.clone()
        if place < k:
            drawn = torch.where(outcome.num_accepted > place, tokens[:, place], drawn)
        counts = torch.bincount(drawn[reached], minlength=6).numpy()
        assert chi_square_p(counts, target[place].numpy() * counts.sum()) > ALPHA


@settings(max_examples=200, deadline=None)
@given(
    weights=st.lists(st.sampled_from([0.0, 1e-30, 1e-7, 0.1, 0.5, 1.0]), min_size=1, max_size=40).filter(any),
    number=st.sampled_from([SMALLEST, 1e-3, 0.3, 0.5, 0.7, LARGEST]),
)
def test_a_drawn_token_exists_and_is_possible(weights: list[float], number: float):
    probs = torch.tensor(weights)
    token = int(sample(probs, torch.tensor(number)))
    assert 0 <= token < len(weights)
    assert weights[token] > 0


@pytest.mark.parametrize("temperature", [1e-300, 1e-38, 1e-6, 1e-3])
def test_the_coldest_temperatures_are_greedy(temperature: float):
    logits = torch.tensor([[[-50.0, 3.0, 30.0, 2.0]]])
    probs = target_distribution(logits, SamplingBatch.from_rows([(temperature, 0, 1.0, 0.0, 0)]))
    assert probs.tolist() == [[[0.0, 0.0, 1.0, 0.0]]]
