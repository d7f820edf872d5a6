"""Reports of runs: the same sections and figures as Markdown, and as one HTML page that needs no network."""

from __future__ import annotations

import html as html_text
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssd_lab.bench.comparison import compare_runs, flat
from ssd_lab.bench.config import BenchConfig
from ssd_lab.bench.figures import FIGURES
from ssd_lab.bench.report_figures import Named, figures_svg
from ssd_lab.bench.result import BenchResult
from ssd_lab.bench.texts import PEER_COLUMNS, estimate_text, figures_table, peer_rows, ratio_text, value_text
from ssd_lab.display.tables import Table
from ssd_lab.errors import ConfigError

HEADLINE = "decode_tokens_per_second"
OF_SERVERS = "total_tokens_per_second"  # whose rounds nobody sees
METHOD = (
    "Times and speeds: mean over the repeats with Student's t interval; rates: counts added up by request with the "
    "percentile bootstrap over requests; ratios: Welch's t interval on the logarithms. All intervals are 95 %. Decode "
    "tokens/s counts the seconds spent in rounds, total tokens/s all of them. Latency counts from the moment a request "
    "leaves the queue, since all of them are handed over at once; of a load on a server, from when it was due."
)


_STYLE = """
body { font-family: system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; line-height: 1.5; }
table { display: block; overflow-x: auto; white-space: nowrap; }
svg { display: block; max-width: 60rem; margin: 1rem 0; }
"""


@dataclass(frozen=True)
class ReportSection:
    """A heading, then text, then a table, each of them possibly missing."""

    title: str
    text: tuple[str, ...] = ()
    table: Table | None = None


def write_report(runs: Named, folder: Path, *, title: str = "Benchmark", html: bool = True) -> list[Path]:
    """Write report.md with its figures (SVG) and, if wanted, report.html into the folder; returns the files.

    The folder is made if missing. The first run is what the others are compared with. Raises ConfigError without runs,
    or for a folder that cannot be written.
    """
    if not runs:
        raise ConfigError("a report needs at least one run")
    named = unique_names(runs)
    sections, figures = report_sections(named), figures_svg(named)
    links = "\n\n".join(f"![{said}]({name})" for name, (said, _) in figures.items())
    images = ReportSection("Figures", (links,) if links else ())
    pages = {"report.md": markdown(title, [sections[0], images, *sections[1:]])}
    pages |= {name: svg for name, (_, svg) in figures.items()}
    if html:
        pages["report.html"] = html_page(title, sections, [svg for _, svg in figures.values()])
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


def report_sections(runs: Named) -> list[ReportSection]:
    """Speed and ratios first, then every figure by data set, peers, answers, what was run, and where."""
    sections = [_speed(runs)]
    datasets = list(dict.fromkeys(name for _, result in runs for name in result.datasets))
    sections += [_figures(runs, dataset) for dataset in datasets]
    sections += [*_peers(runs), *_quality(runs)]
    whose: dict[str, list[str]] = {}
    for name, result in runs:
        for note in _notes(result):
            whose.setdefault(note, []).append(name)
    if whose:
        sections.append(ReportSection("Notes", tuple(f"{note} ({', '.join(names)})" for note, names in whose.items())))
    return [*sections, _configurations(runs), *_environments(runs), ReportSection("How it was measured", (METHOD,))]


def markdown(title: str, sections: Sequence[ReportSection]) -> str:
    """The report for a repository."""
    parts = [f"# {title}"]
    for section in sections:
        parts.append(f"## {section.title}")
        parts += ["\n".join(f"- {line}" for line in section.text)] if len(section.text) > 1 else section.text
        parts += [] if section.table is None else [section.table.to_markdown()]
    return "\n\n".join(parts) + "\n"


