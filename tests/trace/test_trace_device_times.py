"""What the host queued early, shown as the devices had it."""

from __future__ import annotations

from ssd_lab.notebooks.results import two_gpus
from ssd_lab.trace import Activity, RoundRecord
from ssd_lab.trace.device_times import on_devices


def round_of(*activities: tuple[str, str, float, float]) -> RoundRecord:
    return RoundRecord(7, 10.0, 15.0, [], [Activity(*each) for each in activities])


def told(record: RoundRecord) -> list[tuple[str, str, float, float]]:
    return [(a.lane, a.name, a.start_s, a.end_s) for a in on_devices(record)]


def test_a_verification_that_was_queued_begins_when_its_draft_is_there() -> None:
    record = round_of(
        ("target", "verify", 11.0, 15.0), ("draft", "jit", 10.5, 12.5), ("link", "wait for draft", 10.4, 10.9)
    )
    assert sorted(told(record)) == [
        ("draft", "jit", 10.5, 12.5),
        ("link", "wait for draft", 10.4, 10.9),
        ("target", "verify", 12.5, 15.0),
        ("target", "wait for draft", 11.0, 12.5),
    ]


def test_a_tree_holds_up_the_round_that_it_was_grown_for_and_not_the_one_beside_it() -> None:
    verify = ("target", "verify", 10.0, 15.0)
    assert told(round_of(verify, ("draft 1", "tree", 9.0, 10.5)))[:2] == [
        ("target", "wait for draft", 10.0, 10.5),
        ("target", "verify", 10.5, 15.0),
    ]
    assert told(round_of(verify, ("draft", "tree", 10.1, 14.0))) == [verify, ("draft", "tree", 10.1, 14.0)]


def test_the_host_of_a_round_that_runs_may_wait_for_its_draft_and_the_target_does_not() -> None:
    verify = ("target", "verify", 10.0, 14.0)
    assert told(round_of(verify, ("link", "wait for draft", 10.2, 10.6))) == [verify]
    waits = told(round_of(("target", "verify", 10.4, 14.0), ("link", "wait for draft", 10.2, 10.6)))
    assert waits == [("target", "verify", 10.4, 14.0), ("link", "wait for draft", 10.2, 10.4)]


def test_what_waited_for_nobody_stays_as_it_is() -> None:
    activities = (
        ("draft", "draft", 10.0, 11.0),
        ("link", "wait for draft", 10.0, 11.1),
        ("target", "verify", 11.1, 15.0),
    )
    assert sorted(told(round_of(*activities))) == sorted(activities)
    assert told(round_of(activities[0])) == [activities[0]]


def test_on_two_gpus_synchronous_rounds_wait_for_each_chain_and_asynchronous_ones_for_misses() -> None:
    """A verification of 4 rows takes 4.0 ms on that GPU, whoever drafts."""
    for name, least_s, most_s in (("synchronous", 2.0e-3, 3.0e-3), ("asynchronous", 0.0, 0.0)):
        rounds = [on_devices(one) for one in two_gpus()[name].timed_rounds[5:70]]
        verified = sorted(a.end_s - a.start_s for one in rounds for a in one if a.name == "verify")
        assert verified[3] > 3.9e-3 and verified[-4] < 4.2e-3
        waited = sorted(sum(a.end_s - a.start_s for a in one if a.name.startswith("wait")) for one in rounds)
        assert least_s <= waited[len(waited) // 2] <= most_s
