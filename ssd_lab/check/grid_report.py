"""What the grid found: plain data, Markdown, and tables for a terminal."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ssd_lab.check.cells import Cell, CellResult
from ssd_lab.check.configurations import Configurations
from ssd_lab.check.correction import ALL, CorrectedTests, paths_without_tests
from ssd_lab.check.greedy import GreedyResult
from ssd_lab.check.path_tests import PathTests
from ssd_lab.check.report import Report, filled
from ssd_lab.display.environment import in_words
from ssd_lab.display.tables import Table
from ssd_lab.errors import ConfigError

_GREEDY = {
    "strategy": "{strategy}",
    "models": "{models}",
    "configurations": "{configurations}",
    "batches": "{batches}",
    "tokens": "{tokens:,}",
    "differing": "{differing}",
}
_PATHS = {
    "strategy": "{strategy}",
    "path": "{path}",
    "decision": "{decision}",
    "draws": "{draws:,}",
    "filtered draws": "{filtered_draws:,}",
    "tests": "{tests}",
    "smallest p": "{smallest_p:.2g}",
    "corrected": "{smallest_adjusted_p:.2g}",
    "finds from": "{finds}",
    "rejected": "{rejected}",
}
_WIDE = ("filtered draws", "tests", "smallest p")  # not in a terminal
_REFUSED = {"combinations": "{combinations}", "such as": "`{example}`", "reason": "{reason}"}
_WHAT_IS_TESTED = (
    "Models with random weights and a small vocabulary, whose draft differs clearly from the target. Each decision is "
    "tested against its law given what was decided before it, computed apart from the engine. *filtered draws*: those "
    "of requests with top-k, top-p or min-p, which are tested by themselves. *corrected*: the smallest p-value after "
    "Holm's correction for all {num_tests:,} tests; rejected below {alpha:g}."
)


@dataclass
class GridReport(Report):
    """Every cell so far. grid: what there was to check. command: what made it."""

    grid: Configurations = field(default_factory=Configurations)
    environment: dict[str, Any] = field(default_factory=dict)
    command: str | None = None

    @property
    def untested(self) -> list[tuple[str, PathTests]]:
        """Strategies and paths with too few draws in all cells together."""
        return paths_without_tests(self.cells)

    @property
    def rejected(self) -> list[CorrectedTests]:
        """Paths that do not follow their law."""
        return self.wrong_paths

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; `cells.jsonl` beside it has every test."""
        smallest: dict[str, float] = {}
        for one in self.tested:
            smallest[one.cell] = min(one.adjusted, smallest.get(one.cell, 1.0))
        return {
            "same": self.same,
            "verdict": self.verdict(),
            "command": self.command,
            "alpha": self.alpha,
            "num_tests": self.num_tests,
            "num_cells": self.num_cells,
            "settings": self.settings,
            "environment": self.environment,
            "cells": [_plain_cell(cell, result, smallest.get(cell.key)) for cell, result in self.cells],
            "paths": self.by_path(),
            "rejected": [asdict(one) for one in self.rejected],
            "refused": self._refused(),
            "never_accepted": self.grid.missing,
        }

    def by_path(self) -> list[dict[str, Any]]:
        """For each strategy, path and kind of decision, over all cells: draws, tests, the smallest p-value.

        all_cells_p: the smallest where all cells are added up.
        """
        groups: dict[tuple[str, str, str], list[CorrectedTests]] = defaultdict(list)
        for one in self.tested:
            groups[one.strategy, one.tests.path, one.tests.event].append(one)
        return [
            {
                "strategy": strategy,
                "path": path,
                "decision": event,
                "draws": sum(one.tests.draws for one in some if one.cell != ALL),
                "filtered_draws": sum(one.tests.draws for one in some if one.tests.filtered and one.cell != ALL),
                "tests": sum(len(one.tests.p_values) for one in some),
                "smallest_p": min(one.smallest for one in some),
                "smallest_adjusted_p": min(one.adjusted for one in some),
                "all_cells_p": min((one.smallest for one in some if one.cell == ALL), default=None),
                "finds_from": self._reach(some),
                "rejected": sum(one.adjusted < self.alpha for one in some),
            }
            for (strategy, path, event), some in sorted(groups.items())
        ]

    def _reach(self, some: list[CorrectedTests]) -> float | None:
        """Of the cells by themselves, the best one's."""
        found = (self.finds_from(one.tests) for one in some if one.cell != ALL)
        return min((share for share in found if share is not None), default=None)

    def by_strategy(self) -> list[dict[str, Any]]:
        """At temperature 0, for each strategy and pair of models: configurations, tokens, differing ones."""
        groups: dict[tuple[str, str], list[tuple[Cell, GreedyResult]]] = defaultdict(list)
        for cell, result in self.cells:
            if result.greedy is not None:
                groups[cell.subject.config.strategy_name, cell.models].append((cell, result.greedy))
        return [
            {
                "strategy": strategy,
                "models": models,
                "configurations": len({cell.subject.label for cell, _ in some}),
                "batches": sorted({cell.batch for cell, _ in some}),
                "tokens": sum(greedy.num_tokens for _, greedy in some),
                "differing": sum(greedy.num_differing_tokens for _, greedy in some),
            }
            for (strategy, models), some in sorted(groups.items())
        ]

    def write(self, folder: Path) -> None:
        """grid.md and grid.json. Raises ConfigError if they cannot be written."""
        try:
            (folder / "grid.md").write_text(self.markdown(), encoding="utf-8")
            (folder / "grid.json").write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"the report cannot be written to {folder}: {error}") from error

    def markdown(self) -> str:
        """Verdict, conditions, tables, and what was refused."""
        parts = ["# Every strategy, component, temperature and batch", f"**{self.verdict()}.**"]
        if self.command:
            parts.append(f"```text\n{self.command}\n```")
        parts.append("\n".join(f"- {line}" for line in self._conditions()))
        greedy, paths = self._greedy(), filled(_PATHS, self._shown_paths(), names=3)
        if greedy.rows:
            parts += ["## Temperature 0: differing tokens", greedy.to_markdown()]
        if paths.rows:
            parts.append("## Temperature over 0: every decision on every path")
            parts += [_WHAT_IS_TESTED.format(num_tests=self.num_tests, alpha=self.alpha), paths.to_markdown()]
        if self.untested:
            rare = "; ".join(f"{strategy} {_named(tests)}: {tests.draws} draws" for strategy, tests in self.untested)
            parts.append(f"Too rare to be tested, all cells together: {rare}.")
        if findings := [f"- {line}" for line in self.findings()]:
            parts += ["## Found", "\n".join(findings)]
        parts += ["## Refused combinations", filled(_REFUSED, self._refused(), names=3).to_markdown()]
        if self.grid.missing:
            parts.append(f"In no accepted configuration: {', '.join(f'`{name}`' for name in self.grid.missing)}.")
        labels = "\n".join(configuration.label for configuration in self.grid.accepted)
        return "\n\n".join([*parts, "## Configurations", f"```text\n{labels}\n```"]) + "\n"

    def tables(self) -> list[Table]:
        """By strategy at temperature 0, by path above it; how much was refused the report tells."""
        narrow = {title: pattern for title, pattern in _PATHS.items() if title not in _WIDE}
        lead = "Temperature over 0, smallest corrected p-values"
        return [self._greedy(), filled(narrow, self._shown_paths(), names=3, lead=lead)]

    def _shown_paths(self) -> list[dict[str, Any]]:
        rows = self.by_path()
        return [{**row, "finds": "-" if row["finds_from"] is None else f"{row['finds_from']:.1%}"} for row in rows]

    def _greedy(self) -> Table:
        rows = [{**row, "batches": ", ".join(map(str, row["batches"]))} for row in self.by_strategy()]
        return filled(_GREEDY, rows, names=2, lead="Against autoregressive decoding at batch 1")

    def _conditions(self) -> list[str]:
        seconds = sum(result.seconds for _, result in self.cells)
        return [
            *in_words(self.environment),
            f"{self.environment['time']}; {len(self.cells)} cells in {seconds / 60:.1f} minutes of running",
            ", ".join(f"{name} {value}" for name, value in self.settings.items()),
        ]

    def _refused(self) -> list[dict[str, Any]]:
        """By strategies, and by the engine."""
        found = [
            {"example": refusal.example.label, "combinations": refusal.count, "reason": refusal.reason}
            for refusal in self.grid.refused
        ]
        engine = [(result.key, result.refused) for _, result in self.cells if result.refused]
        return found + [{"example": key, "combinations": 1, "reason": reason} for key, reason in engine]


def _plain_cell(cell: Cell, result: CellResult, smallest: float | None) -> dict[str, Any]:
    return {
        "models": cell.models,
        "strategy": cell.subject.config.strategy_name,
        "fields": cell.subject.fields,
        "temperature": cell.temperature,
        "batch": cell.batch,
        "seconds": round(result.seconds, 3),
        "tokens": result.tokens,
        "differing": None if result.greedy is None else result.greedy.num_differing_tokens,
        "smallest_adjusted_p": smallest,
        "refused": result.refused,
        "failed": result.failed,
    }


def _named(tests: PathTests) -> str:
    return f"{tests.path} {tests.event}{' (filtered)' if tests.filtered else ''}"
