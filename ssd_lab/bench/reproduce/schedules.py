"""Schedules against uniform ones of the same budget, all replayed on the same recorded rounds.

Budgets are whole multiples of k + 1, for only those can be spent evenly: handing a remainder to the first accepted
lengths would make the uniform schedule a falling one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ssd_lab.bench.reproduce.recording import Recordings
from ssd_lab.bench.reproduce.section import Claim, PaperSection, percent
from ssd_lab.common.statistics import Estimate, bootstrap_ratio
from ssd_lab.display.charts import Line, line_chart
from ssd_lab.display.tables import Table
from ssd_lab.errors import ConfigError
from ssd_lab.learning.fan_out_fit import acceptance_rate, fit_hit_law
from ssd_lab.simulate.confidence_replay import replayed_confidence
from ssd_lab.strategies.fanout import Adaptive, Explicit, Geometric, Schedule, Uniform
from ssd_lab.trace import Trace
from ssd_lab.trace.outcomes import halves, outcome_samples, replayed_hits

KEY = "schedules"
FAN_OUTS = range(1, 9)  # of the uniform schedule
BETTER_BY = 0.02
COMPARED = ("geometric", "by lengths", "by confidence")
NAMES = ("uniform", "paper's law", *COMPARED, "hindsight")

Hits = Mapping[int, Sequence[bool]]  # by request, of each lookup


def section(recordings: Recordings) -> PaperSection:
    """Hit rates at each temperature and budget, and the differences to uniform with their intervals."""
    k, rows, numbers, figures = recordings.k, [], [], {}
    lookups: dict[str, int] = {}
    for temperature, trace in recordings.traces.items():
        curves: dict[str, list[tuple[float, float]]] = {name: [] for name in NAMES}
        for budget in (fan_out * (k + 1) for fan_out in FAN_OUTS):
            hits = contenders(trace, budget, k)
            learner = Adaptive(budget=budget).confidence()
            assert learner is not None  # by confidence is what Adaptive does unless told otherwise
            hits["by confidence"] = replayed_confidence(trace, recordings.opinions(temperature), learner, k)
            rates = {name: rate(own) for name, own in hits.items()}
            gaps = {name: gap(hits[name], hits["uniform"]) for name in COMPARED}
            for name, value in rates.items():
                curves[name].append((budget, value))
            rows.append((
                f"{temperature:g}", str(budget), percent(rates["uniform"]), percent(rates["paper's law"]),
                *(f"{percent(rates[name])} ({_shown(gaps[name])})" for name in COMPARED), percent(rates["hindsight"]),
            ))  # fmt: skip
            numbers.append({
                "temperature": temperature, "budget": budget, "hit_rates": rates,
                "over_uniform": {name: None if own is None else own.as_dict() for name, own in gaps.items()},
            })  # fmt: skip
        lookups[f"{temperature:g}"] = sum(map(len, hits["uniform"].values()))
        figures[f"schedules-{temperature:g}.svg"] = line_chart(
            [Line(name, points) for name, points in curves.items()],
            title=f"Hit rate against budget, T = {temperature:g}", x_title="branches in all", y_title="hit rate",
            log_x=True,
        )  # fmt: skip
    return PaperSection(
        key=KEY,
        title="Fan-out schedules at equal budget",
        paper="Hit rate uniform | geometric, read off a chart (70B/1B): T=0 .85|.86, T=0.3 .835|.85, T=0.7 .785|.81, "
        "T=1 .58|.635.",
        ours=f"k = {k}, budgets f * (k + 1). All on the same rounds, {lookups} lookups by T; in brackets the "
        "difference to uniform in points with the 95 % interval of a paired bootstrap over requests. 'paper's law': "
        "the allocation of Theorem 12 with acceptance and r of miss rate F^-r; 'geometric': the same with a fitted "
        "scale, apart for refused and kept drafts and for hit and miss rounds; both fitted on one half of the requests "
        "and tried on the other, and the other way round. 'by lengths': adaptive over lengths and ranks, learns while "
        "it is tried; 'by confidence': adaptive by the draft's probabilities of each round, likewise. 'hindsight': the "
        "best counts for these very rounds, the most that one schedule over accepted lengths could reach.",
        tables=(Table(("T", "budget", *NAMES), tuple(rows)),),
        claims=claims(numbers),
        figures=figures,
        numbers={"hit_rates": numbers, "lookups": lookups},
    )


def contenders(trace: Trace, budget: int, k: int) -> dict[str, Hits]:
    """Hits of the schedules over accepted lengths. Budget: a multiple of k + 1."""
    hits: dict[str, dict[int, list[bool]]] = {}
    for fitted, tried in (parts := halves(trace)), parts[::-1]:
        for name, schedule in schedules(fitted, budget, k).items():
            hits.setdefault(name, {}).update(replayed_hits(tried, schedule.learner(k)))
    whole = {"by lengths": Adaptive(budget=budget, by_confidence=False), "hindsight": _hindsight(trace, budget, k)}
    return {**hits, **{name: replayed_hits(trace, schedule.learner(k)) for name, schedule in whole.items()}}


def schedules(fitted: Trace, budget: int, k: int) -> dict[str, Schedule]:
    """The schedules that are fitted, and the uniform one; budget: a multiple of k + 1."""
    samples = outcome_samples(fitted)
    uniform = Uniform(f=budget // (k + 1))
    paper = fit_hit_law([s.rank for s in samples if s.rank is not None], scaled=False)
    acceptance = acceptance_rate(samples)
    return {
        "uniform": uniform,
        "paper's law": uniform
        if paper is None or acceptance is None
        else Geometric(budget=budget, acceptance=acceptance, exponent=paper.law.exponent),
        "geometric": _fitted(fitted, budget),
    }


def _fitted(trace: Trace, budget: int) -> Schedule:
    """The fitted schedule; of a recording too short to be fitted, the one under the default law."""
    try:
        return Geometric.from_trace(trace, budget)
    except ConfigError:
        return Geometric(budget=budget)


def _hindsight(trace: Trace, budget: int, k: int) -> Schedule:
    """Of a recording without a lookup, the uniform one."""
    try:
        return Explicit.from_trace(trace, k, budget)
    except ConfigError:
        return Uniform(f=budget // (k + 1))


def rate(hits: Hits) -> float:
    """Hits over lookups, 0 without any."""
    lookups = sum(map(len, hits.values()))
    return sum(map(sum, hits.values())) / lookups if lookups else 0.0


def gap(hits: Hits, uniform: Hits) -> Estimate | None:
    """How much higher a hit rate is than the uniform one's on the same lookups; None without any."""
    requests = sorted(uniform)
    return bootstrap_ratio(
        [sum(hits[own]) - sum(uniform[own]) for own in requests], [len(uniform[own]) for own in requests]
    )


