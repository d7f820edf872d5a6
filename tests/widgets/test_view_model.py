"""What views show is what the trace holds, and what is derived from it is right."""

from __future__ import annotations

import dataclasses
import itertools
import json

import pytest
from recorded_traces import recorded_trace
from rescoring import rescore

from ssd_lab.errors import ConfigError
from ssd_lab.trace import RoundRecord, SequenceRound, Trace, TreeRecord, compute_metrics
from ssd_lab.widgets.view_model import view_data
from ssd_lab.widgets.view_model.presets import presets
from ssd_lab.widgets.view_model.rescoring import hit_curve, power_law
from ssd_lab.widgets.view_model.steps import steps_of

TRACE = recorded_trace(rounds=40, requests=2, seed=3)


def all_steps(trace: Trace):
    return [step for own in steps_of(trace).values() for step in own]


def test_every_number_of_a_step_is_that_of_the_trace():
    for request, own in steps_of(TRACE).items():
        records = [s for r in TRACE.rounds for s in r.sequences if s.request_id == request]
        assert len(own) == len(records)
        for step, record in zip(own, records, strict=True):
            for name in (
                "position",
                "draft_tokens",
                "num_accepted",
                "recovery_token",
                "origin",
                "cache_hit",
                "fan_out",
            ):
                assert step[name] == getattr(record, name)
            for name in ("draft_probs", "target_probs", "coins"):
                assert step[name] == pytest.approx(getattr(record, name), rel=1e-5)
            assert step["recovery_prob"] == pytest.approx(record.recovery_prob, rel=1e-5)


def test_the_branch_that_is_marked_is_the_one_that_the_next_round_uses():
    hits = 0
    for own in steps_of(TRACE).values():
        for step, after in itertools.pairwise(own):
            assert step["next_hit"] == after["cache_hit"] == (step["branch"] is not None)
            if step["branch"] is not None:
                start, end, parent = step["tree"]["branches"][step["branch"]]
                assert parent == step["num_accepted"] - 1
                assert step["tree"]["tokens"][start:end] == [step["recovery_token"], *after["draft_tokens"]]
                hits += 1
    assert hits > 5


def test_parents_can_be_told_from_the_branches():
    for request, own in steps_of(TRACE).items():
        records = [s for r in TRACE.rounds for s in r.sequences if s.request_id == request]
        for step, record in zip(own, records, strict=True):
            parents = [node - 1 for node in range(len(step["tree"]["tokens"]))]
            for start, _, parent in step["tree"]["branches"]:
                parents[start] = parent
            assert parents == record.tree.parents


def test_a_branch_right_behind_the_chain_is_no_part_of_it():
    # all of the budget on the case that everything is accepted: the first branch follows the chain's last node
    trace = recorded_trace(rounds=3, k=3, fan_out=(0, 0, 0, 2), seed=1)
    for step in all_steps(trace):
        assert step["tree"]["chain"] == 3
        assert [branch[2] for branch in step["tree"]["branches"]] == [2, 2]


def test_a_miss_says_how_many_more_branches_would_have_caught_it():
    for step in all_steps(TRACE):
        assert (step["missed_by"] == 0) == (step["branch"] is not None)
        if step["missed_by"]:
            assert step["recovery_rank"] == step["fan_out"][step["num_accepted"]] + step["missed_by"] - 1


def test_a_rank_beyond_those_kept_is_said_to_be_so():
    cut = [dataclasses.replace(s, recovery_rank=min(s.recovery_rank, 3)) for r in TRACE.rounds for s in r.sequences]
    rounds = [RoundRecord(i, i, i + 1.0, [record]) for i, record in enumerate(cut)]
    steps = all_steps(Trace({"ranked_candidates": 3}, rounds=rounds))
    assert {step.get("beyond_ranked", False) for step in steps if step["recovery_rank"] == 3} == {True}
    assert not any(step.get("beyond_ranked") for step in steps if step["recovery_rank"] < 3)
    assert not any(step.get("beyond_ranked") for step in all_steps(TRACE))


def test_the_text_is_made_of_the_tokens_that_were_emitted():
    data = view_data(TRACE)
    for request in data["runs"][0]["requests"]:
        record = next(r for r in TRACE.requests if r.request_id == request["id"])
        assert [token for token, _, _ in request["tokens"]] == record.token_ids


def test_a_stop_inside_a_round_ends_the_text_there():
    row = SequenceRound(0, 4, [10, 11], [0.5, 0.5], [0.5, 0.5], 2, 99, 0.9, 1, "draft")
    data = view_data(Trace({}, rounds=[RoundRecord(0, 0.0, 1.0, [row])]))
    assert data["runs"][0]["requests"][0]["tokens"] == [(10, 0, 0)]


def test_acceptance_agrees_with_the_metrics():
    data, metrics = view_data(TRACE)["runs"][0], compute_metrics(TRACE)
    observed = [row["observed"] for row in data["acceptance"]["by_position"]]
    assert observed == pytest.approx(metrics.acceptance_by_position, rel=1e-5)
    assert data["acceptance"]["rate"] == pytest.approx(metrics.acceptance_rate, rel=1e-5)
    assert data["cache"]["hits"] / data["cache"]["lookups"] == pytest.approx(metrics.cache_hit_rate)


def test_expected_acceptance_is_near_the_observed_one():
    trace = recorded_trace(rounds=400, seed=8, fan_out=(1, 1, 1, 1, 1))
    row = view_data(trace)["runs"][0]["acceptance"]["by_position"][0]
    spread = (row["expected"] * (1 - row["expected"]) / row["tested"]) ** 0.5
    assert abs(row["observed"] - row["expected"]) < 4 * spread


