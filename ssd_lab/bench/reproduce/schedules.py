"""Schedules against uniform ones of the same budget: over accepted lengths replayed on recorded ranks, by confidence
run on the same prompts.
"""

from __future__ import annotations

from typing import Any

from ssd_lab.bench.reproduce.line_chart import Line, line_chart
from ssd_lab.bench.reproduce.recording import Recordings, split
from ssd_lab.bench.reproduce.section import Claim, Section, Table, even, percent
from ssd_lab.decoding.fan_out_fit import acceptance_rate, fit_hit_law
from ssd_lab.errors import ConfigError
from ssd_lab.strategies.fanout import Adaptive, Explicit, Geometric, Schedule
from ssd_lab.trace import Trace
from ssd_lab.trace.outcomes import outcome_samples, replayed_learner

KEY = "schedules"
BUDGETS = (8, 12, 16, 21, 28, 32, 42, 48, 64)
BETTER_BY = 0.02
NAMES = ("uniform", "paper's law", "geometric", "by lengths", "by confidence")
RUN_BUDGETS = (8, 21, 64)  # by confidence


def section(recordings: Recordings) -> Section:
    """Hit rates at each temperature and budget, on requests that nothing was fitted to."""
    k, rows, numbers, figures = recordings.k, [], [], {}
    for temperature, trace in recordings.traces.items():
        fitted, tried = split(trace)
        curves: dict[str, list[tuple[float, float]]] = {name: [] for name in NAMES}
        for budget in BUDGETS:
            rates = {name: hit_rate(tried, schedule, k) for name, schedule in schedules(fitted, budget, k).items()}
            run = recordings.by_confidence.get((temperature, budget))
            if run is not None:
                rates["by confidence"] = observed_hit_rate(split(run)[1])
            for name, rate in rates.items():
                curves[name].append((budget, rate))
            rows.append(
                (f"{temperature:g}", str(budget), *(percent(rates[name]) if name in rates else "" for name in NAMES))
            )
            numbers.append({"temperature": temperature, "budget": budget, "hit_rates": rates})
        figures[f"schedules-{temperature:g}.svg"] = line_chart(
            [Line(name, points) for name, points in curves.items() if points],
            title=f"Hit rate against budget, T = {temperature:g}", x_title="branches in all", y_title="hit rate",
            log_x=True,
        )  # fmt: skip
    lookups = {f"{t:g}": replayed_learner(split(trace)[1], Explicit(hit=[1] * (k + 1)).learner(k))[1]
               for t, trace in recordings.traces.items()}  # fmt: skip
    return Section(
        key=KEY,
        title="Fan-out schedules at equal budget",
        paper="Hit rate uniform | geometric, read off a chart (70B/1B): T=0 .85|.86, T=0.3 .835|.85, T=0.7 .785|.81, "
        "T=1 .58|.635.",
        ours=f"k = {k}. Half of the requests were used to fit, the other half to try: {lookups} lookups by T. "
        "'paper's law': the allocation of Theorem 12 with acceptance and r of miss rate F^-r; 'geometric': the same "
        "with a fitted scale, apart for refused and kept drafts and for hit and miss rounds; 'by lengths': adaptive "
        "over lengths and ranks, starts without the fitted half and learns while it is tried; 'by confidence': "
        "adaptive by the draft's probabilities of each round, run on all requests, counted on those tried.",
        tables=(Table(("T", "budget", *NAMES), tuple(rows)),),
        claims=claims(numbers),
        figures=figures,
        numbers={"hit_rates": numbers, "lookups": lookups},
    )


def schedules(fitted: Trace, budget: int, k: int) -> dict[str, Schedule]:
    """The contenders for a budget."""
    samples = outcome_samples(fitted)
    uniform = Explicit(hit=list(even(budget, k + 1)))
    paper = fit_hit_law([s.rank for s in samples if s.rank is not None], scaled=False)
    acceptance = acceptance_rate(samples)
    return {
        "uniform": uniform,
        "paper's law": uniform
        if paper is None or acceptance is None
        else Geometric(budget=budget, acceptance=acceptance, exponent=paper.law.exponent),
        "geometric": _fitted(fitted, budget),
        "by lengths": Adaptive(budget=budget, by_confidence=False),
    }


def _fitted(trace: Trace, budget: int) -> Schedule:
    """The fitted schedule; of a recording too short to be fitted, the one under the default law."""
    try:
        return Geometric.from_trace(trace, budget)
    except ConfigError:
        return Geometric(budget=budget)


def hit_rate(trace: Trace, schedule: Schedule, k: int) -> float:
    """Of the recorded rounds prepared for by this schedule."""
    hits, lookups = replayed_learner(trace, schedule.learner(k))
    return hits / lookups if lookups else 0.0


def observed_hit_rate(trace: Trace) -> float:
    """Of the lookups that happened."""
    lookups = [own.cache_hit for one in trace.rounds for own in one.sequences if own.cache_hit is not None]
    return sum(lookups) / len(lookups) if lookups else 0.0


def claims(numbers: list[dict[str, Any]]) -> tuple[Claim, ...]:
    """Never below uniform; better by two points at T = 1."""
    made = []
    for name in ("geometric", "by lengths", "by confidence"):
        gaps = {
            (e["temperature"], e["budget"]): e["hit_rates"][name] - e["hit_rates"]["uniform"]
            for e in numbers
            if name in e["hit_rates"]
        }
        if not gaps:
            continue
        worst = min(gaps, key=gaps.__getitem__)
        made.append(
            Claim(
                f"{name} is never below uniform at equal budget",
                gaps[worst] >= 0,
                f"smallest difference {100 * gaps[worst]:+.1f} points (T = {worst[0]:g}, budget {worst[1]})",
            )
        )
        warm = {budget: gap for (temperature, budget), gap in gaps.items() if temperature == 1.0}
        made.append(
            Claim(
                f"{name} is better by at least {100 * BETTER_BY:.0f} points at T = 1",
                min(warm.values()) >= BETTER_BY if warm else None,
                ", ".join(f"{budget}: {100 * gap:+.1f}" for budget, gap in warm.items()),
            )
        )
    return tuple(made)
