"""Benchmark results as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from ssd_lab.bench.comparison import RunComparison, compare_runs
from ssd_lab.bench.figures import FIGURES
from ssd_lab.bench.result import BenchResult
from ssd_lab.bench.store import Row
from ssd_lab.bench.texts import PEER_COLUMNS, estimate_text, figures_table, peer_rows, ratio_text, value_text
from ssd_lab.cli.output import folded

_SPEED = "decode_tokens_per_second"
PEERS_TITLE = "Beside other programs: tokens/s with prefill, in turns with ours"


def result_tables(result: BenchResult, title: str, name: str | None = None) -> RenderableType:
    """Figures down, data sets across; peers, answers and notes below. name: what the run is called."""
    datasets = result.datasets
    counts = {len(dataset.repeats) for dataset in datasets.values()}
    repeats = "one repeat: no intervals" if counts == {1} else f"{max(counts)} repeats, 95 % intervals"
    figures = figures_table({name: dataset.estimates for name, dataset in datasets.items()})
    parts: list[RenderableType] = [
        _title(f"{f'{name}: ' if name else ''}{result.config.label}: {title} ({repeats}; {_ending(result)})"),
        folded(figures.columns, figures.rows),
    ]
    if result.peers:
        parts += [_title(PEERS_TITLE), folded(PEER_COLUMNS, peer_rows(result), left=2)]
    parts += [Text(_quality_line(name, found)) for name, found in result.quality.items()]
    parts += [Text(f"note: {note}", style="yellow") for note in result.notes]
    if not result.exact:
        parts.append(Text("NOT EXACT: the texts do not follow the target's distribution", style="bold red"))
    return Group(*parts)


def _ending(result: BenchResult) -> str:
    return f"texts {'go on past' if result.config.ignore_eos else 'end at'} their end-of-text token"


def side_by_side(runs: Sequence[tuple[str, BenchResult]]) -> RenderableType:
    """Several runs of one command, by what they are called: decode tokens/s on each data set, and over the first's."""
    first = runs[0][1]
    datasets = list(dict.fromkeys(name for _, result in runs for name in result.datasets))
    columns = ["run", *(column for name in datasets for column in (f"{name} tokens/s", "over the first"))]
    rows = []
    for called, result in runs:
        cells = [called]
        for name in datasets:
            found = result.datasets[name].estimates if name in result.datasets else {}
            cells += [estimate_text(_SPEED, found.get(_SPEED)), "" if result is first else _over(first, result, name)]
        rows.append(cells)
    how = f"ssd-lab bench compare {runs[0][0]} {runs[-1][0]}; ssd-lab bench report {' '.join(each for each, _ in runs)}"
    return Group(_title("Side by side"), folded(columns, rows), Text(f"more: {how} --out FOLDER"))


def listing(rows: Sequence[Row]) -> RenderableType:
    """A line a run; what all runs share is said once above, since a line has little room."""
    columns = ("id", "time", "name", "group", "run", "target", "data sets")
    shown = [
        (
            str(row.run_id), row.time[:16].replace("T", " "), row.name or "", row.group or "",
            ", ".join(part for part in (row.config.label, row.config.others) if part), row.config.target,
            ", ".join(row.config.dataset_names),
        )
        for row in rows
    ]  # fmt: skip
    shared = [place for place in range(len(columns)) if len(shown) > 1 and len({row[place] for row in shown}) == 1]
    told = [f"{columns[place]} {shown[0][place]}" for place in shared if shown[0][place]]
    kept = [place for place in range(len(columns)) if place not in shared]
    table = folded([columns[i] for i in kept], [[row[i] for i in kept] for row in shown], left=len(kept))
    return Group(*([Text(f"all: {', '.join(told)}")] if told else []), table)


def _over(first: BenchResult, result: BenchResult, dataset: str) -> str:
    if dataset not in first.datasets or dataset not in result.datasets:
        return "-"
    found = compare_runs(first, result).figures
    return next(ratio_text(one.ratio) for one in found if (one.dataset, one.figure) == (dataset, _SPEED))


def comparison_tables(comparison: RunComparison) -> RenderableType:
    """Both runs' figures with their ratio, then what else differs."""
    parts: list[RenderableType] = []
    names = (comparison.first, comparison.second)
    for dataset in dict.fromkeys(figure.dataset for figure in comparison.figures):
        rows = [
            (
                FIGURES[each.figure].title,
                estimate_text(each.figure, each.first),
                estimate_text(each.figure, each.second),
                ratio_text(each.ratio),
                each.verdict or "",
            )
            for each in comparison.figures
            if each.dataset == dataset
        ]
        parts += [_title(dataset), folded(("", *names, "ratio", ""), rows)]
    parts.append(Text(f"same text: {comparison.same_texts} of {comparison.num_texts} prompts"))
    if comparison.changes:
        changes = [(name, *map(value_text, values)) for name, values in comparison.changes.items()]
        parts += [_title("What else differs"), folded(("", *names), changes)]
    return Group(*parts)


def _title(text: str) -> Text:
    return Text(text, style="bold")


def _quality_line(dataset: str, found: dict[str, Any]) -> str:
    if found["accuracy"] is None:
        return f"{dataset}: not scored ({found['note'] or 'no right answers known'})"
    return f"{dataset}: {found['num_passed']} of {found['num_scored']} answers right ({found['metric']})"
