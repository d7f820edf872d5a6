"""How fast, and how far to believe it: turns with intervals, and whether the processor was there for the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ssd_lab.common.statistics import Estimate, ratio

SHARED_BELOW = 0.8  # of the time in which it had work, a process that is alone gets nearly all


def speedup(ours: Sequence[float], theirs: Sequence[float]) -> Estimate | None:
    """One run's speeds over another's; without an interval where one of them was timed once."""
    if not ours or not theirs:
        return None
    if ours is theirs:
        return Estimate(1.0, 1.0, 1.0, len(ours), "welch")
    if min(len(ours), len(theirs)) == 1:
        return Estimate(sum(ours) / len(ours) / (sum(theirs) / len(theirs)), None, None, 1, "welch")
    return ratio(ours, theirs)


def notes_on_turns(runs: Sequence[Sequence[float]]) -> list[str]:
    """How often the speeds of a table were measured."""
    counts = sorted({len(speeds) for speeds in runs if speeds})
    if not counts:
        return []
    if counts == [1]:
        return ["each speed was measured only once, so its uncertainty is unknown (repeats=5 would show it)"]
    often = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return [f"speeds are means of {often} turns, in brackets their 95 % intervals"]


def notes_on_processor(shares: Mapping[str, float | None]) -> list[str]:
    """Who had to share the processor, so that a speed says more of others' work than of the strategy."""
    short = {name: share for name, share in shares.items() if share is not None and share < SHARED_BELOW}
    if not short:
        return []
    told = ", ".join(f"{share:.0%}" + (f" ({name})" if len(shares) > 1 else "") for name, share in short.items())
    advice = "Measure again when it is quiet, or trust tokens/round and the simulated clock, which do not depend on it"
    got = f"this process got {told} of the time in which it had something to compute"
    return [f"the processor was busy with other work: {got}. {advice}"]
