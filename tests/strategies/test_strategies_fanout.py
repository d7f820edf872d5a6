"""Schedules as configs."""

from __future__ import annotations

import random
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from ssd_lab.decoding.fan_out import continuous_fan_out, predicted_hit_rate, weighted_hit_rate
from ssd_lab.errors import ConfigError
from ssd_lab.strategies.fanout import Adaptive, Explicit, FanOut, Geometric, Law, Schedule, Uniform, geometric
from ssd_lab.trace import RoundRecord, SequenceRound, Trace
from ssd_lab.trace.outcomes import replayed_learner

SCHEDULES: list[Schedule] = [
    Uniform(f=3),
    Explicit(hit=[4, 3, 2, 1, 1, 1, 9], miss=[9, 4, 3, 2, 1, 1, 1]),
    Geometric(budget=21),
    Geometric(budget=21, acceptance=0.8, exponent=0.5),
    Geometric(budget=21, hit=Law(acceptance=0.9), miss=Law(acceptance=0.4, scale=0.7, bonus_scale=0.3)),
    Adaptive(budget=21),
]  # fmt: skip


def recorded(rounds: int, seed: int = 0, acceptance: float = 0.7) -> Trace:
    """Rounds of k = 4 whose ranks follow miss rate 0.6 F^-0.8; those after a hit accept more."""
    generator = random.Random(seed)
    records, hit = [], False
    for index in range(rounds):
        accepted = 0
        while accepted < 4 and generator.random() < acceptance + (0.15 if hit else -0.15):
            accepted += 1
        rank, u = 0, generator.random()
        while rank < 200 and u < 0.6 * (rank + 1) ** -0.8:
            rank += 1
        one = SequenceRound(
            0, 5, [1, 2, 3, 4], [0.5] * 4, [0.5] * 4, accepted, 9, 0.5, accepted + 1, "hit" if hit else "jit",
            cache_hit=hit, recovery_rank=rank,
        )  # fmt: skip
        records.append(RoundRecord(index, index, index + 1, [one]))
        hit = rank < 3
    return Trace({}, rounds=records)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_every_schedule_keeps_its_sum_and_survives_a_round_trip(schedule: Schedule):
    k = 6
    assert sum(schedule.after_hit(k)) == sum(schedule.after_miss(k)) == 21
    assert len(schedule.after_hit(k)) == len(schedule.after_miss(k)) == k + 1
    assert TypeAdapter(FanOut).validate_python(schedule.model_dump()) == schedule
    learner = schedule.learner(k)
    assert (learner.counts(True), learner.counts(False)) == (schedule.after_hit(k), schedule.after_miss(k))
    assert 0 < learner.predicted_hit_rate(True) < 1


@pytest.mark.parametrize("schedule", [s for s in SCHEDULES if not isinstance(s, Adaptive)], ids=lambda s: s.kind)
def test_only_adaptive_changes(schedule: Schedule):
    learner = schedule.learner(6)
    before = learner.counts(True)
    predicted = learner.predicted_hit_rate(True)
    for _ in range(100):
        learner.observe(True, 0, 0, 6)
    assert learner.counts(True) == before
    assert learner.predicted_hit_rate(True) > predicted  # what it predicts follows what it saw
    adaptive = Adaptive(budget=21).learner(6)
    for _ in range(100):
        adaptive.observe(True, 0, 3, 6)
    assert adaptive.counts(True) != Adaptive(budget=21).after_hit(6)


def test_the_fixed_function_is_the_theorem_in_integers():
    counts = geometric(k=6, budget=30, acceptance=0.8, exponent=0.5)
    assert sum(counts) == 30 and len(counts) == 7
    for count, real in zip(counts, continuous_fan_out(6, 30, 0.8, 0.5), strict=True):
        assert abs(count - real) <= 1
    assert predicted_hit_rate(counts, 0.8, 0.5) >= predicted_hit_rate([5, 5, 4, 4, 4, 4, 4], 0.8, 0.5)
    assert tuple(counts) == Geometric(budget=30, acceptance=0.8, exponent=0.5).after_hit(6)


