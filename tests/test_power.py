"""The suite's own statistics: a power that is computed is the share of repetitions that reject."""

from __future__ import annotations

import numpy as np
import pytest
from decoding.chi_square import chi_square_p
from power import ALPHA, NORMAL, chi_square_power, critical, effect, power_of, score

from ssd_lab.check.statistics import chi_square_survival

RIGHT, WRONG = [0.5, 0.3, 0.2], [0.45, 0.3, 0.25]


def test_the_size_of_a_fault_by_hand():
    assert effect(RIGHT, RIGHT) == 0
    assert effect(RIGHT, WRONG) == pytest.approx(0.05**2 / 0.5 + 0.05**2 / 0.2)
    assert effect([1.0, 0.0], [0.9, 0.1]) == float("inf"), "what cannot come came"


@pytest.mark.parametrize("draws", [200, 600, 1200])
def test_the_power_is_the_share_of_repetitions_that_reject(draws: int):
    """4,000 repetitions: 0.035 is more than four standard deviations of a share."""
    counts = np.random.default_rng(draws).multinomial(draws, WRONG, size=4000)
    rejected = np.mean([chi_square_p(one, np.array(RIGHT) * draws) < 0.05 for one in counts])
    assert chi_square_power(effect(RIGHT, WRONG), draws, cells=3, alpha=0.05) == pytest.approx(rejected, abs=0.035)


def test_more_draws_or_a_larger_fault_are_found_more_surely():
    powers = [chi_square_power(0.01, draws, cells=6) for draws in (0, 1000, 4000, 10_000)]
    assert powers == sorted(powers)
    assert powers[0] == ALPHA and powers[-1] > 0.999
    assert chi_square_power(0.02, 4000, cells=6) > powers[2]


def test_the_critical_value_has_its_p_value():
    for degrees in (1, 5, 49):
        assert chi_square_survival(critical(degrees, ALPHA), degrees) == pytest.approx(ALPHA, rel=1e-6)


def test_scores_turn_p_values_into_power():
    assert score(0.5) == pytest.approx(0)
    assert score(0.0) == pytest.approx(37.0, abs=1)
    assert power_of([1e-3, 1e-3], alpha=1e-3) == pytest.approx(0.5)
    assert power_of([1e-9], alpha=0.01) == pytest.approx(NORMAL.cdf(score(1e-9) - score(0.01)))
    assert power_of([1e-9], alpha=0.01) > 0.999
