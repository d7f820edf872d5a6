"""The clock against the formulas, the formulas against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest

from ssd_lab.errors import ConfigError
from ssd_lab.simulate import HardwareProfile, Rates, simulate
from ssd_lab.simulate.closed_form import (
    async_over_sync_bound,
    critical_batch,
    expected_tokens,
    speedup_async,
    speedup_async_batch,
    speedup_sync,
)


def test_expected_tokens_is_the_geometric_sum():
    assert expected_tokens(0.5, 2) == 1.75
    assert expected_tokens(1.0, 6) == 7
    assert expected_tokens(0.0, 6) == 1


def test_theorem_7_by_hand():
    speed = speedup_async(hit_rate=0.5, tokens_hit=4, tokens_miss=2, draft_time=1.5, fallback_time=0.5)
    assert speed == 3 / (0.5 * 1.5 + 0.5 * 1.5)


def test_corollary_16_is_theorem_7_at_batch_1_and_falls_with_the_batch():
    fields = {"hit_rate": 0.8, "tokens_hit": 4.0, "tokens_miss": 3.0, "draft_time": 0.5, "fallback_time": 1.0}
    speeds = [speedup_async_batch(batch=b, **fields) for b in (1, 2, 4, 100)]
    assert speeds[0] == speedup_async(**fields)
    assert speeds == sorted(speeds, reverse=True)
    assert speeds[-1] == pytest.approx(3.8 / 2)


def test_overlap_gains_at_most_a_factor_of_two():
    assert [async_over_sync_bound(t) for t in (0, 0.5, 1, 3)] == [1, 1.5, 2, 4 / 3]


def test_critical_batch_is_where_both_fallbacks_are_equally_fast():
    common = {"hit_rate": 0.85, "tokens_hit": 4.0, "draft_time": 0.8}
    slow, fast = {"tokens_miss": 4.0, "fallback_time": 0.2}, {"tokens_miss": 1.0, "fallback_time": 0.0}
    batch = critical_batch(**common, slow_tokens=4.0, slow_time=0.2, fast_tokens=1.0, fast_time=0.0)
    assert (
        speedup_async_batch(batch=math.floor(batch), **common, **slow)
        / speedup_async_batch(batch=math.floor(batch), **common, **fast)
        > 1
    )
    assert (
        speedup_async_batch(batch=math.ceil(batch), **common, **slow)
        / speedup_async_batch(batch=math.ceil(batch), **common, **fast)
        < 1
    )
    assert critical_batch(**common, slow_tokens=4.0, slow_time=0.1, fast_tokens=1.0, fast_time=0.1) == math.inf


def test_rates_outside_their_range_are_refused():
    with pytest.raises(ConfigError, match="hit_rate 2"):
        speedup_async(hit_rate=2, tokens_hit=1, tokens_miss=1, draft_time=1, fallback_time=1)
    with pytest.raises(ConfigError, match="hit_rate is 1"):
        critical_batch(hit_rate=1, tokens_hit=1, draft_time=1, slow_tokens=1, slow_time=1, fast_tokens=1, fast_time=0)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("tree_step", [0.1, 0.3])  # 5 steps: half a verification, one and a half
@pytest.mark.parametrize("fallback", ["jit", "fast"])
def test_the_clock_agrees_with_the_formula_to_one_percent(batch: int, tree_step: float, fallback: str):
    k, acceptance, hit_rate = 5, 0.75, 0.8
    miss_acceptance = acceptance if fallback == "jit" else 0.1
    profile = HardwareProfile(
        name="unit", source="units of one verification", verify_s=1.0, draft_step_s=0.12, draft_tree_step_s=tree_step,
        fast_fallback_s=0.05,
    )  # fmt: skip
    rates = Rates(
        acceptance, k, hit_rate, miss_acceptance, fallback=fallback, batch=batch, rounds=20_000 // batch, seed=3
    )  # type: ignore[arg-type]
    expected = speedup_async_batch(
        batch=batch,
        hit_rate=hit_rate,
        tokens_hit=expected_tokens(acceptance, k),
        tokens_miss=expected_tokens(miss_acceptance, k),
        draft_time=k * tree_step,
        fallback_time=k * 0.12 if fallback == "jit" else 0.05,
    )
    assert simulate(rates, profile).speedup == pytest.approx(expected, rel=0.01)


def test_the_clock_agrees_with_synchronous_speculation_to_one_percent():
    profile = HardwareProfile(name="unit", source="", verify_s=1.0, draft_step_s=0.1, draft_tree_step_s=0.1)
    simulation = simulate(Rates(0.7, 4, rounds=20_000, seed=1), profile)
    assert simulation.strategy == "sync"
    assert simulation.speedup == pytest.approx(speedup_sync(expected_tokens(0.7, 4), 0.4), rel=0.01)