@pytest.mark.parametrize(
    "bad",
    [{"acceptance": 1.5}, {"exponent": 0.0}, {"budget": -1}, {"k": -1}],
)
def test_the_fixed_function_explains_bad_values(bad: dict[str, Any]):
    with pytest.raises(ConfigError):
        geometric(**{"k": 4, "budget": 10, "acceptance": 0.5, "exponent": 1.0, **bad})


def test_a_schedule_is_estimated_from_a_trace_apart_for_hits_and_misses():
    schedule = Geometric.from_trace(recorded(3000), 15)
    after_hit, after_miss = schedule.laws()
    assert after_hit.acceptance == pytest.approx(0.85, abs=0.02)
    assert after_miss.acceptance == pytest.approx(0.55, abs=0.02)
    assert after_hit.rejected.exponent == pytest.approx(0.8, abs=0.15)
    assert schedule.after_hit(4)[4] > schedule.after_miss(4)[4]
    with pytest.raises(ConfigError, match="tells no fan-out"):
        Geometric.from_trace(Trace({}), 15)


@pytest.mark.parametrize("budget", [8, 15, 32])
def test_estimated_schedules_hit_more_than_uniform_on_rounds_they_have_not_seen(budget: int):
    fitted, unseen = Geometric.from_trace(recorded(3000), budget), recorded(4000, seed=1)
    even = tuple(budget // 5 + (a < budget % 5) for a in range(5))
    solved, lookups = replayed_learner(unseen, fitted.learner(4))
    uniform, same = replayed_learner(unseen, Explicit(hit=list(even)).learner(4))
    assert lookups == same == 3999
    assert solved >= uniform


@pytest.mark.parametrize("budget", [5, 10, 30])
def test_in_hindsight_no_counts_hit_more_often_than_the_measured_ones(budget: int):
    trace = recorded(400)
    best, lookups = replayed_learner(trace, Explicit.from_trace(trace, 4, budget).learner(4))
    assert lookups == 399
    for other in (Uniform(f=budget // 5), Geometric(budget=budget), Explicit(hit=[budget, 0, 0, 0, 0])):
        pooled = Explicit(hit=list(other.after_hit(4)))
        assert best >= replayed_learner(trace, pooled.learner(4))[0] - 1  # the last round is fitted to, not looked up
    with pytest.raises(ConfigError, match="at k = 5"):
        Explicit.from_trace(trace, 5, budget)


def test_a_replayed_schedule_hits_as_recorded():
    """The recorded hits came from rank < 3: replaying f = 3 finds each of them."""
    trace = recorded(500)
    hits = sum(bool(r.sequences[0].cache_hit) for r in trace.rounds)
    assert replayed_learner(trace, Uniform(f=3).learner(4)) == (hits, 499)


def test_what_is_predicted_is_what_happens():
    fitted, unseen = Geometric.from_trace(recorded(4000), 15), recorded(4000, seed=2)
    for hit in (True, False):
        law, counts = fitted.laws()[not hit], (fitted.after_hit if hit else fitted.after_miss)(4)
        expected = weighted_hit_rate(counts, law.weights(4), law.hit_rates(4, 15))
        rounds = [r.sequences[0] for r in unseen.rounds if r.sequences[0].cache_hit is hit]
        happened = sum(r.recovery_rank < counts[r.num_accepted] for r in rounds) / len(rounds)
        assert happened == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "geometric"}, "budget"),
        ({"kind": "geometric", "budget": 8, "acceptance": 2}, "less than or equal to 1"),
        ({"kind": "geometric", "budget": 8, "acceptance": 0.5, "hit": {}}, "give one of them"),
        ({"kind": "adaptive", "budget": 8, "every": 0}, "greater than or equal to 1"),
        ({"kind": "adaptive", "budget": 8, "f": 3}, "Extra inputs"),
        ({"kind": "explicit", "hit": [1, 2], "miss": [1, 1]}, "make the sums equal"),
        ({"kind": "wide"}, "uniform"),
    ],
)
def test_bad_fields_are_explained(fields: dict[str, Any], message: str):
    with pytest.raises(ValidationError, match=message):
        TypeAdapter(FanOut).validate_python(fields)
