"""Drawn rounds: against the formulas, against each other, and what they say about time."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import Any

import pytest

from ssd_lab.decoding.fan_out import HitLaw, length_weights
from ssd_lab.errors import ConfigError
from ssd_lab.simulate import HardwareProfile, OutcomeModel, Rates, RoundModel, Scenario, simulate
from ssd_lab.simulate.closed_form import expected_tokens, speedup_async_batch, speedup_sync
from ssd_lab.simulate.outcome_model import draw_rank
from ssd_lab.strategies.fanout import Adaptive, Uniform
from ssd_lab.trace import RoundRecord, SequenceRound, Trace

LAW, BONUS = HitLaw(0.7, 0.6), HitLaw(0.9, 0.2)
MODEL = OutcomeModel.of(0.8, LAW, bonus=BONUS)


def machine(**fields: Any) -> HardwareProfile:
    times = {"verify_s": 1.0, "draft_step_s": 0.12, "draft_tree_step_s": 0.15, "fast_fallback_s": 0.05, **fields}
    return HardwareProfile(name="unit", source="units of one verification", **times)


def test_ranks_follow_their_law():
    generator = random.Random(0)
    ranks = [draw_rank(generator, LAW) for _ in range(20_000)]
    for fan_out in (1, 2, 5, 20):
        assert sum(r >= fan_out for r in ranks) / len(ranks) == pytest.approx(0.6 * fan_out**-0.7, abs=0.01)


@pytest.mark.grid(one_of=5)
@pytest.mark.parametrize("batch", [1, 4, 16])
@pytest.mark.parametrize("tree_step", [0.1, 0.3])
@pytest.mark.parametrize("fallback", ["jit", "fast"])
def test_drawn_rounds_agree_with_the_formula_to_one_percent(batch: int, tree_step: float, fallback: str):
    """Corollary 16 (Theorem 7 at batch 1) with the hit rate that the drawn ranks and the schedule give.

    It takes every lookup for a draw of its own; ranks here are those, with one law for all rounds."""
    k, acceptance = 5, 0.8
    law = HitLaw(0.7, 0.4)
    same = RoundModel((acceptance,), law, law)
    quick = RoundModel((0.1,), law, law)  # one law whatever the accepted length: the hit rate is that of F alone
    model = OutcomeModel(same, same, quick)
    scenario = Scenario("async_tree", k, 4, fallback, batch=batch, rounds=40_000 // batch, seed=2)  # type: ignore[arg-type]
    expected = speedup_async_batch(
        batch=batch,
        hit_rate=law.hit_rate(4),
        tokens_hit=expected_tokens(acceptance, k),
        tokens_miss=expected_tokens(acceptance if fallback == "jit" else 0.1, k),
        draft_time=k * tree_step,
        fallback_time=k * 0.12 if fallback == "jit" else 0.05,
    )
    simulation = simulate(model, machine(draft_tree_step_s=tree_step), scenario=scenario)
    assert simulation.hit_rate == pytest.approx(law.hit_rate(4), rel=0.01)
    assert simulation.speedup == pytest.approx(expected, rel=0.01)


def test_the_hit_rate_is_that_of_the_schedule_by_length():
    fan_out = [5, 4, 3, 2, 1, 1, 9]
    simulation = simulate(MODEL, machine(), scenario=Scenario("async_tree", 6, fan_out, rounds=20_000))
    assert simulation.hit_rate == pytest.approx(MODEL.hit.hit_rate(fan_out), abs=0.01)
    assert MODEL.hit.weights(6) == pytest.approx(length_weights(0.8, 6))


def test_a_chain_agrees_with_the_formula():
    simulation = simulate(MODEL, machine(), scenario=Scenario("sync_chain", 4, rounds=30_000))
    assert simulation.speedup == pytest.approx(speedup_sync(expected_tokens(0.8, 4), 0.48), rel=0.01)
    assert simulation.strategy == "sync_chain"
    assert simulation.time_by_cause["draft"] / simulation.time_s == pytest.approx(0.48 / 1.48)


@pytest.mark.parametrize(
    ("scenario", "seconds"),
    [
        (Scenario("autoregressive", rounds=10), 1.0),
        (Scenario("sync_tree", 3, widths=(3, 2, 1), rounds=10), 1.36),
        (Scenario("eagle3", 3, mode="sync", rounds=10), 1.15),
        (Scenario("prompt_lookup", 3, rounds=10), 1.0),
        (Scenario("cascade", 3, rounds=400), None),
    ],
)
def test_every_strategy_costs_its_phases(scenario: Scenario, seconds: float | None):
    simulation = simulate(MODEL, machine(head_step_s=0.05), scenario=scenario)
    if seconds is not None:
        assert simulation.time_s / 10 == pytest.approx(seconds)
    else:  # n-grams found half the time: those rounds draft nothing
        assert simulation.time_by_cause["draft"] / 400 == pytest.approx(0.36 / 2, abs=0.03)


def test_a_wider_tree_is_accepted_farther():
    chain, tree = (
        simulate(MODEL, machine(), scenario=Scenario("sync_tree", 3, widths=widths, rounds=20_000))
        for widths in ((1, 1, 1), (4, 4, 4))
    )
    beside = LAW.hit_rate(3)  # three siblings, the first choice refused
    refused = 1 - 0.8**3
    assert tree.tokens_per_round - chain.tokens_per_round == pytest.approx(refused * beside, abs=0.03)


def test_without_times_of_a_head_the_result_says_so():
    simulation = simulate(MODEL, machine(), scenario=Scenario("eagle3", 3, rounds=10))
    assert any("EAGLE head" in caveat for caveat in simulation.caveats)


def test_branches_are_divided_among_draft_gpus():
    profile = machine(draft_tree_step_s={"kind": "affine", "base_s": 0.1, "per_row_s": 0.05})
    scenario = Scenario("async_tree", 4, 4, rounds=2000)
    one, four = (simulate(MODEL, profile, scenario=scenario, draft_gpus=n) for n in (1, 4))
    assert one.hit_rate == four.hit_rate
    per_hit_round = [s.time_by_cause["wait for draft"] / sum(r.hits for r in s.rounds) for s in (one, four)]
    assert per_hit_round == pytest.approx([4 * (0.1 + 20 * 0.05) - 1, 4 * (0.1 + 5 * 0.05) - 1])
    with pytest.raises(ConfigError, match="draft_gpus is 0"):
        simulate(MODEL, profile, scenario=scenario, draft_gpus=0)


def test_each_round_says_where_its_time_went():
    simulation = simulate(MODEL, machine(), scenario=Scenario("async_tree", 5, 3, batch=2, rounds=300))
    for one in simulation.rounds:
        assert sum(one.time_by_cause.values()) == pytest.approx(one.end_s - one.start_s)
        assert (one.time_by_cause["fallback"] > 0) == (one.hits < 2)
    assert sum(simulation.time_by_cause.values()) == pytest.approx(simulation.time_s)


def test_a_schedule_that_learns_beats_a_uniform_one_of_the_same_budget():
    after_miss = RoundModel((0.3,), LAW, BONUS)
    model = OutcomeModel(MODEL.hit, after_miss, after_miss)
    scenario = {"strategy": "async_tree", "k": 6, "rounds": 12_000}
    uniform, adaptive = (
        simulate(model, machine(), scenario=Scenario(fan_out=fan_out, **scenario))
        for fan_out in (Uniform(f=3), Adaptive(budget=21))
    )
    assert adaptive.hit_rate > uniform.hit_rate + 0.02


def crossing_machine() -> HardwareProfile:
    """A fallback that costs more for each row, as a draft does; a tree that fits behind the verification."""
    return machine(
        draft_step_s={"kind": "affine", "base_s": 0.05, "per_row_s": 0.004},
        draft_tree_step_s=0.15,
        verify_s={"kind": "affine", "base_s": 1.0, "per_row_s": 0.002},
    )


@pytest.mark.parametrize("one_of", [4, pytest.param(1, marks=pytest.mark.full)])
def test_auto_is_within_three_percent_of_the_better_fallback_at_every_batch(one_of: int):
    """And the better one changes on the way, else this would show nothing."""
    better = []
    for batch in [1, *range(one_of, 33, one_of)]:
        rounds = max(250, 3000 // batch)
        speeds = {
            kind: simulate(
                MODEL, crossing_machine(), scenario=Scenario("async_tree", 5, 3, kind, batch=batch, rounds=rounds)
            ).tokens_per_second
            for kind in ("jit", "fast", "auto")
        }
        better.append(max(("jit", "fast"), key=speeds.__getitem__))
        assert speeds["auto"] >= 0.97 * max(speeds["jit"], speeds["fast"]), f"batch {batch}: {speeds}"
    assert better[0] == "jit" and better[-1] == "fast"


def recorded(rounds: int) -> Trace:
    generator = random.Random(0)
    records, hit = [], False
    for index in range(rounds):
        accepted, rank = (MODEL.hit if hit else RoundModel((0.5,), LAW, BONUS)).draw(generator, 4)
        records.append(
            RoundRecord(index, index, index + 1, [
                SequenceRound(0, 5, [1] * 4, [0.5] * 4, [0.5] * 4, accepted, 9, 0.5, accepted + 1,
                              "hit" if hit else "jit", cache_hit=hit, recovery_rank=rank)
            ])
        )  # fmt: skip
        hit = rank < 3
    return Trace({"strategy": {"f": 3}}, rounds=records)


def test_a_trace_is_fitted_and_drawn_anew_like_it_was():
    trace = recorded(6000)
    replayed = simulate(trace, machine())
    drawn = simulate(trace, machine(), scenario=Scenario("async_tree", 4, 3, rounds=20_000))
    assert drawn.hit_rate == pytest.approx(replayed.hit_rate, abs=0.02)
    assert drawn.tokens_per_round == pytest.approx(replayed.tokens_per_round, rel=0.02)
    assert drawn.tokens_per_second == pytest.approx(replayed.tokens_per_second, rel=0.02)
    model = OutcomeModel.from_trace(trace)
    assert model.jit.acceptance[0] == pytest.approx(0.5, abs=0.04)
    assert model.fast.acceptance == (0.0,)  # none was recorded: such rounds are taken to guess nothing


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"strategy": "magic"}, "strategy is 'magic'"),
        ({"fallback": "slow"}, "fallback is 'slow'"),
        ({"k": 0}, "k is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"fan_out": [1, 2]}, "needs 7"),
        ({"widths": (1, 2)}, "depth k = 6"),
    ],
)
def test_scenarios_that_make_no_sense_are_refused(fields: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        Scenario(**fields)


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ConfigError, match="give scenario="):
        simulate(MODEL, machine())
    with pytest.raises(ConfigError, match="Rates hold a run"):
        simulate(Rates(0.5, 3), machine(), scenario=Scenario())
    with pytest.raises(ConfigError, match="a scenario says itself"):
        simulate(MODEL, machine(), scenario=Scenario(), hit_rate=0.5)
    with pytest.raises(ConfigError, match="no recovery ranks"):
        simulate(Trace({}), machine(), scenario=Scenario())


def test_the_simulator_needs_no_torch():
    code = "import sys, ssd_lab.simulate; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
