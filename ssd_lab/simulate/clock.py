"""The virtual clock: what each round costs on a machine, and which phase the time went to."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ssd_lab.simulate.hardware import Drafting, HardwareProfile
from ssd_lab.simulate.workload import ReplayRow, Strategy, Workload
from ssd_lab.trace import Activity

MissCost = Literal["paper", "full"]
CAUSES = ("verify", "draft", "wait for draft", "fallback", "link", "overhead")


@dataclass(frozen=True)
class SimulatedRound:
    """One round on the virtual clock, in seconds. activities: spans on the lanes target, draft and link. time_by_cause:
    how its length came about.
    """

    index: int
    start_s: float
    end_s: float
    emitted: int
    hits: int
    misses: int
    activities: tuple[Activity, ...]
    time_by_cause: dict[str, float]


class RoundBuilder:
    """Lays spans one after the other and adds up what each cause took."""

    def __init__(self, start_s: float) -> None:
        self.now_s = start_s
        self.activities: list[Activity] = []
        self.causes: dict[str, float] = dict.fromkeys(CAUSES, 0.0)

    def add(self, cause: str, lane: str, duration_s: float) -> None:
        """A span on the critical path: the round is longer by it."""
        if duration_s > 0:
            self.activities.append(Activity(lane, cause, self.now_s, self.now_s + duration_s))
            self.causes[cause] += duration_s
            self.now_s += duration_s

    def stretch(self, factor: float) -> None:
        """Make everything so far this much longer."""
        if factor == 1.0 or not self.activities:
            return
        start_s = min(one.start_s for one in self.activities)
        self.activities = [
            replace(
                one,
                start_s=start_s + factor * (one.start_s - start_s),
                end_s=start_s + factor * (one.end_s - start_s),
            )
            for one in self.activities
        ]
        self.causes = {cause: factor * seconds for cause, seconds in self.causes.items()}
        self.now_s = start_s + factor * (self.now_s - start_s)

    def beside(self, name: str, lane: str, duration_s: float) -> None:
        """A span that starts now on another lane and holds nothing up."""
        if duration_s > 0:
            self.activities.append(Activity(lane, name, self.now_s, self.now_s + duration_s))


def replay(
    workload: Workload, profile: HardwareProfile, miss_cost: MissCost
) -> tuple[list[SimulatedRound], dict[str, float]]:
    """Time every round; returns the rounds and the seconds on the critical path by cause.

    miss_cost: `paper` charges a missed round verify + fallback (Theorem 7 and Corollary 16 of arXiv 2603.03251), `full`
    lets it wait for the next tree as well, max(verify, tree) + fallback; they differ only where the tree is slower than
    verification.
    """
    causes = dict.fromkeys(CAUSES, 0.0)
    rounds: list[SimulatedRound] = []
    now_s = 0.0
    for index, rows in enumerate(workload.rounds):
        rounds.append(round_on_clock(index, now_s, rows, workload.strategy, profile, miss_cost))
        now_s = rounds[-1].end_s
        for cause, seconds in rounds[-1].time_by_cause.items():
            causes[cause] += seconds
    return rounds, causes


def round_on_clock(
    index: int,
    start_s: float,
    rows: Sequence[ReplayRow],
    strategy: Strategy,
    profile: HardwareProfile,
    miss_cost: MissCost,
) -> SimulatedRound:
    """Time one round of any strategy that has draft tokens."""
    builder = RoundBuilder(start_s)
    if strategy == "async":
        _async_round(builder, rows, profile, miss_cost)
    elif strategy == "sync":
        _sync_round(builder, rows, profile)
    else:
        _verify_only_round(builder, rows, profile)
    builder.add("overhead", "target", profile.overhead_s)
    builder.stretch(profile.round_factor(_drafting(strategy, rows), len(rows)))
    return SimulatedRound(
        index=index,
        start_s=start_s,
        end_s=builder.now_s,
        emitted=sum(row.emitted for row in rows),
        hits=sum(row.hit is True for row in rows),
        misses=sum(row.hit is False for row in rows),
        activities=tuple(builder.activities),
        time_by_cause=builder.causes,
    )


def autoregressive_time_s(workload: Workload, step_s: Callable[[int], float]) -> float:
    """Seconds to emit the same tokens by steps of `step_s(sequences)` seconds, in as many slots as the largest batch.

    Sequences enter in the order in which they appear, one as soon as another has finished.
    """
    tokens: dict[int, int] = defaultdict(int)
    for rows in workload.rounds:
        for row in rows:
            tokens[row.sequence] += row.emitted
    waiting = [count for count in tokens.values() if count > 0]
    slots = max((len(rows) for rows in workload.rounds), default=0)
    if workload.steady:
        return sum(waiting) / slots * step_s(slots)
    time_s, step = 0.0, 0
    running: list[int] = []  # steps at which the running sequences end
    queue = iter(waiting)
    while True:
        while len(running) < slots and (count := next(queue, None)) is not None:
            heapq.heappush(running, step + count)
        if not running:
            return time_s
        end = running[0]
        time_s += (end - step) * step_s(len(running))
        step = end
        while running and running[0] == end:
            heapq.heappop(running)


def _verify_only_round(builder: RoundBuilder, rows: Sequence[ReplayRow], profile: HardwareProfile) -> None:
    """Proposals that cost no model time (n-grams, scripts)."""
    builder.add("verify", "target", profile.verify_s.at(sum(row.verify_rows for row in rows)))


def _sync_round(builder: RoundBuilder, rows: Sequence[ReplayRow], profile: HardwareProfile) -> None:
    builder.add("draft", "draft", _chain_s(rows, profile))
    _verify_only_round(builder, rows, profile)


def _async_round(
    builder: RoundBuilder, rows: Sequence[ReplayRow], profile: HardwareProfile, miss_cost: MissCost
) -> None:
    missed = [row for row in rows if row.hit is not True]
    verify_rows = sum(row.verify_rows for row in rows)
    verify_s = profile.verify_s.at(verify_rows)
    tree_s = profile.tree_s(
        steps=max((row.steps for row in rows), default=0),
        branches=sum(row.branches for row in rows),
        rows=verify_rows,
        sequences=len(rows),
    )
    builder.add("link", "link", profile.link_s)
    just_in_time = _just_in_time_s(rows, profile)
    waits_for_host = profile.fallback_host_s is not None and (just_in_time > 0 or not profile.prepares)
    if waits_for_host and profile.fallback_host_s is not None:
        builder.add("overhead", "target", profile.fallback_host_s.at(len(rows)))  # until then no device has work
    if missed:
        fast_s = profile.fast_fallback_s if any(row.fallback == "fast" for row in missed) else 0.0
        builder.add("fallback", "draft", just_in_time + fast_s)
    if profile.shares_device:
        builder.add("verify", "target", verify_s)
        builder.add("wait for draft", "draft", tree_s)  # the device's time is the target's no more
        return
    # the next tree starts when the outcome is answered: beside it go the answer's way, verification and host work
    beside_s = profile.link_s + verify_s + profile.overhead_s
    turnaround_s = 0.0 if waits_for_host else profile.turnaround_s  # it is within the host's part
    held_up_s = 0.0 if missed and miss_cost == "paper" else max(0.0, tree_s + turnaround_s - beside_s)
    builder.beside("tree", "draft", min(tree_s, verify_s + held_up_s))
    builder.add("verify", "target", verify_s)
    builder.add("wait for draft", "target", held_up_s)


def _just_in_time_s(rows: Sequence[ReplayRow], profile: HardwareProfile) -> float:
    """Chains for the rows that missed: of each of several drafts on one device one after the other."""
    shares = (rows[draft :: profile.drafts_in_turn] for draft in range(profile.drafts_in_turn))
    return sum(
        _chain_s([row for row in own if row.hit is not True and row.fallback == "jit"], profile) for own in shares
    )


def _drafting(strategy: Strategy, rows: Sequence[ReplayRow]) -> Drafting:
    """Which measured rounds these are like."""
    if strategy == "async":
        return "async"
    return "chain" if strategy == "sync" and any(row.steps for row in rows) else "none"


def _chain_s(rows: Sequence[ReplayRow], profile: HardwareProfile) -> float:
    """The draft's chain for the rows that need one: as many steps as the longest, each over all of them."""
    drafting = [row for row in rows if row.steps]
    return max(row.steps for row in drafting) * profile.draft_step_s.at(len(drafting)) if drafting else 0.0
