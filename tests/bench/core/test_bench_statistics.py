"""Intervals: known quantiles, coverage on numbers whose mean is known, and none where nothing can be said."""

from __future__ import annotations

import numpy as np
import pytest

from ssd_lab.common.statistics import (
    MIN_REQUESTS,
    bootstrap_ratio,
    paired_ratio,
    ratio,
    student_interval,
    t_quantile,
)


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 12.7062), (2, 4.3027), (4, 2.7764), (9, 2.2622), (30, 2.0423), (1000, 1.9623)]
)
def test_quantiles_of_students_distribution(degrees: float, quantile: float):
    assert t_quantile(degrees) == pytest.approx(quantile, abs=1e-4)


def test_student_intervals_hold_the_mean_95_times_in_100():
    draws = np.random.default_rng(0).normal(10, 1, size=(1500, 4))
    found = [student_interval(list(sample)) for sample in draws]
    share = np.mean([each.low < 10 < each.high for each in found])
    assert 0.935 < share < 0.965


def test_bootstrap_of_requests_holds_the_ratio_about_95_times_in_100():
    generator = np.random.default_rng(1)
    holds = 0
    for trial in range(150):
        tested = generator.integers(5, 60, size=40)
        rates = generator.beta(6, 4, size=40)  # each request has an acceptance of its own, 0.6 on average
        found = bootstrap_ratio(list(generator.binomial(tested, rates)), list(tested), seed=trial)
        holds += found.low < 0.6 < found.high
    assert 0.88 < holds / 150 < 0.99


def test_the_ratio_of_two_runs():
    generator = np.random.default_rng(2)
    fast, slow = (np.exp(np.log(speed) + generator.normal(0, 0.05, size=(400, 5))) for speed in (30, 20))
    found = [ratio(list(a), list(b)) for a, b in zip(fast, slow, strict=True)]
    assert np.mean([each.low < 1.5 < each.high for each in found]) == pytest.approx(0.95, abs=0.03)


def test_too_little_to_say_has_no_interval():
    assert (student_interval([3.0]).mean, student_interval([3.0]).low) == (3.0, None)
    few = bootstrap_ratio([1] * (MIN_REQUESTS - 1), [2] * (MIN_REQUESTS - 1))
    assert (few.mean, few.low) == (0.5, None)
    assert bootstrap_ratio([0, 0], [0, 0]) is None
    assert ratio([2.0], [1.0, 1.1]).high is None
    assert student_interval([2.0, 2.0]).relative_width == 0
    for wrong in (lambda: student_interval([]), lambda: ratio([], [1.0])):
        with pytest.raises(ValueError, match="values"):
            wrong()


def test_pairs_are_not_moved_by_drift_nor_by_a_disturbed_one():
    generator = np.random.default_rng(3)
    drift = generator.normal(0, 0.5, size=(400, 10))  # hits both of a pair alike
    fast = np.exp(drift + generator.normal(0, 0.01, size=(400, 10)) + np.log(1.02))
    slow = np.exp(drift + generator.normal(0, 0.01, size=(400, 10)))
    fast[:, 3] *= 5  # somebody else used the machine
    found = [paired_ratio(list(a), list(b)) for a, b in zip(fast, slow, strict=True)]
    assert np.mean([each.low < 1.02 < each.high for each in found]) > 0.95
    assert max(each.high for each in found) < 1.08
    assert paired_ratio([2.0] * 5, [1.0] * 5).high is None
    with pytest.raises(ValueError, match="values"):
        paired_ratio([0.0], [1.0])
