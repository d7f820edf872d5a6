"""How fast, and how far to believe it: turns with intervals, and whether the processor was there for the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ssd_lab.common.statistics import Estimate, ratio, student_interval
from ssd_lab.results.measured import Measured

SHARED_BELOW = 0.8  # of the time in which it had work, a process that is alone gets nearly all


def speed(run: Measured) -> Estimate | None:
    """Tokens per second, over the turns of a run that was repeated; None where nothing was timed."""
    measured = _measured(run)
    return student_interval(measured) if measured else None


def speedup(run: Measured, baseline: Measured) -> Estimate | None:
    """Its speed over the baseline's; without an interval where one of them was timed once."""
    ours, theirs = _measured(run), _measured(baseline)
    if not ours or not theirs:
        return None
    if run is baseline:
        return Estimate(1.0, 1.0, 1.0, len(ours), "welch")
    if min(len(ours), len(theirs)) == 1:
        return Estimate(sum(ours) / len(ours) / (sum(theirs) / len(theirs)), None, None, 1, "welch")
    return ratio(ours, theirs)


def notes_on_turns(runs: Sequence[Measured]) -> list[str]:
    """How often the speeds of a table were measured."""
    counts = sorted({len(_measured(run)) for run in runs if _measured(run)})
    if not counts:
        return []
    if counts == [1]:
        return ["each speed was measured only once, so its uncertainty is unknown (repeats=5 would show it)"]
    often = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return [f"speeds are means of {often} turns, in brackets their 95 % intervals"]


def notes_on_processor(runs: Mapping[str, Measured]) -> list[str]:
    """Who had to share the processor, so that a speed says more of others' work than of the strategy."""
    shares = {name: run.metrics.processor_share for name, run in runs.items()}
    short = {name: share for name, share in shares.items() if share is not None and share < SHARED_BELOW}
    if not short:
        return []
    told = ", ".join(f"{share:.0%}" + (f" ({name})" if len(runs) > 1 else "") for name, share in short.items())
    advice = "Measure again when it is quiet, or trust tokens/round and the simulated clock, which do not depend on it"
    got = f"this process got {told} of the time in which it had something to compute"
    return [f"the processor was busy with other work: {got}. {advice}"]


def _measured(run: Measured) -> Sequence[float]:
    if run.turns:
        return run.turns
    once = run.metrics.tokens_per_second
    return [once] if once else []
