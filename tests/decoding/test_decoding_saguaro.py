"""Saguaro sampling: its definition, exactness against planted bugs, and its expectations against draws."""

from __future__ import annotations

import pytest
import torch
from decoding.chi_square import chi_square_p
from hypothesis import given, settings
from hypothesis import strategies as st
from power import ALPHA, POWER, chi_square_power, effect

from ssd_lab.decoding.acceptance import accept_sampled
from ssd_lab.decoding.random import Purpose, uniform
from ssd_lab.decoding.saguaro import expected_hit_and_acceptance, saguaro_distribution
from ssd_lab.decoding.sampling import SamplingBatch, sample, target_distribution
from ssd_lab.errors import ConfigError
from ssd_lab.simulate.coefficient import RoundTimes, coefficient_curve, coefficient_point, suggest_c

VOCAB = 12
DRAWS = 40_000


def distributions(places: int, seed: int, apart: float = 1.0, vocab: int = VOCAB) -> tuple[torch.Tensor, torch.Tensor]:
    """A target and a draft `[places, vocab]` that mostly agree."""
    generator = torch.Generator().manual_seed(seed)
    shared = torch.randn(places, vocab, generator=generator) * 2
    other = shared + apart * torch.randn(places, vocab, generator=generator)
    return torch.softmax(shared, -1), torch.softmax(other, -1)


def slowly(draft: list[float], fan_out: int, coefficient: float) -> list[float]:
    """One row from the definition."""
    likeliest = sorted(range(len(draft)), key=lambda t: -draft[t])[:fan_out]
    scaled = [value * (coefficient if t in likeliest else 1.0) for t, value in enumerate(draft)]
    return [value / sum(scaled) for value in scaled] if sum(scaled) > 0 else draft


@given(st.integers(0, 99), st.lists(st.integers(0, 5), min_size=4, max_size=4), st.sampled_from([0.0, 0.2, 0.9]))
@settings(max_examples=60)
def test_each_place_scales_its_own_likeliest_tokens(seed: int, fan_out: list[int], coefficient: float):
    _, draft = distributions(4, seed)
    found = saguaro_distribution(draft, torch.tensor(fan_out), coefficient, 5)
    for row, own in enumerate(fan_out):
        assert found[row].tolist() == pytest.approx(slowly(draft[row].tolist(), own, coefficient), abs=1e-6)


def test_c_of_one_changes_no_bit():
    _, draft = distributions(50, 0)
    assert saguaro_distribution(draft, torch.full((50,), 3), 1.0, 3) is draft


def test_where_nothing_would_be_left_the_row_stays():
    draft = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.4, 0.35, 0.25, 0.0]])
    found = saguaro_distribution(draft, torch.tensor([2, 2]), 0.0, 2)
    assert found.tolist() == [[0.5, 0.5, 0, 0], [0, 0, 1, 0]]


def test_greedy_rows_are_left_alone_and_filtered_tokens_stay_out():
    logits = torch.tensor([[[1.0, 5.0, 2.0, 0.0]], [[1.0, 5.0, 2.0, 0.0]]])
    probs = target_distribution(logits, SamplingBatch.from_rows([(0.0, 0, 1.0, 0.0, 0), (1.0, 2, 1.0, 0.0, 0)]))
    found = saguaro_distribution(probs, torch.ones(2, 1, dtype=torch.long), 0.3, 1)
    assert torch.equal(found[0], probs[0])
    assert found[1, 0, 0] == found[1, 0, 3] == 0
    assert found[1, 0, 1] < probs[1, 0, 1]


@pytest.mark.parametrize("coefficient", [-0.1, 1.1])
def test_a_coefficient_outside_its_range_is_refused(coefficient: float):
    target, draft = distributions(2, 0)
    with pytest.raises(ValueError, match=r"within 0\.\.1"):
        saguaro_distribution(draft, torch.tensor([1, 1]), coefficient, 1)
    with pytest.raises(ConfigError, match="saguaro_c"):
        coefficient_point(target, draft, 1, 2, coefficient, RoundTimes(1, 1))


def emitted_p(coefficient: float, *, verify_with_modified: bool, filtered: bool = False) -> float:
    """P-value of the first emitted token's law being the target's, drafting with C."""
    draws = DRAWS
    target, draft = (row[:1] for row in distributions(1, 7, apart=1.5))
    if filtered:
        batch = SamplingBatch.from_rows([(0.9, 6, 0.95, 0.0, 0)])
        target, draft = (target_distribution(rows.log()[None], batch)[0] for rows in (target, draft))
    modified = saguaro_distribution(draft, torch.tensor([3]), coefficient, 3)
    seeds, place = torch.arange(draws)[:, None], torch.zeros(1, dtype=torch.long)
    tokens = sample(modified.expand(draws, 1, -1), uniform(seeds, place, Purpose.DRAFT))
    outcome = accept_sampled(
        target.expand(draws, 2, -1), tokens, (modified if verify_with_modified else draft).expand(draws, 1, -1),
        torch.ones(draws, dtype=torch.long), uniform(seeds, place, Purpose.ACCEPT),
        uniform(seeds, torch.arange(2), Purpose.RECOVERY),
    )  # fmt: skip
    first = torch.where(outcome.num_accepted > 0, tokens[:, 0], outcome.recovery_token)
    counts = torch.bincount(first, minlength=VOCAB).numpy()
    return chi_square_p(counts, target[0].double().numpy() * draws)


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("coefficient", [1.0, 0.5, 0.0])
def test_the_text_follows_the_target_for_every_c(coefficient: float, filtered: bool):
    assert emitted_p(coefficient, verify_with_modified=True, filtered=filtered) > ALPHA


