"""Dynamic lookahead: against trying every k, against the truth that was planted, and against every fixed k."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssd_lab.learning.lookahead import (
    ConfidenceCalibration,
    LookaheadChooser,
    best_lookahead,
    expected_tokens_by_length,
    static_lookahead,
)
from ssd_lab.learning.time_fit import TimeFit


def test_the_static_rule_fills_a_verification():
    assert static_lookahead(11.45, 2.54, 16) == 4
    assert static_lookahead(1.0, 2.0, 16) == 1
    assert static_lookahead(100.0, 1.0, 16) == 16
    assert static_lookahead(1.0, 0.0, 16) == 16


def test_expected_tokens_by_hand():
    assert expected_tokens_by_length([0.5, 0.5, 0.0, 1.0]) == [1, 1.5, 1.75, 1.75, 1.75]


@given(st.lists(st.floats(0, 1), max_size=8), st.floats(0.1, 5), st.floats(0.01, 2))
@settings(max_examples=60, deadline=None)
def test_the_best_k_is_the_best_of_all(chances: list[float], verify: float, step: float):
    speeds = [t / (verify + k * step) for k, t in enumerate(expected_tokens_by_length(chances))]
    found = best_lookahead(chances, lambda k: verify + k * step)
    assert speeds[found] == max(speeds)
    assert all(speed < speeds[found] for speed in speeds[:found])


def test_calibration_learns_how_far_confidence_is_to_be_trusted():
    """A draft that is twice as sure as it is right."""
    calibration, generator = ConfidenceCalibration(), random.Random(0)
    assert calibration.chance(0.92) == pytest.approx(0.925)
    for _ in range(10_000):
        confidences = [generator.random() for _ in range(4)]
        accepted = next((i for i, c in enumerate(confidences) if generator.random() >= c / 2), 4)
        calibration.observe(confidences, accepted)
    for confidence in (0.225, 0.525, 0.925):
        assert calibration.chance(confidence) == pytest.approx(confidence / 2, abs=0.08)


def test_times_are_learned_as_a_base_and_a_slope():
    fit = TimeFit(9.0)
    assert fit.at(3) == 9.0
    for count in (1, 4, 2, 6) * 50:
        fit.observe(count, 2.0 + 0.5 * count)
    assert [fit.at(n) for n in (0, 5)] == pytest.approx([2.0, 4.5])
    one = TimeFit()
    one.observe(4, 2.0)
    assert one.at(8) == 2.0
    with pytest.raises(ValueError, match="no time"):
        TimeFit().at(1)


def speed(k: int | None, *, easy_share: float, step_s: float, rounds: int = 4000, seed: int = 0) -> float:
    """Tokens per second of synchronous rounds; k None: dynamic. Easy rounds are confident and right."""
    generator, longest, verify_s = random.Random(seed), 10, 1.0
    chooser = LookaheadChooser(longest, verify_s=verify_s, step_s=step_s, overlapped=False)
    tokens = seconds = 0.0
    for _ in range(rounds):
        chance = 0.95 if generator.random() < easy_share else 0.3
        fates = [generator.random() < chance for _ in range(longest)]
        confidences = [min(0.999, max(0.0, chance + generator.gauss(0, 0.05))) for _ in range(longest)]
        drafted = k if k is not None else 0
        if k is None:
            while chooser.go_on(confidences[:drafted]):
                drafted += 1
        accepted = next((i for i in range(drafted) if not fates[i]), drafted)
        chooser.observe(confidences[:drafted], accepted, verify_s=verify_s, draft_s=drafted * step_s)
        tokens, seconds = tokens + accepted + 1, seconds + verify_s + drafted * step_s
    return tokens / seconds


@pytest.mark.quick("0.5")
@pytest.mark.parametrize("easy_share", [0.0, 0.5, 1.0])
def test_dynamic_is_at_least_as_fast_as_the_best_fixed_k(easy_share: float):
    best_fixed = max(speed(k, easy_share=easy_share, step_s=0.15) for k in range(1, 11))
    dynamic = speed(None, easy_share=easy_share, step_s=0.15)
    assert dynamic > best_fixed * (1.05 if easy_share == 0.5 else 0.97)


def test_overlapped_drafting_is_free_up_to_one_verification():
    chooser = LookaheadChooser(10, verify_s=1.0, step_s=0.24, overlapped=True)
    assert chooser.start == 4
    assert chooser.choose() >= 4
    assert chooser.round_s(4) == 1.0 < chooser.round_s(5)


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="at least 1"):
        LookaheadChooser(0, verify_s=1.0, step_s=1.0, overlapped=False)
    with pytest.raises(ValueError, match="prior"):
        ConfidenceCalibration(prior=0)
