"""Times told from a run's own spans, on rounds small enough to read them off by hand."""

from __future__ import annotations

import pytest
from trace_samples import async_trace, round_record, sequence_round

from ssd_lab.errors import ConfigError
from ssd_lab.simulate import AffineTime, HardwareProfile, TableTime, simulate
from ssd_lab.simulate.run_times import RunTimes
from ssd_lab.trace import Activity, Trace


def sync_round(index: int, draft_s: float = 3.0, verify_s: float = 5.0) -> object:
    """A round of k = 3 that lasts 10 s: 0.5 until the message is there, drafting, 0.5 back, verification, the rest."""
    start = 10.0 * index
    reply = start + 1 + draft_s
    return round_record(
        *(index, start, start + 10, sequence_round(2)),
        activities=(
            Activity("link", "wait for draft", start, reply),
            Activity("draft", "draft", start + 0.5, start + 0.5 + draft_s),
            Activity("target", "verify", reply, reply + verify_s),
        ),
    )


def test_a_synchronous_round_is_drafting_verification_and_the_rest():
    found = RunTimes.of(Trace({}, rounds=[sync_round(i) for i in range(3)]))
    assert found.verify == {4: 5.0}
    assert found.chain_step == {1: 1.0}
    assert (found.tree_step, found.link_s, found.overhead_s, found.rounds) == ({}, 0.0, 2.0, 3)


def test_the_median_round_counts_and_the_first_rounds_do_not():
    slow = [sync_round(i, draft_s=3.0, verify_s=6.0) for i in range(3)]  # the first three of seven
    rounds = [*slow, *(sync_round(i, verify_s=v) for i, v in enumerate((5.0, 5.5, 4.0, 5.0), start=3))]
    found = RunTimes.of(Trace({}, rounds=rounds))
    assert (found.rounds, found.verify) == (4, {4: 5.0})


def test_of_a_wait_only_what_the_draft_did_not_work_is_the_link():
    # the tree of the round before ends 2 s into the wait, then the fallback takes 1.5 s; 0.5 s are left
    spans = (
        Activity("draft", "tree", 95.0, 102.0),
        Activity("draft", "jit", 102.25, 103.75),
        Activity("link", "wait for draft", 100.0, 104.0),
        Activity("target", "verify", 104.5, 109.0),
    )
    one = round_record(0, 100.0, 110.0, sequence_round(1, origin="jit", cache_hit=False), activities=spans)
    found = RunTimes.of(Trace({"strategy": {"f": 1}}, rounds=[one]))
    assert found.tree_step == {4: pytest.approx(7 / 3)}
    assert found.chain_step == {1: pytest.approx(0.5)}
    assert found.link_s == pytest.approx(0.5)
    assert found.verify == {4: pytest.approx(4.5)}
    assert found.overhead_s == pytest.approx(10 - 4.5 - 0.5 - 3.5)


def test_a_round_that_was_started_before_its_draft_was_told_waited_for_nobody():
    spans = (Activity("target", "verify", 100.5, 109.0), Activity("link", "wait for draft", 101.0, 102.0))
    one = round_record(0, 100.0, 110.0, sequence_round(1, origin="hit", cache_hit=True), activities=spans)
    found = RunTimes.of(Trace({"strategy": {"f": 1}}, rounds=[one]))
    assert (found.link_s, found.verify, found.overhead_s) == (0.0, {4: pytest.approx(8.5)}, pytest.approx(1.5))


def test_the_turnaround_is_what_the_draft_takes_from_a_tree_waited_for_to_its_next_work():
    def one(index: int, tree: tuple[float, float], wait: tuple[float, float]) -> object:
        spans = (Activity("draft", "tree", *tree), Activity("link", "wait for draft", *wait))
        verify = Activity("target", "verify", wait[1], wait[1] + 5)
        hit = sequence_round(1, origin="hit", cache_hit=True)
        return round_record(index, wait[0], wait[1] + 6, hit, activities=(*spans, verify))

    # each tree is recorded with the round that used it: the first ends 2 s into its wait and the next starts 0.25 s
    # later; the second ends before its wait, so the draft was idle until the outcome came
    rounds = [one(0, (3, 12), (10, 13)), one(1, (12.25, 18), (20, 20.5)), one(2, (20.125, 26), (27, 27.5))]
    assert RunTimes.of(Trace({"strategy": {"f": 1}}, rounds=rounds)).turnaround_s == 0.25