def html_page(title: str, sections: Sequence[ReportSection], figures: Sequence[str]) -> str:
    """The report as a page. figures: SVG, shown behind the first section."""
    first, *others = map(_section_html, sections)
    heading = html_text.escape(title)
    head = f'<meta charset="utf-8"><title>{heading}</title><style>{_STYLE}</style>'
    body = "".join([f"<h1>{heading}</h1>", first, "<h2>Figures</h2>", *figures, *others])
    return f'<!DOCTYPE html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _section_html(section: ReportSection) -> str:
    paragraphs = "".join(f"<p>{html_text.escape(line)}</p>" for line in section.text)
    table = "" if section.table is None else section.table.to_html()
    return f"<h2>{html_text.escape(section.title)}</h2>{paragraphs}{table}"


def _speed(runs: Named) -> ReportSection:
    baseline_name, baseline = runs[0]
    headline = HEADLINE if all(result.config.load is None for _, result in runs) else OF_SERVERS
    rows = []
    for name, result in runs:
        comparison = {}
        if result is not baseline and baseline.datasets.keys() & result.datasets.keys():
            compared = compare_runs(baseline, result, (baseline_name, name))
            comparison = {each.dataset: each.ratio for each in compared.figures if each.figure == headline}
            same = f"{compared.same_texts} of {compared.num_texts}"
        for dataset, found in result.datasets.items():
            speed = estimate_text(headline, found.estimates.get(headline))
            over = ratio_text(comparison.get(dataset)) if comparison else "-"
            repeats = str(len(found.repeats))
            rows.append((name, dataset, speed, over, same if comparison else "-", repeats))
    columns = ("run", "data set", FIGURES[headline].title, f"over {baseline_name}", "same text (all sets)", "repeats")
    return ReportSection("Speed", table=Table(columns, rows))


def _figures(runs: Named, dataset: str) -> ReportSection:
    having = {name: result.datasets[dataset].estimates for name, result in runs if dataset in result.datasets}
    return ReportSection(f"Data set {dataset}", table=figures_table(having))


def _peers(runs: Named) -> list[ReportSection]:
    rows = [(name, *row) for name, result in runs for row in peer_rows(result)]
    return [ReportSection("Beside other programs", table=Table(("run", *PEER_COLUMNS), rows))] if rows else []


def _quality(runs: Named) -> list[ReportSection]:
    rows = [
        (name, dataset, found["metric"], f"{found['num_passed']} of {found['num_scored']}", f"{found['accuracy']:.1%}")
        for name, result in runs
        for dataset, found in result.quality.items()
        if found["accuracy"] is not None
    ]
    columns = ("run", "data set", "metric", "right", "share")
    return [ReportSection("Answers", table=Table(columns, rows))] if rows else []


def _notes(result: BenchResult) -> list[str]:
    inexact = [] if result.exact else ["NOT EXACT: the texts do not follow the target's distribution"]
    return [*inexact, *result.notes]


def _configurations(runs: Named) -> ReportSection:
    """Fields that are not at their defaults in every run."""
    rows = [
        (field, *(value_text(getattr(result.config, field)) for _, result in runs))
        for field, info in BenchConfig.model_fields.items()
        if any(getattr(result.config, field) != info.get_default(call_default_factory=True) for _, result in runs)
    ]
    text = ("Fields that are not named here are at their defaults.",)
    return ReportSection("Configurations", text, Table(["", *(name for name, _ in runs)], rows) if rows else None)


def _environments(runs: Named) -> list[ReportSection]:
    """What all runs have in common once, and the rest beside each other."""
    facts = [flat(result.environment) for _, result in runs]
    names = list(dict.fromkeys(name for each in facts for name in each))
    common = [name for name in names if all(each.get(name) == facts[0].get(name) for each in facts)]
    shared = [(name, value_text(facts[0].get(name))) for name in common]
    own = [(name, *(value_text(each.get(name)) for each in facts)) for name in names if name not in common]
    return [
        ReportSection("Where it was measured", table=Table(("", "all runs"), shared)),
        *([ReportSection("What differed", table=Table(["", *(name for name, _ in runs)], own))] if own else []),
    ]