def claims(numbers: list[dict[str, Any]]) -> tuple[Claim, ...]:
    """Never below uniform beyond chance; better by two points at T = 1."""
    made = []
    for name in COMPARED:
        gaps = {(e["temperature"], e["budget"]): own for e in numbers if (own := e["over_uniform"][name]) is not None}
        if not gaps:
            continue
        worst = min(gaps, key=lambda place: gaps[place]["mean"])
        told = [own["high"] for own in gaps.values() if own["high"] is not None]
        below = sum(own["mean"] < 0 for own in gaps.values())
        made.append(
            Claim(
                f"{name} is never below uniform at equal budget by more than chance",
                all(high >= 0 for high in told) if told else None,
                f"below in {below} of {len(gaps)} cases, smallest difference {_points(gaps[worst])} points at "
                f"T = {worst[0]:g}, budget {worst[1]}",
            )
        )
        warm = {budget: own for (temperature, budget), own in gaps.items() if temperature == 1.0}
        made.append(
            Claim(
                f"{name} is better by at least {100 * BETTER_BY:.0f} points at T = 1, at every budget",
                min(own["mean"] for own in warm.values()) >= BETTER_BY if warm else None,
                ", ".join(f"{budget}: {_points(own)}" for budget, own in warm.items()),
            )
        )
    return tuple(made)


def _shown(estimate: Estimate | None) -> str:
    return "-" if estimate is None else _points(estimate.as_dict())


def _points(estimate: Mapping[str, Any]) -> str:
    """`+2.1 [+1.0, +3.2]`."""
    shown = f"{100 * estimate['mean']:+.1f}"
    if estimate["low"] is None:
        return shown
    return f"{shown} [{100 * estimate['low']:+.1f}, {100 * estimate['high']:+.1f}]"
