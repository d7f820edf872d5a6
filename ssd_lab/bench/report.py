"""Reports of runs: the same sections as Markdown, and as one HTML page with figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssd_lab.bench.comparison import compare_runs
from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.figures import FIGURES
from ssd_lab.bench.report_svg import BARS, bars_svg
from ssd_lab.bench.result import BenchResult
from ssd_lab.bench.texts import estimate_text, ratio_text, value_text
from ssd_lab.errors import ConfigError

Named = Sequence[tuple[str, BenchResult]]

HEADLINE = "decode_tokens_per_second"
METHOD = (
    "Times and speeds: mean over the repeats with Student's t interval; rates: counts added up by request with the "
    "percentile bootstrap over requests; ratios: Welch's t interval on the logarithms. All intervals are 95 %. Decode "
    "tokens/s counts the seconds spent in rounds, total tokens/s all of them. Latency counts from the moment a request "
    "leaves the queue, since all of them are handed over at once."
)


@dataclass(frozen=True)
class Section:
    """A heading, then text, then a table (rows of cells under the columns), each of them possibly empty."""

    title: str
    text: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


def write_report(runs: Named, folder: Path, *, title: str = "Benchmark", html: bool = True) -> list[Path]:
    """Write report.md with its figures (SVG) and, if wanted, report.html into the folder; returns the files.

    The folder is made if missing. The first run is what the others are compared with. Raises ConfigError without runs,
    for a folder that cannot be written, or if plotly is missing for the page.
    """
    if not runs:
        raise ConfigError("a report needs at least one run")
    named = unique_names(runs)
    sections = report_sections(named)
    figures = {f"{key}.svg": drawn for key in BARS if (drawn := bars_svg(key, named)) is not None}
    links = [f"![{FIGURES[name.removesuffix('.svg')].title}]({name})" for name in figures]
    images = Section("Figures", ("\n\n".join(links),) if links else ())
    pages = {"report.md": markdown(title, [sections[0], images, *sections[1:]]), **figures}
    if html:
        from ssd_lab.bench.report_html import html_page

        pages["report.html"] = html_page(title, sections, named)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in pages.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the report cannot be written to {folder}: {error}") from error
    return [folder / name for name in pages]


def unique_names(runs: Named) -> list[tuple[str, BenchResult]]:
    """A run asked for by number is called by its strategy; equal names get numbers."""
    found: list[tuple[str, BenchResult]] = []
    for name, result in runs:
        plain = result.config.label if name.isdigit() else name
        taken = {known for known, _ in found}
        unique, number = plain, 2
        while unique in taken:
            unique, number = f"{plain} #{number}", number + 1
        found.append((unique, result))
    return found


def report_sections(runs: Named) -> list[Section]:
    """Speed and ratios first, then every figure by data set, peers, answers, what was run, and where."""
    sections = [_speed(runs)]
    datasets = list(dict.fromkeys(name for _, result in runs for name in result.datasets))
    sections += [_figures(runs, dataset) for dataset in datasets]
    sections += [section for section in (_peers(runs), _quality(runs)) if section.rows]
    whose: dict[str, list[str]] = {}
    for name, result in runs:
        for note in _notes(result):
            whose.setdefault(note, []).append(name)
    if whose:
        sections.append(Section("Notes", tuple(f"{note} ({', '.join(names)})" for note, names in whose.items())))
    return [*sections, _configurations(runs), *_environments(runs), Section("How it was measured", (METHOD,))]


def markdown(title: str, sections: Sequence[Section]) -> str:
    """The report for a repository."""
    parts = [f"# {title}", ""]
    for section in sections:
        parts += [f"## {section.title}", ""]
        parts += [f"- {line}" for line in section.text] if len(section.text) > 1 else list(section.text)
        parts += [""] if section.text else []
        if section.rows:
            parts += [_line(section.columns), _line([":--"] + ["--:"] * (len(section.columns) - 1))]
            parts += [_line(row) for row in section.rows]
            parts.append("")
    return "\n".join(parts).rstrip() + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _speed(runs: Named) -> Section:
    baseline_name, baseline = runs[0]
    rows = []
    for name, result in runs:
        comparison = {}
        if result is not baseline and baseline.datasets.keys() & result.datasets.keys():
            compared = compare_runs(baseline, result, (baseline_name, name))
            comparison = {each.dataset: each.ratio for each in compared.figures if each.figure == HEADLINE}
            same = f"{compared.same_texts} of {compared.num_texts}"
        for dataset, found in result.datasets.items():
            speed = estimate_text(HEADLINE, found.estimates.get(HEADLINE))
            over = ratio_text(comparison.get(dataset)) if comparison else "-"
            repeats = str(len(found.repeats))
            rows.append((name, dataset, speed, over, same if comparison else "-", repeats))
    columns = ("run", "data set", "decode tokens/s", f"over {baseline_name}", "same text (all sets)", "repeats")
    return Section("Speed", columns=columns, rows=tuple(rows))


def _figures(runs: Named, dataset: str) -> Section:
    having = [(name, result.datasets[dataset].estimates) for name, result in runs if dataset in result.datasets]
    rows = [
        (figure.title, *(estimate_text(key, estimates.get(key)) for _, estimates in having))
        for key, figure in FIGURES.items()
        if any(key in estimates for _, estimates in having)
    ]
    return Section(f"Data set {dataset}", columns=("", *(name for name, _ in having)), rows=tuple(rows))


def _peers(runs: Named) -> Section:
    rows = [
        (
            name,
            dataset,
            peer,
            f"{found['tokens_per_second']:.0f}",
            f"{found['own_tokens_per_second']:.0f}",
            f"{found['own_speedup']:.2f}x",
            "-" if found["num_same"] is None else f"{found['num_same']} of {found['num_prompts']}",
        )
        for name, result in runs
        for dataset, peers in result.peers.items()
        for peer, found in peers.items()
    ]
    columns = ("run", "data set", "program", "its tokens/s", "ours", "ours over it", "same text")
    return Section("Beside other programs", columns=columns, rows=tuple(rows))


def _quality(runs: Named) -> Section:
    rows = [
        (name, dataset, found["metric"], f"{found['num_passed']} of {found['num_scored']}", f"{found['accuracy']:.1%}")
        for name, result in runs
        for dataset, found in result.quality.items()
        if found["accuracy"] is not None
    ]
    return Section("Answers", columns=("run", "data set", "metric", "right", "share"), rows=tuple(rows))


def _notes(result: BenchResult) -> list[str]:
    inexact = [] if result.exact else ["NOT EXACT: the texts do not follow the target's distribution"]
    return [*inexact, *result.notes]


def _configurations(runs: Named) -> Section:
    """Fields that are not at their defaults in every run."""
    rows = [
        (field, *(value_text(getattr(result.config, field)) for _, result in runs))
        for field, info in BenchConfig.model_fields.items()
        if any(getattr(result.config, field) != info.get_default(call_default_factory=True) for _, result in runs)
    ]
    text = ("Fields that are not named here are at their defaults.",)
    return Section("Configurations", text, columns=("", *(name for name, _ in runs)), rows=tuple(rows))


def _environments(runs: Named) -> list[Section]:
    """What all runs have in common once, and the rest beside each other."""
    facts = [_flat(result.environment) for _, result in runs]
    names = list(dict.fromkeys(name for each in facts for name in each))
    common = [name for name in names if all(each.get(name) == facts[0].get(name) for each in facts)]
    shared = tuple((name, value_text(facts[0].get(name))) for name in common)
    own = tuple((name, *(value_text(each.get(name)) for each in facts)) for name in names if name not in common)
    return [
        Section("Where it was measured", columns=("", "all runs"), rows=shared),
        *([Section("What differed", columns=("", *(name for name, _ in runs)), rows=own)] if own else []),
    ]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    found: dict[str, Any] = {}
    for name, part in value.items():
        found |= _flat(part, f"{prefix}.{name}" if prefix else str(name))
    return found
