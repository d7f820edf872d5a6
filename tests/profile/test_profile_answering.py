"""What the host takes to answer a round: read from rounds whose every moment is known."""

from __future__ import annotations

import pytest
from trace_samples import round_record, sequence_round

from ssd_lab.profile.answering import Answering, fields_of
from ssd_lab.simulate import HardwareProfile, TableTime
from ssd_lab.trace import Activity, RoundRecord, Trace

PHASES = HardwareProfile(name="p", source="s", verify_s=4.0, draft_step_s=1.0, draft_tree_step_s=1.0)
TREES = [(1.0, 6.0), (9.5, 12.0), (13.25, 17.5), (18.0, 22.0)]  # as recorded, one round late


def one_round(index: int, verify: tuple[float, float], hit: bool | None, *more: Activity) -> RoundRecord:
    """k = 2; more: what the draft did."""
    own = sequence_round(1, k=2, origin="hit" if hit else "jit", cache_hit=hit)
    return round_record(index, *verify, own, activities=(Activity("target", "verify", *verify), *more))


def tree(number: int) -> Activity:
    return Activity("draft", "tree", *TREES[number])


ROUNDS = [
    one_round(0, (1.0, 5.0), None),
    # outcome at 5, tree at 6, chain until 9 of which two steps take 2: 1 s is the host's
    one_round(1, (9.0, 13.0), False, tree(0), Activity("draft", "jit", 6.75, 9.0)),
    one_round(2, (13.0, 17.0), True, tree(1)),  # the tree was there before the outcome
    one_round(3, (17.75, 21.75), True, tree(2)),  # it came at 17.5, after the outcome; the next began at 18
    one_round(4, (22.5, 26.5), True, tree(3)),
]
TRACE = Trace({}, rounds=ROUNDS)


def test_a_chain_waits_for_outcome_and_tree_and_what_is_no_step_of_it_is_the_hosts():
    found = Answering()
    found.add(ROUNDS, TRACE, PHASES)
    assert found.fallback_s == [pytest.approx(1.0)]
    found.add(ROUNDS[:1], TRACE, PHASES)
    assert len(found.fallback_s) == 1, "a round without lookups had no tree to wait for"


def test_the_next_tree_begins_so_long_after_one_that_was_waited_for():
    found = Answering()
    found.add(ROUNDS, TRACE, PHASES)
    assert found.turnaround_s == [pytest.approx(0.5)]
    found = Answering()
    found.add(ROUNDS[:3], TRACE, PHASES)
    assert found.turnaround is None and found.fallback == pytest.approx(1.0)


def test_a_profile_holds_it_by_sequences_as_far_as_it_is_known():
    assert fields_of({1: None}, [None]) == {}
    fields = fields_of({1: 0.5, 4: 1.5, 8: None}, [0.25, None, 0.75, 0.5])
    assert fields == {"fallback_host_s": TableTime.of({1: 0.5, 4: 1.5}), "turnaround_s": 0.5}
