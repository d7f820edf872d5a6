"""The virtual clock on rounds small enough to time by hand, and what must hold for all rounds."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_samples import async_trace, request, round_record, sequence_round

import ssd_lab
from ssd_lab.errors import ConfigError
from ssd_lab.simulate import AffineTime, HardwareProfile, Rates, Simulation, TableTime, simulate
from ssd_lab.trace import Totals, Trace, TreeRecord


def machine(verify: Any = 10.0, draft: Any = 1.0, tree: Any = 2.0, **others: Any) -> HardwareProfile:
    return HardwareProfile(
        name="test", source="hand", verify_s=verify, draft_step_s=draft, draft_tree_step_s=tree, **others
    )


def ends(simulation: Simulation) -> list[float]:
    return [r.end_s for r in simulation.rounds]


def test_the_package_is_a_function():
    assert ssd_lab.simulate(async_trace(), hardware=machine()).hardware == "test"


def test_async_rounds_cost_verify_on_a_hit_and_one_miss_stalls_the_batch():
    # k = 3: fallback 3 x 1, tree 3 x 2 hidden behind 10; round 0 has no cache yet, in round 1 one row of two missed
    simulation = simulate(async_trace(), machine())
    assert simulation.strategy == "async"
    assert ends(simulation) == [13.0, 26.0, 36.0]
    assert simulation.time_by_cause == {
        "verify": 30.0, "draft": 0.0, "wait for draft": 0.0, "fallback": 6.0, "link": 0.0, "overhead": 0.0,
    }  # fmt: skip
    assert simulation.tokens_per_second == 13 / 36
    assert simulation.tokens_per_second_per_sequence == pytest.approx(13 / 36 / 2)
    assert simulation.hit_rate == 3 / 4


def test_a_slow_tree_is_waited_for_on_a_hit_and_with_full_cost_also_after_a_miss():
    slow = machine(tree=4.0)  # 12 against 10
    assert ends(simulate(async_trace(), slow)) == [13.0, 26.0, 38.0]
    full = simulate(async_trace(), slow, miss_cost="full")
    assert ends(full) == [15.0, 30.0, 42.0]
    assert full.time_by_cause["wait for draft"] == 6.0


def test_link_and_overhead_lengthen_every_round():
    assert ends(simulate(async_trace(), machine(link_s=0.5, overhead_s=0.25))) == [13.75, 27.5, 38.25]


def test_a_round_with_a_chain_waits_for_the_host_and_one_that_was_prepared_does_not():
    # rounds 0 and 1 draft a chain, round 2 hits: two sequences, so 1 s each
    host = TableTime.of({1: 0.5, 2: 1.0})
    simulation = simulate(async_trace(), machine(fallback_host_s=host))
    assert ends(simulation) == [14.0, 28.0, 38.0]
    assert simulation.time_by_cause["overhead"] == 2.0
    stale = Trace({}, rounds=[round_record(0, 0, 1, sequence_round(1, origin="fast", cache_hit=False))])
    assert ends(simulate(stale, machine(fallback_host_s=host))) == [10.0], "a stale branch was prepared too"


def test_the_hosts_part_of_a_round_holds_the_drafts_turnaround():
    # a tree of 3 x 4 is longer than 10: the draft sets the pace, and after a hit takes 0.25 s to begin the next one
    slow = machine(tree=4.0, fallback_host_s=TableTime.of({1: 0.5, 2: 1.0}), turnaround_s=0.25)
    assert ends(simulate(async_trace(), slow, miss_cost="full")) == [16.0, 32.0, 44.25]


def test_a_slow_tree_runs_beside_the_answer_and_the_host_too():
    hit = Trace({}, rounds=[round_record(0, 0, 1, sequence_round(1, origin="hit", cache_hit=True))])
    parts = {"link_s": 0.5, "overhead_s": 0.25, "turnaround_s": 0.125}
    # 3 steps of 4 s and the turnaround, longer than answer, verification and host together: the draft sets the pace
    assert ends(simulate(hit, machine(tree=4.0, **parts), miss_cost="full")) == [12.125]
    # 3 steps of 3.5 s are shorter: the target does
    assert ends(simulate(hit, machine(tree=3.5, **parts), miss_cost="full")) == [10.75]


def test_a_fast_fallback_costs_its_own_time():
    rounds = [round_record(0, 0, 1, sequence_round(1, origin="fast", cache_hit=False))]
    assert ends(simulate(Trace({}, rounds=rounds), machine(fast_fallback_s=0.5))) == [10.5]


def test_the_same_rounds_as_sync_draft_before_every_verification():
    simulation = simulate(async_trace(), machine(), strategy="sync")
    assert ends(simulation) == [13.0, 26.0, 39.0]
    assert simulation.hit_rate is None
    assert [(a.lane, a.name) for a in simulation.rounds[0].activities] == [("draft", "draft"), ("target", "verify")]


def test_drafting_that_runs_no_model_is_free():
    rounds = [round_record(0, 0, 1, sequence_round(1, origin="custom"))]
    simulation = simulate(Trace({}, rounds=rounds), machine())
    assert (simulation.strategy, ends(simulation)) == ("free", [10.0])


def test_rows_branches_and_sequences_are_charged():
    # 2 sequences x 4 rows verified; 2 x 4 branches of f = 1; fallback for 2 rows, then for 1
    trace = async_trace()
    trace.meta["strategy"]["f"] = 1
    profile = machine(
        verify={"kind": "table", "rows": [1, 8], "seconds": [3.0, 10.0]},
        draft=AffineTime(base_s=0, per_row_s=1),
        tree=AffineTime(base_s=0, per_row_s=0.5),
    )
    assert ends(simulate(trace, profile)) == [16.0, 29.0, 41.0]
    assert simulate(trace, profile).autoregressive_tokens_per_second == pytest.approx(13 / (6 * 4 + 3))


def test_branches_come_from_a_recorded_tree():
    parents = [-1, 0, 1]  # the chain, then five branches of a recovery token and its three draft tokens
    for after in (-1, -1, 0, 1, 2):
        parents += [after, *range(len(parents), len(parents) + 3)]
    tree = TreeRecord([1] * 23, parents, [1.0] * 23)
    rounds = [round_record(0, 0, 1, sequence_round(1, origin="hit", cache_hit=True, tree=tree))]
    assert ends(simulate(Trace({}, rounds=rounds), machine(tree=AffineTime(base_s=0, per_row_s=1)))) == [15.0]


def test_a_verified_tree_is_charged_by_its_nodes_and_depth():
    tree = TreeRecord([1] * 5, [-1, -1, 0, 1, 3], [1.0] * 5)  # depth 3
    rounds = [round_record(0, 0, 1, sequence_round(1, k=2, tree=tree))]
    assert ends(simulate(Trace({}, rounds=rounds), machine(verify=AffineTime(base_s=0, per_row_s=1)))) == [6.0 + 3.0]


def test_autoregressive_sequences_share_steps_and_slots():
    # two slots; sequences of 1, 3 and 2 tokens: steps of 2, 2 and 2 sequences, the third starts when the first ends
    rounds = [
        round_record(0, 0, 1, *(sequence_round(0, k=0, request_id=i, origin="none") for i in (0, 1))),
        *(
            round_record(n, n, n + 1, *(sequence_round(0, k=0, request_id=i, origin="none") for i in (1, 2)))
            for n in (1, 2)
        ),
    ]
    simulation = simulate(Trace({}, rounds=rounds), machine(verify=AffineTime(base_s=1, per_row_s=1)))
    assert (simulation.strategy, simulation.time_s) == ("autoregressive", 9.0)
    assert simulation.speedup == simulation.tokens_per_round == 1.0


def test_without_rounds_the_totals_are_turned_into_rates():
    trace = Trace({"totals": Totals.from_trace(async_trace()).as_dict()}, [request(13)])
    simulation = simulate(trace, machine())
    assert simulation.strategy == "async"
    assert any("mean rates" in caveat for caveat in simulation.caveats)


def test_hits_can_be_drawn_for_rounds_without_a_cache():
    rounds = [round_record(i, i, i + 1, sequence_round(1)) for i in range(3)]
    trace = Trace({}, rounds=rounds)
    assert ends(simulate(trace, machine())) == [13.0, 26.0, 39.0]
    assert ends(simulate(trace, machine(), strategy="async", hit_rate=1.0)) == [13.0, 23.0, 33.0]
    with pytest.raises(ConfigError, match="give hit_rate="):
        simulate(trace, machine(), strategy="async")


def test_recorded_lookups_can_be_drawn_anew():
    assert ends(simulate(async_trace(), machine(), hit_rate=1.0)) == [13.0, 23.0, 33.0]
    never = simulate(async_trace(), machine(), hit_rate=0.0)
    assert (never.hit_rate, ends(never)) == (0.0, [13.0, 26.0, 39.0])
    assert any("drawn" in caveat for caveat in never.caveats)


@pytest.mark.parametrize(
    ("given_trace", "arguments", "message"),
    [
        (Trace({}), {}, "neither rounds nor totals"),
        ("trace.jsonl", {}, "takes a Trace or Rates, not str"),
        (async_trace(), {"strategy": "magic"}, "strategy is 'magic'"),
        (async_trace(), {"miss_cost": "some"}, "miss_cost is 'some'"),
        (async_trace(), {"hit_rate": 1.5}, "hit_rate is 1.5"),
        (async_trace(), {"strategy": "sync", "hit_rate": 0.5}, "for async alone"),
        (Rates(acceptance=0.5, k=0), {"strategy": "sync"}, "no draft tokens"),
    ],
)
def test_what_cannot_be_simulated_is_explained(given_trace: Any, arguments: dict[str, Any], message: str):
    with pytest.raises(ConfigError, match=message):
        simulate(given_trace, machine(), **arguments)


@pytest.mark.parametrize("bad", [{"acceptance": 1.2}, {"k": -1}, {"hit_rate": -0.1}, {"batch": 0}, {"fallback": "x"}])
def test_rates_outside_their_range_are_refused(bad: dict[str, Any]):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        Rates(**{"acceptance": 0.5, "k": 3, **bad})


def test_the_result_is_json_and_says_that_it_is_simulated():
    simulation = simulate(async_trace(), machine())
    assert json.loads(json.dumps(simulation.as_dict()))["simulated"] is True
    assert str(simulation).startswith("simulated on test: async")


rates = st.builds(
    Rates,
    acceptance=st.floats(0, 1),
    k=st.integers(1, 5),
    hit_rate=st.floats(0, 1),
    batch=st.integers(1, 3),
    rounds=st.integers(1, 12),
    seed=st.integers(0, 99),
)
step = st.floats(0.001, 10)
fast = settings(max_examples=60, deadline=None)


@fast
@given(rates, step, step, step, st.sampled_from(["async", "sync"]), st.sampled_from(["paper", "full"]))
def test_rounds_are_contiguous_and_their_causes_add_up(some, verify, draft, tree, strategy, miss_cost):
    profile = machine(verify, draft, tree, link_s=0.01, overhead_s=0.02)
    simulation = simulate(some, profile, strategy=strategy, miss_cost=miss_cost)
    starts = [r.start_s for r in simulation.rounds]
    assert starts == [0.0, *ends(simulation)[:-1]]
    assert sum(simulation.time_by_cause.values()) == pytest.approx(simulation.time_s)
    for one in simulation.rounds:
        assert all(one.start_s <= a.start_s <= a.end_s <= one.end_s + 1e-9 for a in one.activities)


@fast
@given(rates, step, step, st.floats(0, 1))
def test_async_with_every_lookup_a_hit_is_never_slower_than_sync(some, verify, draft, share):
    all_hits = dataclasses.replace(some, hit_rate=1.0)
    profile = machine(verify, draft, verify * share / some.k * (1 - 1e-9))  # the tree is done when verification is
    async_s = simulate(all_hits, profile).time_s
    assert async_s <= simulate(all_hits, profile, strategy="sync").time_s * (1 + 1e-9)


@fast
@given(rates, step, step, st.floats(0, 5), st.sampled_from(["async", "sync"]))
def test_speed_ups_stay_within_their_bounds(some, verify, draft, slower, strategy):
    profile = machine(AffineTime(base_s=verify, per_row_s=verify / 20), draft, draft * (1 + slower))
    one = dataclasses.replace(some, batch=1)
    simulation = simulate(one, profile, strategy=strategy)
    assert simulation.conservative_speedup <= simulation.tokens_per_round * (1 + 1e-9)
    all_hits = simulate(dataclasses.replace(one, hit_rate=1.0), profile)
    sync = simulate(dataclasses.replace(one, hit_rate=1.0), profile, strategy="sync")
    assert sync.time_s <= 2 * all_hits.time_s * (1 + 1e-9)