def test_greedy_runs_expect_nothing_by_chance():
    trace = recorded_trace(rounds=3)
    trace.requests[0].params["temperature"] = 0.0
    assert all(row["expected"] is None for row in view_data(trace)["runs"][0]["acceptance"]["by_position"])


def test_rescoring_with_the_recorded_schedule_gives_the_recorded_hits():
    steps = all_steps(TRACE)
    scored = rescore(steps, steps[0]["fan_out"])
    assert scored.hits == sum(step["branch"] is not None for step in steps)
    assert scored.accepted == sum(step["num_accepted"] for step in steps)


@pytest.mark.parametrize("fan_out", [(1, 1, 1, 1, 1), (6, 0, 0, 0, 3), (31,) * 5])
def test_rescoring_counts_the_outcomes_that_the_schedule_would_hold(fan_out: tuple[int, ...]):
    hits = sum(s.recovery_rank < fan_out[s.num_accepted] for r in TRACE.rounds for s in r.sequences)
    assert rescore(all_steps(TRACE), fan_out).hits == hits


def test_a_shorter_lookahead_is_a_run_that_stopped_there():
    # k = 2: whatever the third draft token was, two accepted tokens end the round
    steps = all_steps(TRACE)
    scored = rescore(steps, (2, 2, 2))
    assert scored.accepted == sum(min(step["num_accepted"], 2) for step in steps)
    assert scored.lookups == len(steps)
    step = next(s for s in steps if s["num_accepted"] == 4)
    place = step["alternatives"][2]
    rank = sum(q > place["draft_probs"][place["tokens"].index(step["draft_tokens"][2])] for q in place["draft_probs"])
    assert rescore([step], (0, 0, rank + 1)).hits == 1 and rescore([step], (0, 0, rank)).hits == 0


def test_the_hit_curve_counts_ranks_and_its_fit_recovers_a_power_law():
    steps = [{"recovery_rank": rank} for rank in (0, 0, 1, 5)]
    assert hit_curve(steps, widest=6) == [0.5, 0.75, 0.75, 0.75, 0.75, 1.0]
    assert hit_curve([{}]) == []
    factor, exponent = power_law([1 - 0.4 * width**-0.7 for width in range(1, 17)])
    assert (factor, exponent) == pytest.approx((0.4, 0.7))
    assert power_law([1.0, 1.0]) is None


def test_presets_open_on_what_they_say():
    steps = steps_of(TRACE)
    found = {preset["label"]: steps[preset["request"]][preset["step"]] for preset in presets(steps)}
    everything = all_steps(TRACE)
    assert found["longest accept"]["num_accepted"] == max(step["num_accepted"] for step in everything)
    assert found["first token rejected"]["num_accepted"] == 0
    assert found["near miss"]["missed_by"] == min(step["missed_by"] for step in everything if step["missed_by"])


def test_a_run_without_rounds_or_drafts_is_shown_too():
    assert view_data(Trace({}))["runs"][0]["requests"] == []
    row = SequenceRound(0, 4, [], [], [], 0, 99, 0.9, 1, "none")
    run = view_data(Trace({}, rounds=[RoundRecord(0, 0.0, 1.0, [row])]))["runs"][0]
    assert run["acceptance"]["rate"] is None and run["presets"] == []


def test_a_verified_tree_is_no_cache():
    tree = TreeRecord([10, 11, 12], [-1, -1, 0], [0.5, 0.3, 0.2], [0.6, 0.1, None])
    row = SequenceRound(0, 4, [10, 12], [0.5, 0.2], [0.6, 0.3], 2, 99, 0.9, 3, "draft", tree=tree)
    step = view_data(Trace({}, rounds=[RoundRecord(0, 0.0, 1.0, [row])]))["runs"][0]["requests"][0]["steps"][0]
    assert step["tree"]["verified"] and step["branch"] is None and step["prepared"] is None
    assert step["tree"]["target_probs"] == [0.6, 0.1, None]


def test_both_clocks_have_every_round():
    measured, simulated = view_data(TRACE)["runs"][0]["clocks"]
    assert len(measured["rounds"]) == len(simulated["rounds"]) == len(TRACE.rounds)
    assert {lane for lane, *_ in measured["spans"]} == {"target", "draft"}
    assert "not a measurement" in simulated["note"]


def test_in_a_batch_the_request_that_missed_is_named():
    clock = view_data(TRACE)["runs"][0]["clocks"][0]
    for (_, _, stalled), record in zip(clock["rounds"], TRACE.rounds, strict=True):
        missed = [s.request_id for s in record.sequences if s.cache_hit is False]
        assert stalled == (missed if len(missed) == 1 else [])


def test_what_is_cut_is_said():
    run = view_data(TRACE, max_rounds=5)["runs"][0]
    assert run["left_out"] == 35 and len(run["clocks"][0]["rounds"]) == 5


def test_the_document_is_json():
    data = view_data({"one": TRACE, "two": recorded_trace(rounds=2, saguaro_c=0.5)})
    assert json.loads(json.dumps(data, allow_nan=False))["runs"][1]["requests"][0]["steps"][0]["alternatives"][0][
        "draft_raw_probs"
    ]


def test_nothing_to_show_is_an_error():
    with pytest.raises(ConfigError, match="no trace"):
        view_data({})
