"""The figures of a report as SVG: bars with their intervals, latencies of requests, acceptance by position."""

from __future__ import annotations

from collections.abc import Sequence

from ssd_lab.bench.figures import FIGURES
from ssd_lab.bench.result import BenchResult
from ssd_lab.bench.texts import estimate_text
from ssd_lab.display.charts import BarValue, Line, bar_chart, line_chart

Named = Sequence[tuple[str, BenchResult]]

BARS = ("decode_tokens_per_second", "tokens_per_round", "acceptance_rate", "cache_hit_rate")
WIDTH = 960


def figures_svg(runs: Named) -> dict[str, tuple[str, str]]:
    """Title and SVG of each figure that these runs tell, by its file's name."""
    bars = {key: (FIGURES[key].title, bars_svg(key, runs)) for key in BARS}
    lines = {
        "latency": ("latency of each request", latencies_svg(runs)),
        "acceptance_by_position": ("acceptance by position", positions_svg(runs)),
    }
    return {f"{key}.svg": (title, svg) for key, (title, svg) in (bars | lines).items() if svg is not None}


def bars_svg(key: str, runs: Named) -> str | None:
    """One group of bars a data set, one bar a run; None if no run tells the figure."""
    is_share = FIGURES[key].unit == "share"
    scale, unit = (100.0, "%") if is_share else (1.0, FIGURES[key].unit)

    def scaled(value: float | None) -> float | None:
        return None if value is None else value * scale

    series = {
        name: {
            dataset: BarValue(
                one.mean * scale, scaled(one.low), scaled(one.high), f"{name}, {dataset}: {estimate_text(key, one)}"
            )
            for dataset, found in result.datasets.items()
            if (one := found.estimates.get(key)) is not None
        }
        for name, result in runs
    }
    series = {name: bars for name, bars in series.items() if bars}
    if not series:
        return None
    title = FIGURES[key].title if unit in FIGURES[key].title else f"{FIGURES[key].title} ({unit})"
    datasets = list(dict.fromkeys(name for _, result in runs for name in result.datasets))
    top = 100.0 if is_share else None
    return bar_chart(datasets, series, title=title, unit="%" if is_share else "", top=top, width=WIDTH)


def latencies_svg(runs: Named) -> str | None:
    """How many of the requests had ended after so many seconds, all repeats: the whole distribution and not its
    percentiles alone.
    """
    lines = []
    for name, result in runs:
        for dataset, found in result.datasets.items():
            known = sorted(
                request.latency_s
                for repeat in found.repeats
                for request in repeat.requests
                if request.latency_s is not None
            )
            shares = [(latency_s, 100 * (place + 1) / len(known)) for place, latency_s in enumerate(known)]
            lines += [Line(f"{name}, {dataset}", shares, marked=len(shares) <= 40)] if shares else []
    title, seconds, share = (
        "latency of each request",
        "seconds since it left the queue",
        "% of the requests that had ended",
    )
    return (
        line_chart(lines, title=title, x_title=seconds, y_title=share, from_zero=True, width=WIDTH) if lines else None
    )


def positions_svg(runs: Named) -> str | None:
    """How often draft token 1, 2, ... was accepted, given that all before it were."""
    lines = [
        Line(name, [(place, 100 * share) for place, share in enumerate(shares, 1)])
        for name, result in runs
        if (shares := acceptance_by_position(result))
    ]
    title = "Acceptance by position (given that all before were accepted)"
    return (
        line_chart(lines, title=title, x_title="draft token", y_title="%", from_zero=True, width=WIDTH)
        if lines
        else None
    )


def acceptance_by_position(result: BenchResult) -> list[float]:
    """P(draft token i accepted | all before it were), over all data sets and repeats, up to where it is known."""
    totals = [repeat.totals for dataset in result.datasets.values() for repeat in dataset.repeats]
    longest = max((len(each.reached_at) for each in totals), default=0)
    shares = []
    for position in range(longest):
        reached = sum(each.reached_at[position] for each in totals if position < len(each.reached_at))
        if not reached:
            break
        accepted = sum(each.accepted_at[position] for each in totals if position < len(each.accepted_at))
        shares.append(accepted / reached)
    return shares