def test_a_chain_queued_on_the_device_is_no_part_of_the_verification_that_waits_for_it():
    # the host has launched both at 1.0 and waits until 9.0; the device drafts until 4.0
    spans = (Activity("draft", "draft", 1.0, 4.0), Activity("target", "verify", 1.0, 9.0))
    found = RunTimes.of(Trace({}, rounds=[round_record(0, 0.5, 9.5, sequence_round(1), activities=spans)]))
    assert (found.verify, found.chain_step, found.overhead_s) == ({4: 5.0}, {1: 1.0}, 1.0)


def test_replayed_on_its_own_times_a_run_lasts_as_long_as_it_did():
    trace = Trace({}, rounds=[sync_round(i) for i in range(4)])
    again = simulate(trace, RunTimes.of(trace).profile("own"), miss_cost="full")
    assert again.time_s == pytest.approx(40.0)
    wrong = RunTimes.of(trace).profile("own").model_copy(update={"overhead_s": 0.0})
    assert simulate(trace, wrong, miss_cost="full").time_s == pytest.approx(32.0)


def test_a_profile_is_scaled_to_the_run_and_keeps_its_other_sizes():
    base = HardwareProfile(
        name="alone", source="hand", verify_s=TableTime(rows=(1, 4, 8), seconds=(1.0, 2.5, 4.0)),
        draft_step_s=AffineTime(base_s=0.5), draft_tree_step_s=AffineTime(base_s=0.25, per_row_s=0.25),
    )  # fmt: skip
    scaled = RunTimes.of(Trace({}, rounds=[sync_round(i) for i in range(3)])).scaled(base, "run", depth=3)
    assert scaled.verify_s.at(4) == 5.0
    assert scaled.verify_s.at(8) == 8.0
    assert scaled.draft_step_s.at(1) == 1.0
    assert scaled.draft_tree_step_s.at(3) == 2.0  # no tree was seen: as slow as the chain
    assert scaled.overhead_s == 2.0


def test_rows_of_a_step_come_from_an_autoregressive_run():
    profile = RunTimes.of(Trace({}, rounds=[sync_round(0)])).profile("own", step={1: 2.0})
    assert (profile.verify_s.at(1), profile.verify_s.at(4), profile.autoregressive_s(1)) == (2.0, 5.0, 2.0 + 2.0)


def test_a_trace_without_spans_tells_no_times():
    with pytest.raises(ConfigError, match="no verify spans"):
        RunTimes.of(Trace({}, rounds=[round_record(0, 0, 1, sequence_round(1))]))


def test_the_extension_is_part_of_the_tree():
    profile = HardwareProfile(
        name="test", source="hand", verify_s=10.0, draft_step_s=1.0, draft_tree_step_s=3.0,
        draft_extension_s=AffineTime(base_s=0.0, per_row_s=1.0),
    )  # fmt: skip
    # the tree of round 0: 8 rows before 3 steps of 3 s, so 17 against 10; drafting itself takes 3
    assert simulate(async_trace(), profile, miss_cost="full").rounds[0].end_s == 3.0 + 17.0
    assert profile.tree_s(steps=0, branches=4, rows=8) == 0.0


def test_recorded_schedules_say_how_many_branches_there_were():
    one = sequence_round(1, origin="hit", cache_hit=True)
    wide = round_record(0, 0, 1, type(one)(**{**vars(one), "fan_out": [4, 2, 1, 1]}))
    per_branch = HardwareProfile(
        name="test", source="hand", verify_s=1.0, draft_step_s=1.0, draft_tree_step_s=AffineTime(base_s=0, per_row_s=1)
    )
    assert simulate(Trace({}, rounds=[wide]), per_branch).time_s == 3 * 8
