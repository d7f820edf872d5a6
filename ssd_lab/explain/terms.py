"""Counterfactuals: the same rounds with one term ideal and all others as they were. What they gain is the term's blame.

The gains do not add up: where two things happen at the same time, making one faster helps only until the other is the
longer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ssd_lab.simulate.clock import MissCost, replay
from ssd_lab.simulate.hardware import HardwareProfile
from ssd_lab.simulate.run_times import times
from ssd_lab.simulate.time_models import AffineTime
from ssd_lab.simulate.workload import ReplayRow, Workload

FREE = AffineTime(base_s=0.0)


@dataclass(frozen=True)
class Term:
    """One cause. tokens_per_second: of the same rounds with this cause gone; gain: how many more than as they were.

    ideal: what "gone" means. advice: what could be done about it.
    """

    name: str
    ideal: str
    tokens_per_second: float
    gain: float
    advice: str


@dataclass(frozen=True)
class RunMachine:
    """Where the rounds ran. profile: target and draft as they were while this run went on. step_s: one autoregressive
    step of the batch (None: not known). sharing: how many times as long a verification took beside the working draft as
    alone (None: not known, or nothing overlaps).
    """

    profile: HardwareProfile
    miss_cost: MissCost
    step_s: float | None
    sharing: float | None = None


@dataclass(frozen=True)
class _Cause:
    name: str
    ideal: str
    advice: str
    changed: Callable[[Workload, RunMachine], tuple[Workload, HardwareProfile] | None]


def terms_of(workload: Workload, machine: RunMachine) -> list[Term]:
    """Every cause that could be told, the one with the largest gain first."""
    as_it_was = tokens_per_second(workload, machine.profile, machine.miss_cost)
    found = []
    for cause in _CAUSES:
        changed = cause.changed(workload, machine)
        if changed is not None:
            ideal = tokens_per_second(*changed, machine.miss_cost)
            found.append(Term(cause.name, cause.ideal, ideal, max(0.0, ideal - as_it_was), cause.advice))
    return sorted(found, key=lambda term: -term.gain)


def tokens_per_second(workload: Workload, profile: HardwareProfile, miss_cost: MissCost) -> float:
    """Emitted tokens over the time of the rounds on the virtual clock; 0 if they take none."""
    rounds, _ = replay(workload, profile, miss_cost)
    emitted = sum(row.emitted for rows in workload.rounds for row in rows)
    return emitted / rounds[-1].end_s if rounds and rounds[-1].end_s > 0 else 0.0


def _verify_like_a_step(workload: Workload, machine: RunMachine) -> tuple[Workload, HardwareProfile] | None:
    if machine.step_s is None:
        return None
    step_s = machine.step_s * (machine.sharing or 1.0)  # beside the draft a step would be slower too
    largest = max(machine.profile.verify_s.at(sum(row.verify_rows for row in rows)) for rows in workload.rounds)
    return workload, machine.profile.model_copy(update={"verify_s": AffineTime(base_s=min(step_s, largest))})


def _free_draft(workload: Workload, machine: RunMachine) -> tuple[Workload, HardwareProfile] | None:
    if workload.strategy == "free":
        return None
    nothing = {"draft_step_s": FREE, "draft_tree_step_s": FREE, "draft_extension_s": None, "fast_fallback_s": 0.0}
    return workload, machine.profile.model_copy(update=nothing)


def _never_waits(workload: Workload, machine: RunMachine) -> tuple[Workload, HardwareProfile] | None:
    if workload.strategy != "async":
        return None
    return workload, machine.profile.model_copy(update={"draft_tree_step_s": FREE, "draft_extension_s": None})


def _all_accepted(workload: Workload, machine: RunMachine) -> tuple[Workload, HardwareProfile] | None:
    return _with_rows(workload, lambda row: replace(row, emitted=_longest(row, workload))), machine.profile


def _all_hits(workload: Workload, machine: RunMachine) -> tuple[Workload, HardwareProfile] | None:
    if workload.strategy != "async":
        return None
    # a sequence's first round has nothing to look up, and stays as it was
    return _with_rows(workload, lambda row: row if row.hit is None else replace(row, hit=True)), machine.profile


def _no_overhead(workload: Workload, machine: RunMachine) -> tuple[Workload, HardwareProfile] | None:
    return workload, machine.profile.model_copy(update={"overhead_s": 0.0, "link_s": 0.0})


def _alone(workload: Workload, machine: RunMachine) -> tuple[Workload, HardwareProfile] | None:
    if machine.sharing is None or workload.strategy != "async":
        return None
    verify_s = times(machine.profile.verify_s, min(1.0, 1 / machine.sharing))
    return workload, machine.profile.model_copy(update={"verify_s": verify_s})


def _longest(row: ReplayRow, workload: Workload) -> int:
    """Tokens of a round whose draft tokens were all kept: the path's, and the target's own."""
    return max(row.emitted, (row.verify_rows if workload.strategy == "free" else row.steps + 1))


def _with_rows(workload: Workload, change: Callable[[ReplayRow], ReplayRow]) -> Workload:
    return replace(workload, rounds=[[change(row) for row in rows] for rows in workload.rounds])


_CAUSES = (
    _Cause(
        "verify time",
        "checking all draft tokens takes no longer than one plain step",
        "take a smaller k (fewer rows to check)",
        _verify_like_a_step,
    ),
    _Cause(
        "draft time",
        "the draft's work costs nothing",
        "take a smaller draft model, a smaller k, or a strategy without a draft model",
        _free_draft,
    ),
    _Cause(
        "acceptance",
        "the target keeps every draft token",
        "take a draft that agrees with the target more often, or a smaller k",
        _all_accepted,
    ),
    _Cause(
        "hit rate",
        "the draft had always prepared for what happened",
        "prepare for more outcomes (a larger f or budget), or a schedule fitted to the text",
        _all_hits,
    ),
    _Cause(
        "overhead",
        "nothing but model work takes time: no host work, no messages",
        "decode more sequences together, record less, or take a longer k",
        _no_overhead,
    ),
    _Cause(
        "waiting",
        "the draft's tree is always ready when verification is",
        "take a smaller k or fewer branches, or give the draft a device of its own",
        _never_waits,
    ),
    _Cause(
        "sharing",
        "verification is as fast as without the draft working beside it",
        "give the draft cores or a device of its own, or take a synchronous strategy",
        _alone,
    ),
)
