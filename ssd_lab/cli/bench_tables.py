"""Benchmark results as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ssd_lab.bench.comparison import RunComparison
from ssd_lab.bench.cost import WatchingCost
from ssd_lab.bench.figures import FIGURES
from ssd_lab.bench.result import BenchResult
from ssd_lab.bench.statistics import Estimate
from ssd_lab.bench.texts import estimate_text, ratio_text, value_text

PEERS_TITLE = "Beside other programs: tokens/s with prefill, in turns with ours"


def result_tables(result: BenchResult, title: str) -> RenderableType:
    """Figures down, data sets across; peers, answers and notes below."""
    config, datasets = result.config, list(result.datasets.values())
    counts = {len(dataset.repeats) for dataset in datasets}
    repeats = "one repeat: no intervals" if counts == {1} else f"{max(counts)} repeats, 95 % intervals"
    table = _table("", *(dataset.name for dataset in datasets))
    for name, figure in FIGURES.items():
        if any(name in dataset.estimates for dataset in datasets):
            cells = [estimate_text(name, dataset.estimates.get(name)) for dataset in datasets]
            table.add_row(figure.title, *cells)
    parts: list[RenderableType] = [Text(f"{config.label}: {title} ({repeats})", style="bold"), table]
    parts += [Text(PEERS_TITLE, style="bold"), _peers(result.peers)] if result.peers else []
    parts += [Text(_quality_line(name, found)) for name, found in result.quality.items()]
    parts += [Text(f"note: {note}", style="yellow") for note in result.notes]
    if not result.exact:
        parts.append(Text("NOT EXACT: the texts do not follow the target's distribution", style="bold red"))
    return Group(*parts)


def comparison_tables(comparison: RunComparison) -> RenderableType:
    """Both runs' figures with their ratio, then what else differs."""
    parts: list[RenderableType] = []
    for dataset in dict.fromkeys(figure.dataset for figure in comparison.figures):
        parts.append(Text(dataset, style="bold"))
        table = _table("", comparison.first, comparison.second, "ratio", "")
        for each in comparison.figures:
            if each.dataset == dataset:
                table.add_row(
                    FIGURES[each.figure].title,
                    estimate_text(each.figure, each.first),
                    estimate_text(each.figure, each.second),
                    ratio_text(each.ratio),
                    each.verdict or "",
                )
        parts.append(table)
    parts.append(Text(f"same text: {comparison.same_texts} of {comparison.num_texts} prompts"))
    if comparison.changes:
        parts.append(Text("What else differs", style="bold"))
        changes = _table("", comparison.first, comparison.second)
        for name, (left, right) in comparison.changes.items():
            changes.add_row(name, value_text(left), value_text(right))
        parts.append(changes)
    return Group(*parts)


def cost_table(cost: WatchingCost) -> RenderableType:
    """What tracing and progress cost."""
    table = _table("", "")
    for name, speed in zip(("without", "with"), cost.speeds, strict=True):
        table.add_row(f"total tokens/s {name}", estimate_text("total_tokens_per_second", speed))
    table.add_row("cost in time", cost_text(cost.ratio))
    table.add_row("cost in processor time", cost_text(cost.cpu_ratio))
    return Group(Text(f"Tracing and progress bar, {len(cost.plain)} pairs of runs in turns", style="bold"), table)


def cost_text(ratio: Estimate) -> str:
    """`1.2 % [0.4, 2.0]`: the share of time that it adds."""
    text = f"{(ratio.mean - 1) * 100:.1f} %"
    if ratio.low is None or ratio.high is None:
        return text
    return f"{text} [{(ratio.low - 1) * 100:.1f}, {(ratio.high - 1) * 100:.1f}]"


def _table(first: str, *columns: str) -> Table:
    """Names on the left in one line each, figures on the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _peers(peers: dict[str, Any]) -> Table:
    table = _table("program", "data set", "theirs", "ours", "ours over theirs", "same text")
    for dataset, found in peers.items():
        for name, peer in found.items():
            same = "-" if peer["num_same"] is None else f"{peer['num_same']} of {peer['num_prompts']}"
            table.add_row(
                name, dataset, f"{peer['tokens_per_second']:.0f}", f"{peer['own_tokens_per_second']:.0f}",
                f"{peer['own_speedup']:.2f}x", same,
            )  # fmt: skip
    return table


def _quality_line(dataset: str, found: dict[str, Any]) -> str:
    if found["accuracy"] is None:
        return f"{dataset}: not scored ({found['note'] or 'no right answers known'})"
    return f"{dataset}: {found['num_passed']} of {found['num_scored']} answers right ({found['metric']})"
