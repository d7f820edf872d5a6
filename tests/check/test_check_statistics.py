"""The statistics of the check, on numbers whose distribution is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ssd_lab.check.statistics import (
    bin_counts,
    bin_deviation,
    chi_square_survival,
    chi_square_uniform,
    holm,
    kolmogorov_survival,
    kolmogorov_uniform,
    mean_zero,
)


@pytest.mark.parametrize(
    ("statistic", "degrees", "expected"),
    [(3.841459, 1, 0.05), (6.634897, 1, 0.01), (66.33865, 49, 0.05), (74.91947, 49, 0.01), (0.0, 7, 1.0)],
)
def test_chi_square_survival_is_that_of_the_tables(statistic: float, degrees: int, expected: float):
    assert chi_square_survival(statistic, degrees) == pytest.approx(expected, rel=1e-4)


def test_chi_square_survival_with_two_degrees_is_exponential():
    for statistic in (0.1, 1.0, 10.0, 100.0):
        assert chi_square_survival(statistic, 2) == pytest.approx(math.exp(-statistic / 2), rel=1e-9)


@pytest.mark.parametrize(("scaled", "expected"), [(1.22385, 0.10), (1.35810, 0.05), (1.62762, 0.01)])
def test_kolmogorov_survival_is_that_of_the_tables(scaled: float, expected: float):
    count = 10**8  # where the correction for small samples vanishes
    assert kolmogorov_survival(scaled / math.sqrt(count), count) == pytest.approx(expected, rel=1e-3)
    assert kolmogorov_survival(0.0, 100) == 1.0


def test_p_values_of_uniform_numbers_are_uniform():
    random = np.random.default_rng(7)
    samples = [random.random(2000) for _ in range(400)]
    for test in (chi_square_uniform, kolmogorov_uniform):
        p_values = np.array([test(sample).p_value for sample in samples])
        assert kolmogorov_uniform(p_values).p_value > 0.001
        assert (p_values < 0.01).mean() < 0.03


def test_a_small_slant_is_seen_in_20000_draws():
    random = np.random.default_rng(8)
    slanted = random.random(20_000) ** 1.1
    assert chi_square_uniform(slanted).p_value < 1e-6
    assert kolmogorov_uniform(slanted).p_value < 1e-6


def test_a_mean_that_is_off_is_seen():
    random = np.random.default_rng(10)
    spreads = random.random(10_000) + 0.5
    values = random.standard_normal(10_000) * spreads
    assert mean_zero(values, spreads**2).p_value > 0.01
    assert mean_zero(values + 0.1, spreads**2).p_value < 1e-6
    assert mean_zero(np.zeros(3), np.zeros(3)).p_value == 1.0


def test_few_draws_get_fewer_bins():
    random = np.random.default_rng(9)
    assert 0 < chi_square_uniform(random.random(30)).p_value <= 1
    assert chi_square_uniform(np.full(30, 0.999)).p_value < 1e-6


def test_the_ends_of_the_interval_belong_to_the_outer_bins():
    assert bin_counts(np.array([0.0, 1.0, 0.02, 0.0199]), 50).tolist()[:2] == [2, 1]
    assert bin_counts(np.array([1.0]), 50)[-1] == 1


def test_bin_deviation_is_the_share_in_the_wrong_bin():
    assert bin_deviation((np.arange(1000) + 0.5) / 1000) == pytest.approx(0)
    assert bin_deviation(np.full(1000, 0.5), 50) == pytest.approx(0.98)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
