"""Figures of a report as small SVG files: groups of bars with their intervals, for pages that hold no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from ssd_lab.bench.figures import FIGURES
from ssd_lab.bench.statistics import Estimate
from ssd_lab.bench.texts import estimate_text

if TYPE_CHECKING:
    from ssd_lab.bench.report import Named

BARS = ("decode_tokens_per_second", "tokens_per_round", "acceptance_rate", "cache_hit_rate")
# colour-blind safe (Okabe-Ito), black and yellow left out; further runs begin again
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7")
WIDTH, LEFT, RIGHT, TOP, HEIGHT, BELOW, LEGEND = 960, 56, 12, 34, 240, 24, 20
CHARACTER = 7  # width of one, about: the legend breaks its lines by it
GROUP_GAP = 0.25  # of a group's width


def bars_svg(key: str, runs: Named) -> str | None:
    """One group of bars a data set, one bar a run; None if no run tells the figure."""
    names = [name for name, result in runs if any(key in each.estimates for each in result.datasets.values())]
    datasets = list(dict.fromkeys(name for _, result in runs for name in result.datasets))
    if not names:
        return None
    found = {
        (name, dataset): each.estimates[key]
        for name, result in runs
        for dataset, each in result.datasets.items()
        if key in each.estimates
    }
    scale = 100.0 if FIGURES[key].unit == "share" else 1.0
    top = max((each.high or each.mean) * scale for each in found.values())
    step = _step(top)
    limit = 100.0 if FIGURES[key].unit == "share" else step * math.ceil(top / step)
    parts = _axis(limit, step, "%" if FIGURES[key].unit == "share" else "")
    group = (WIDTH - LEFT - RIGHT) / len(datasets)
    bar = group * (1 - GROUP_GAP) / len(names)
    for index, dataset in enumerate(datasets):
        start = LEFT + group * (index + GROUP_GAP / 2)
        for place, name in enumerate(names):
            estimate = found.get((name, dataset))
            if estimate is not None:
                title = f"{name}, {dataset}: {estimate_text(key, estimate)}"
                parts += _bar(estimate, start + place * bar, bar, scale / limit, COLOURS[place % len(COLOURS)], title)
        middle = LEFT + group * (index + 0.5)
        parts.append(f'<text x="{middle:.1f}" y="{TOP + HEIGHT + 16}" text-anchor="middle">{escape(dataset)}</text>')
    legend, lines = _legend(names)
    height = TOP + HEIGHT + BELOW + lines * LEGEND + 8
    unit = "%" if FIGURES[key].unit == "share" else FIGURES[key].unit
    heading = FIGURES[key].title if unit in FIGURES[key].title else f"{FIGURES[key].title} ({unit})"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(heading)}" font-family="sans-serif" font-size="12" fill="#222">'
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>'
        f'<text x="8" y="18" font-weight="bold">{escape(heading)}</text>{"".join(parts + legend)}</svg>\n'
    )


def _bar(estimate: Estimate, x: float, width: float, scale: float, colour: str, title: str) -> list[str]:
    """A bar, and a whisker over its interval where it has one."""

    def y(value: float) -> float:
        return TOP + HEIGHT * (1 - value * scale)

    box = f'x="{x:.1f}" y="{y(estimate.mean):.1f}" width="{width * 0.9:.1f}" height="{y(0) - y(estimate.mean):.1f}"'
    parts = [f'<rect {box} fill="{colour}"><title>{escape(title)}</title></rect>']
    if estimate.low is not None and estimate.high is not None:
        middle, cap = x + width * 0.45, width * 0.18
        low, high = y(max(0.0, estimate.low)), y(estimate.high)
        parts.append(
            f'<path d="M{middle:.1f} {low:.1f}V{high:.1f}M{middle - cap:.1f} {low:.1f}h{2 * cap:.1f}'
            f'M{middle - cap:.1f} {high:.1f}h{2 * cap:.1f}" stroke="#222" fill="none"/>'
        )
    return parts


def _axis(limit: float, step: float, unit: str) -> list[str]:
    parts = []
    for index in range(round(limit / step) + 1):
        y = TOP + HEIGHT * (1 - index * step / limit)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{index * step:g}{unit}</text>')
    return parts


def _step(top: float) -> float:
    """A round number that divides the axis into at most six parts."""
    power = 10.0 ** math.floor(math.log10(max(top, 1e-9)))
    return next(part * power for part in (0.2, 0.5, 1, 2) if top / (part * power) <= 6)


def _legend(names: Sequence[str]) -> tuple[list[str], int]:
    parts, x, line = [], LEFT, 0
    for place, name in enumerate(names):
        width = 30 + CHARACTER * len(name)
        if x > LEFT and x + width > WIDTH:
            x, line = LEFT, line + 1
        y = TOP + HEIGHT + BELOW + line * LEGEND
        parts.append(f'<rect x="{x}" y="{y}" width="14" height="12" fill="{COLOURS[place % len(COLOURS)]}"/>')
        parts.append(f'<text x="{x + 19}" y="{y + 11}">{escape(name)}</text>')
        x += width
    return parts, line + 1
