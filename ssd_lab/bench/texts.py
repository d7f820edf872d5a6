"""Figures as text and tables, one way for terminals, Markdown and HTML."""

from __future__ import annotations

from collections.abc import Mapping

from ssd_lab.bench.figures import FIGURES
from ssd_lab.bench.result import BenchResult
from ssd_lab.common.statistics import Estimate
from ssd_lab.display.tables import Table

PEER_COLUMNS = ("data set", "program", "its tokens/s", "ours", "ours over it", "same text")


def figures_table(columns: Mapping[str, Mapping[str, Estimate]]) -> Table:
    """Figures down, and what is compared across: the estimates under each title."""
    rows = [
        (figure.title, *(estimate_text(name, found.get(name)) for found in columns.values()))
        for name, figure in FIGURES.items()
        if any(name in found for found in columns.values())
    ]
    return Table(["", *columns], rows)


def peer_rows(result: BenchResult) -> list[tuple[str, ...]]:
    """Other programs beside a run, under `PEER_COLUMNS`."""
    return [
        (
            dataset,
            peer,
            f"{found['tokens_per_second']:.0f}",
            f"{found['own_tokens_per_second']:.0f}",
            f"{found['own_speedup']:.2f}x",
            "-" if found["num_same"] is None else f"{found['num_same']} of {found['num_prompts']}",
        )
        for dataset, peers in result.peers.items()
        for peer, found in peers.items()
    ]


def estimate_text(figure: str, estimate: Estimate | None) -> str:
    """`312 ± 4 tokens/s`, `62.1 % [60.2, 63.9]`, or without interval where there is none."""
    if estimate is None:
        return "-"
    scale, unit = _scale(figure, estimate.mean)
    digits = _digits(estimate.mean * scale)
    text = f"{estimate.mean * scale:,.{digits}f}"
    space = f" {unit}" if unit else ""
    if estimate.low is None or estimate.high is None:
        return f"{text}{space}"
    low, high = estimate.low * scale, estimate.high * scale
    if estimate.method == "student":
        half = (high - low) / 2
        return f"{text} ± {half:,.{_digits(half) if half else digits}f}{space}"
    return f"{text}{space} [{low:,.{digits}f}, {high:,.{digits}f}]"


def ratio_text(estimate: Estimate | None) -> str:
    """`1.42x [1.38, 1.46]`."""
    if estimate is None:
        return "-"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.mean:.2f}x"
    return f"{estimate.mean:.2f}x [{estimate.low:.2f}, {estimate.high:.2f}]"


def value_text(value: object) -> str:
    """A setting's value, short."""
    if isinstance(value, dict):
        return ", ".join(f"{name}={value_text(part)}" for name, part in value.items()) or "-"
    if isinstance(value, list | tuple):
        return " ".join(value_text(part) for part in value) or "-"
    return "-" if value is None else str(value)


def _scale(figure: str, mean: float) -> tuple[float, str]:
    unit = FIGURES[figure].unit
    if unit == "share":
        return 100.0, "%"
    if unit == "s" and abs(mean) < 1:
        return 1000.0, "ms"
    return 1.0, "" if unit in ("tokens", "tokens/s") else unit


def _digits(value: float) -> int:
    """Three digits that count, or all before the point."""
    size = abs(value)
    return 0 if size >= 100 else 1 if size >= 10 else 2 if size >= 0.1 or size == 0 else 3
