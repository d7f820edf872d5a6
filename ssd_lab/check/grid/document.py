"""The grid's report as Markdown, and as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ssd_lab.display.environment import in_words

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ssd_lab.check.grid.report import GridReport

_GREEDY = ("strategy", "models", "configurations", "batches", "tokens", "differing")
_NARROW = ("strategy", "path", "decision", "draws", "corrected", "rejected")  # of _PATHS, in a terminal
_PATHS = ("strategy", "path", "decision", "draws", "filtered draws", "tests", "smallest p", "corrected", "rejected")


def markdown(report: GridReport) -> str:
    """Verdict, conditions, tables, and what was refused."""
    lines = ["# Every strategy, component, temperature and batch", "", f"**{report.verdict()}.**", ""]
    if report.command:
        lines += ["```text", report.command, "```", ""]
    lines += [*_conditions(report), ""]
    if greedy := _greedy_rows(report):
        lines += ["## Temperature 0: differing tokens", ""]
        lines += ["Against autoregressive decoding at batch 1.", "", *_table(_GREEDY, greedy), ""]
    if paths := _path_rows(report):
        lines += ["## Temperature over 0: every decision on every path", "", _what_is_tested(report), ""]
        lines += [*_table(_PATHS, paths), ""]
    if report.untested:
        lines += ["Too rare to be tested, all cells together: " + "; ".join(_untested(report)) + ".", ""]
    lines += _findings(report)
    lines += ["## Refused combinations", ""]
    lines += [
        *_table(
            ("combinations", "such as", "reason"),
            [(str(r.count), f"`{r.example.label}`", r.reason) for r in report.grid.refused]
            + [("1", f"`{result.key}`", result.refused or "") for result in report.refused],
        ),
        "",
    ]
    if report.grid.missing:
        lines += ["In no accepted configuration: " + ", ".join(f"`{name}`" for name in report.grid.missing) + ".", ""]
    lines += ["## Configurations", "", "```text"]
    lines += [configuration.label for configuration in report.grid.accepted]
    return "\n".join([*lines, "```", ""])


def tables(report: GridReport) -> RenderableType:
    """For a terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    shown: list[RenderableType] = []
    for title, columns, shown_columns, rows in (
        ("Temperature 0, against autoregressive at batch 1", _GREEDY, _GREEDY, _greedy_rows(report)),
        ("Temperature over 0, smallest corrected p-values", _PATHS, _NARROW, _path_rows(report)),
    ):
        if rows:
            table = Table(title=title, title_justify="left", box=None)
            for number, name in enumerate(shown_columns):
                table.add_column(name, justify="left" if number < 2 or name == "decision" else "right", no_wrap=True)
            for row in rows:
                cells = [row[columns.index(name)] for name in shown_columns]
                table.add_row(*cells, style="" if row[-1] == "0" else "red")
            shown += [table, Text()]
    shown += [Text(line, style="yellow") for line in _findings(report) if line]
    refused = sum(refusal.count for refusal in report.grid.refused) + len(report.refused)
    shown.append(Text(f"{refused} combinations are refused by their strategies; the report says why", style="dim"))
    shown.append(Text(report.verdict(), style="bold green" if report.same else "bold red"))
    return Group(*shown)


def _conditions(report: GridReport) -> list[str]:
    machine, versions = in_words(report.environment)
    seconds = sum(result.seconds for _, result in report.cells)
    settings = ", ".join(f"{name} {value}" for name, value in report.settings.items())
    return [
        f"- {machine}",
        f"- {versions}",
        f"- {report.environment['time']}; {len(report.cells)} cells in {seconds / 60:.1f} minutes of running",
        f"- {settings}",
    ]


def _what_is_tested(report: GridReport) -> str:
    return (
        "Models with random weights and a small vocabulary, whose draft differs clearly from the target. Each decision "
        "is tested against its law given what was decided before it, computed apart from the engine. *filtered draws*: "
        "those of requests with top-k, top-p or min-p, which are tested by themselves. *corrected*: the smallest "
        f"p-value after Holm's correction for all {report.num_tests:,} tests; rejected below {report.alpha:g}."
    )


def _greedy_rows(report: GridReport) -> list[tuple[str, ...]]:
    return [
        (
            *(row["strategy"], row["models"], str(row["configurations"]), ", ".join(map(str, row["batches"]))),
            *(f"{row['tokens']:,}", str(row["differing"])),
        )
        for row in report.by_strategy()
    ]


def _path_rows(report: GridReport) -> list[tuple[str, ...]]:
    return [
        (
            *(row["strategy"], row["path"], row["decision"], f"{row['draws']:,}", f"{row['filtered_draws']:,}"),
            *(str(row["tests"]), f"{row['smallest_p']:.2g}", f"{row['smallest_adjusted_p']:.2g}"),
            str(row["rejected"]),
        )
        for row in report.by_path()
    ]


def _untested(report: GridReport) -> Iterable[str]:
    for strategy, tests in report.untested:
        yield f"{strategy} {tests.path} {tests.event}{' (filtered)' if tests.filtered else ''}: {tests.draws} draws"


def _findings(report: GridReport) -> list[str]:
    lines = [
        f"- differing tokens: {result.differing} of {result.tokens:,}, {result.key}" for result in report.different
    ]
    for one in report.rejected:
        worst = min(one.tests.p_values, key=lambda name: one.tests.p_values[name])
        kind = "filtered" if one.tests.filtered else "unfiltered"
        lines.append(
            f"- rejected: {one.tests.path}, {one.tests.event}, {kind}, by {worst} (corrected p = {one.adjusted:.2g}, "
            f"{one.tests.draws:,} draws, {one.tests.impossible} impossible), {one.strategy}: {one.cell}"
        )
    lines += [f"- failed: {result.key}: {result.failed}" for result in report.failed]
    return ["## Found", "", *lines, ""] if lines else []


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    def line(cells: Sequence[Any]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    return [line(columns), "| " + " | ".join("---" for _ in columns) + " |", *(line(row) for row in rows)]