def law_verified_with(given: torch.Tensor, drawn_from: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Of the first emitted token: draft tokens come from one distribution and are verified with another."""
    kept = drawn_from * (target / given).clamp(max=1)
    residual = (target - given).clamp(min=0)
    return kept + (1 - kept.sum()) * residual / residual.sum()


@pytest.mark.parametrize("coefficient", [0.5, 0.0])
def test_verifying_with_the_unmodified_distribution_is_found_out(coefficient: float):
    """The planted bug; its law is known, and so is how surely it is found."""
    target, draft = (row[0].double() for row in distributions(1, 7, apart=1.5))
    modified = saguaro_distribution(draft[None], torch.tensor([3]), coefficient, 3)[0]
    assert effect(target.tolist(), law_verified_with(modified, modified, target).tolist()) < 1e-12, "rightly verified"
    size = effect(target.tolist(), law_verified_with(draft, modified, target).tolist())
    assert chi_square_power(size, DRAWS, cells=VOCAB) > POWER
    assert emitted_p(coefficient, verify_with_modified=False) < ALPHA


@pytest.mark.parametrize("coefficient", [1.0, 0.4, 0.0])
def test_expectations_agree_with_draws(coefficient: float):
    """Draft, verify, look the recovery token up among the candidates that the tree would prepare. What is allowed is
    more than six standard deviations of each share.
    """
    places, fan_out, draws = 6, 2, 30_000
    target, draft = distributions(places, 11, apart=1.5)
    expected = expected_hit_and_acceptance(target, draft, fan_out, coefficient)
    modified = saguaro_distribution(draft, torch.full((places,), fan_out), coefficient, fan_out)
    accepted = rejected = hits = bonus = 0
    for place in range(places):
        seeds, at = torch.arange(draws)[:, None], torch.tensor([place])
        tokens = sample(modified[place].expand(draws, 1, -1), uniform(seeds, at, Purpose.DRAFT))
        outcome = accept_sampled(
            target[place].expand(draws, 2, -1), tokens, modified[place].expand(draws, 1, -1),
            torch.ones(draws, dtype=torch.long), uniform(seeds, at, Purpose.ACCEPT),
            uniform(seeds, torch.arange(2) + place, Purpose.RECOVERY),
        )  # fmt: skip
        order = draft[place].argsort(descending=True).tolist()
        refused = outcome.num_accepted == 0
        for token, recovery in zip(tokens[refused, 0].tolist(), outcome.recovery_token[refused].tolist(), strict=True):
            hits += recovery in [t for t in order if t != token][:fan_out]
        accepted, rejected = accepted + int((~refused).sum()), rejected + int(refused.sum())
        in_cache = torch.tensor([t in order[:fan_out] for t in outcome.recovery_token[~refused].tolist()])
        bonus += float(in_cache.double().mean()) / places if len(in_cache) else 0.0
    assert accepted / (accepted + rejected) == pytest.approx(expected.acceptance, abs=0.01)
    assert hits / rejected == pytest.approx(expected.hit_after_rejection, abs=0.015)
    assert bonus == pytest.approx(expected.bonus_hit, abs=0.02)


def test_less_c_means_more_hits_and_fewer_accepted_tokens():
    draft, target = distributions(400, 3, vocab=200)  # a draft surer than its target could accept more at C < 1
    curve = coefficient_curve(target, draft, fan_out=3, k=4, times=RoundTimes(tree=0.5, fallback=0.5))
    acceptances = [point.acceptance for point in curve]
    assert acceptances == sorted(acceptances, reverse=True)
    first, last = (expected_hit_and_acceptance(target, draft, 3, c) for c in (1.0, 0.0))
    assert last.hit_after_rejection > first.hit_after_rejection + 0.1
    assert last.bonus_hit == first.bonus_hit


def test_the_suggested_c_beats_the_grid_and_depends_on_the_times():
    draft, target = distributions(300, 4, vocab=200, apart=1.5)
    slow, free = RoundTimes(tree=0.9, fallback=3.0), RoundTimes(tree=0.9, fallback=0.0)
    best = suggest_c(target, draft, fan_out=3, k=2, times=slow)
    assert best.speed >= max(p.speed for p in coefficient_curve(target, draft, fan_out=3, k=2, times=slow))
    assert best.coefficient < suggest_c(target, draft, fan_out=3, k=2, times=free).coefficient == 1.0
