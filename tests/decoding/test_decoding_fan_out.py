"""The theorem, the integer allocation against brute force, fits that find what was planted, and learning."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd_lab.decoding.fan_out import (
    HitLaw,
    OutcomeLaw,
    allocate,
    continuous_fan_out,
    length_weights,
    predicted_hit_rate,
    weighted_hit_rate,
)
from ssd_lab.learning.fan_out_fit import (
    OutcomeSample,
    acceptance_rate,
    fit_hit_law,
    fit_outcome_law,
    likeliest_exponent,
    measured_curves,
    measured_hit_rates,
)
from ssd_lab.learning.fan_out_learner import OutcomeStatistics, ScheduleLearner

LAW = OutcomeLaw(0.8, HitLaw(0.7, 0.6), HitLaw(0.9, 0.2))


def compositions(parts: int, total: int) -> list[tuple[int, ...]]:
    """Every list of `parts` non-negative integers with this sum."""
    bars = itertools.combinations(range(total + parts - 1), parts - 1)
    return [tuple(b - a - 1 for a, b in zip((-1, *bar), (*bar, total + parts - 1), strict=True)) for bar in bars]


def test_weights_are_a_distribution():
    assert length_weights(0.5, 2) == [0.5, 0.25, 0.25]
    assert length_weights(1.0, 3) == [0, 0, 0, 1]
    assert length_weights(0.0, 3) == [1, 0, 0, 0]


def test_the_theorem_has_the_quoted_form():
    acceptance, exponent, k = 0.8, 0.5, 6
    fan_out = continuous_fan_out(k, 30, acceptance, exponent)
    assert sum(fan_out) == pytest.approx(30)
    for a in range(k):
        assert fan_out[a] == pytest.approx(fan_out[0] * acceptance ** (a / (1 + exponent)))
    cap = fan_out[0] * acceptance ** (k / (1 + exponent)) * (1 - acceptance) ** (-1 / (1 + exponent))
    assert fan_out[k] == pytest.approx(cap)


@given(st.floats(0.05, 0.95), st.floats(0.1, 3), st.integers(1, 8), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_no_other_real_numbers_hit_more_often(acceptance: float, exponent: float, k: int, seed: int):
    weights, best = length_weights(acceptance, k), continuous_fan_out(k, 40.0, acceptance, exponent)

    def objective(fan_out: list[float]) -> float:
        return sum(w * (1 - f**-exponent) for w, f in zip(weights, fan_out, strict=True))

    generator = random.Random(seed)
    for _ in range(20):
        moved = [f * math.exp(generator.gauss(0, 0.3)) for f in best]
        moved = [f * 40.0 / sum(moved) for f in moved]
        assert objective(moved) <= objective(best) + 1e-12


@given(
    st.lists(st.tuples(st.floats(0, 1), st.lists(st.floats(0, 1), min_size=1, max_size=6)), min_size=1, max_size=4),
    st.booleans(),
    st.data(),
)
@settings(max_examples=150, deadline=None)
def test_the_allocation_is_that_of_brute_force(
    parts: list[tuple[float, list[float]]], concave: bool, data: st.DataObject
):
    """Any gains, and falling ones, for which greedy is used."""
    weights = [weight for weight, _ in parts]
    rates = [[0.0, *itertools.accumulate(sorted(gains, reverse=True) if concave else gains)] for _, gains in parts]
    budget = data.draw(st.integers(0, sum(len(row) - 1 for row in rates)))
    allowed = [
        c for c in compositions(len(rates), budget) if all(n < len(row) for n, row in zip(c, rates, strict=True))
    ]
    best = max(weighted_hit_rate(c, weights, rates) for c in allowed)
    found = allocate(weights, rates, budget)
    assert sum(found) == budget
    assert weighted_hit_rate(found, weights, rates) == pytest.approx(best, abs=1e-9)


def test_under_the_unscaled_law_a_first_candidate_alone_gains_nothing_and_is_skipped():
    law = OutcomeLaw(0.5, HitLaw(1.0))
    found = allocate(law.weights(3), law.hit_rates(3, 4), 4)
    assert found == [4, 0, 0, 0] or found == [2, 2, 0, 0]
    greedy_would = predicted_hit_rate([1, 1, 1, 1], 0.5, 1.0)
    assert greedy_would == 0 < predicted_hit_rate(found, 0.5, 1.0)


def test_budgets_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="allow 0 to 2"):
        allocate([1.0], [[0, 0.5, 0.7]], 3)
    with pytest.raises(ValueError, match="2 weights for 1 rows"):
        allocate([1.0, 0.0], [[0, 0.5]], 1)


@pytest.mark.parametrize("budget", [8, 16, 32, 64])
@pytest.mark.parametrize(("acceptance", "exponent", "scale"), [(0.9, 0.5, 1.0), (0.6, 1.2, 0.7), (0.3, 0.3, 0.5)])
def test_solved_is_never_below_uniform_at_equal_budget(budget: int, acceptance: float, exponent: float, scale: float):
    k = 6
    uniform = [budget // (k + 1) + (a < budget % (k + 1)) for a in range(k + 1)]
    law = OutcomeLaw(acceptance, HitLaw(exponent, scale))
    solved = allocate(law.weights(k), law.hit_rates(k, budget), budget)
    assert predicted_hit_rate(solved, acceptance, exponent, scale) >= predicted_hit_rate(
        uniform, acceptance, exponent, scale
    )


def draw(law: OutcomeLaw, k: int, generator: random.Random) -> OutcomeSample:
    accepted = 0
    while accepted < k and generator.random() < law.acceptance:
        accepted += 1
    hit_law = law.bonus if accepted == k and law.bonus is not None else law.rejected
    u, rank = generator.random(), 0
    while rank < 400 and u < 1 - hit_law.hit_rate(rank + 1):
        rank += 1
    return OutcomeSample(accepted, k, rank, generator.random() < 0.5)


def test_fits_find_the_law_that_was_planted():
    generator = random.Random(5)
    samples = [draw(LAW, 5, generator) for _ in range(20_000)]
    assert acceptance_rate(samples) == pytest.approx(0.8, abs=0.01)
    found = fit_outcome_law(samples)
    assert found is not None and found.bonus is not None
    assert found.rejected.exponent == pytest.approx(0.7, abs=0.05)
    assert found.rejected.scale == pytest.approx(0.6, abs=0.03)
    assert found.bonus.exponent == pytest.approx(0.9, abs=0.12)
    fit = fit_hit_law([s.rank for s in samples if s.rank is not None and not s.all_accepted])
    assert fit is not None and fit.r_squared > 0.995


def test_the_scale_is_the_share_that_one_candidate_misses():
    """A curve that bends: a line through all its points misses its beginning by far more than the fit may."""
    generator = random.Random(4)
    ranks = [0 if generator.random() < 0.6 else generator.choice([1, 2, 3, 40, 60]) for _ in range(4000)]
    samples = [OutcomeSample(0, 3, rank, True) for rank in ranks]
    found, drawn = fit_outcome_law(samples), fit_hit_law(ranks)
    assert found is not None and drawn is not None
    assert found.rejected.scale == pytest.approx(sum(rank > 0 for rank in ranks) / len(ranks), abs=1e-9)
    assert abs(drawn.law.scale - found.rejected.scale) > 0.03


@pytest.mark.quick("0.7")
@pytest.mark.parametrize("exponent", [0.2, 0.7, 1.5])
def test_the_likeliest_exponent_is_where_the_likelihood_is_largest(exponent: float):
    law, generator = OutcomeLaw(0.0, HitLaw(exponent, 0.5)), random.Random(8)
    ranks = [draw(law, 1, generator).rank or 0 for _ in range(3000)]

    def likelihood(r: float) -> float:
        misses = [min(rank, 64) for rank in ranks if rank]
        return sum(-r * math.log(f) if f == 64 else math.log(f**-r - (f + 1) ** -r) for f in misses)

    found = likeliest_exponent(ranks)
    assert found is not None
    assert found == pytest.approx(exponent, rel=0.15)
    assert found == pytest.approx(max((i / 500 for i in range(20, 1500)), key=likelihood), abs=0.003)
    assert likeliest_exponent([0] * 50 + [3] * 4) is None


@pytest.mark.parametrize("budget", [8, 16])
def test_short_recordings_do_not_mislead(budget: int):
    """Where uniform is best, schedules fitted to 60 rounds lose next to nothing. Planted: after k kept tokens there are
    few misses to fit, and the law after a rejection stands in for them; that costs points.
    """
    k, truth = 7, OutcomeLaw(0.86, HitLaw(0.75, 0.45), HitLaw(1.1, 0.07))
    weights, rates = truth.weights(k), truth.hit_rates(k, budget)
    uniform = weighted_hit_rate([budget // (k + 1)] * (k + 1), weights, rates)

    def solved(law: OutcomeLaw) -> float:
        return weighted_hit_rate(allocate(law.weights(k), law.hit_rates(k, budget), budget), weights, rates)

    generator = random.Random(11)
    fitted, believed = [], []
    for _ in range(40):
        samples = [draw(truth, k, generator) for _ in range(60)]
        law = fit_outcome_law(samples)
        assert law is not None
        fitted.append(solved(law) - uniform)
        few = sum(s.rank != 0 for s in samples if s.all_accepted) < 5
        believed.append(solved(OutcomeLaw(law.acceptance, law.rejected, None if few else law.bonus)) - uniform)
    assert sum(fitted) / len(fitted) > -0.005
    assert sum(believed) / len(believed) < -0.01


def test_measured_curves_make_the_best_counts_for_the_very_rounds():
    """Against every other counts of that sum, and so never below uniform ones."""
    generator, k = random.Random(6), 3
    samples = [draw(OutcomeLaw(0.6, HitLaw(0.4, 0.7), HitLaw(0.9, 0.2)), k, generator) for _ in range(150)]
    curves = measured_curves([*samples, OutcomeSample(1, 2, 0, True), OutcomeSample(1, k, None, True)], k, 8)
    assert curves is not None

    def hits(counts: Sequence[int]) -> int:
        return sum(s.rank is not None and s.rank < counts[s.num_accepted] for s in samples)

    for budget in (4, 8):
        found = allocate(*curves, budget)
        assert weighted_hit_rate(found, *curves) == pytest.approx(hits(found) / len(samples))
        assert hits(found) == max(hits(counts) for counts in compositions(k + 1, budget))
        assert hits(found) >= hits([budget // (k + 1)] * (k + 1))
    assert measured_curves([], k, 8) is None


def test_the_unscaled_fit_starts_at_one():
    generator = random.Random(2)
    law = OutcomeLaw(0.0, HitLaw(0.8))
    fit = fit_hit_law([draw(law, 1, generator).rank or 0 for _ in range(5000)], scaled=False)
    assert fit is not None
    assert fit.law.scale == 1.0
    assert fit.law.exponent == pytest.approx(0.8, abs=0.05)


def test_too_little_is_not_fitted():
    assert fit_hit_law([]) is None
    assert fit_hit_law([0] * 100) is None
    assert fit_outcome_law([]) is None
    assert acceptance_rate([]) is None


def test_measured_hit_rates_count_ranks_below():
    assert measured_hit_rates([0, 0, 1, 5], 3) == [0, 0.5, 0.75, 0.75]
    with pytest.raises(ValueError, match="no ranks"):
        measured_hit_rates([], 3)


def statistics(law: OutcomeLaw, k: int, forgetting: float = 1.0) -> OutcomeStatistics:
    return OutcomeStatistics(k, 16, after_hit=law, after_miss=law, prior_rounds=20, forgetting=forgetting)


def test_before_the_first_round_the_prior_is_what_is_predicted():
    learner = ScheduleLearner([3, 3, 3], [3, 3, 3], statistics(LAW, 2))
    expected = weighted_hit_rate([3, 3, 3], LAW.weights(2), LAW.hit_rates(2, 16))
    assert learner.predicted_hit_rate(True) == pytest.approx(expected)


def test_a_wrong_prior_is_unlearned_and_the_budget_stays():
    """Prior: nothing is ever accepted. Truth: LAW after hits, poor acceptance after misses. The learned schedules come
    within half a point of those that know the truth, and differ between the two kinds of round."""
    k, budget = 5, 18
    after_miss = OutcomeLaw(0.2, HitLaw(0.5, 0.8))
    prior = statistics(OutcomeLaw(0.0, HitLaw(0.1, 0.9)), k, forgetting=0.9995)
    start = [budget, *[0] * k]
    learner = ScheduleLearner(start, start, prior, resolve_every=16)
    generator = random.Random(1)
    for _ in range(4000):
        hit = generator.random() < 0.6
        sample = draw(LAW if hit else after_miss, k, generator)
        learner.observe(hit, sample.num_accepted, sample.rank, k)
        assert sum(learner.counts(True)) == sum(learner.counts(False)) == learner.budget == budget
    assert learner.counts(True) != learner.counts(False)
    for hit, law in ((True, LAW), (False, after_miss)):
        truth = law.weights(k), law.hit_rates(k, 16)
        best = weighted_hit_rate(allocate(*truth, budget), *truth)
        assert weighted_hit_rate(learner.counts(hit), *truth) >= best - 0.005
        assert learner.predicted_hit_rate(hit) == pytest.approx(
            weighted_hit_rate(learner.counts(hit), *truth), abs=0.03
        )


def test_forgetting_follows_a_change():
    k, generator = 4, random.Random(3)
    learner = ScheduleLearner([5, 0, 0, 0, 0], [5, 0, 0, 0, 0], statistics(LAW, k, forgetting=0.99), resolve_every=8)
    for law in (OutcomeLaw(0.95, HitLaw(1.0, 0.5)), OutcomeLaw(0.05, HitLaw(1.0, 0.5))):
        for _ in range(1500):
            sample = draw(law, k, generator)
            learner.observe(True, sample.num_accepted, sample.rank, k)
        favourite = max(range(k + 1), key=learner.counts(True).__getitem__)
        assert favourite == (k if law.acceptance > 0.5 else 0)


def test_rounds_that_verified_fewer_tokens_teach_nothing():
    learner = ScheduleLearner([1, 1, 1], [1, 1, 1], statistics(LAW, 2), resolve_every=1)
    before = learner.predicted_hit_rate(True)
    learner.observe(True, 1, 0, 1)
    assert learner.predicted_hit_rate(True) == before
    with pytest.raises(ValueError, match=r"within 0\.\.2"):
        learner.observe(True, 3, 0, 2)


def test_schedules_of_different_sums_are_refused():
    with pytest.raises(ValueError, match="same sum"):
        ScheduleLearner([1, 2], [1, 1], statistics(LAW, 1))
