"""What the grid found: one verdict, tables for people, plain data for programs."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssd_lab.check.grid.cell import Cell, CellResult
from ssd_lab.check.grid.configurations import Configurations
from ssd_lab.check.grid.correction import ALL, CorrectedTests, corrected_tests, paths_without_tests
from ssd_lab.check.grid.evidence import PathTests
from ssd_lab.check.report import ALPHA
from ssd_lab.errors import ConfigError

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass
class GridReport:
    """Every cell so far. num_cells: of the whole grid. command: what made it."""

    grid: Configurations
    cells: list[tuple[Cell, CellResult]]
    settings: dict[str, Any]
    environment: dict[str, Any]
    command: str | None = None
    num_cells: int = 0
    interrupted: bool = False
    alpha: float = field(default=ALPHA)

    @cached_property
    def tested(self) -> list[CorrectedTests]:
        """Everything that was tested. Asked once the cells are there."""
        return corrected_tests(self.cells)

    @property
    def untested(self) -> list[tuple[str, PathTests]]:
        """Strategies and paths with too few draws in all cells together."""
        return paths_without_tests(self.cells)

    @property
    def num_tests(self) -> int:
        """p-values that the correction counts."""
        return sum(len(one.tests.p_values) for one in self.tested)

    @property
    def rejected(self) -> list[CorrectedTests]:
        """Paths that do not follow their law."""
        return [one for one in self.tested if one.adjusted < self.alpha]

    @property
    def different(self) -> list[CellResult]:
        """Cells at temperature 0 with differing tokens."""
        return [result for _, result in self.cells if result.differing]

    @property
    def failed(self) -> list[CellResult]:
        """Cells that ended in an error."""
        return [result for _, result in self.cells if result.failed]

    @property
    def refused(self) -> list[CellResult]:
        """Cells whose configuration the engine did not take."""
        return [result for _, result in self.cells if result.refused]

    @property
    def same(self) -> bool:
        """Nothing was found."""
        return not (self.different or self.rejected or self.failed)

    def verdict(self) -> str:
        """One line."""
        greedy = [result for _, result in self.cells if result.differing is not None]
        differing = sum(result.differing or 0 for result in greedy)
        rejected = f"{len(self.rejected)} of {len(self.tested):,} paths rejected at p = {self.alpha:g}"
        parts = [
            f"{differing} differing tokens of {sum(result.tokens for result in greedy):,} at temperature 0",
            f"{rejected}, corrected for {self.num_tests:,} tests",
        ]
        if self.failed:
            parts.append(f"{len(self.failed)} cells failed")
        ended = "" if len(self.cells) == self.num_cells else f" so far ({len(self.cells)} of {self.num_cells} cells)"
        return f"{'SAME' if self.same else 'NOT THE SAME'}{ended}: {'; '.join(parts)}"

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
            "cells": [
                {
                    "models": cell.models,
                    "strategy": cell.configuration.strategy,
                    "fields": cell.configuration.fields,
                    "temperature": cell.temperature,
                    "batch": cell.batch,
                    "seconds": round(result.seconds, 3),
                    "tokens": result.tokens,
                    "differing": result.differing,
                    "smallest_adjusted_p": smallest.get(cell.key),
                    "refused": result.refused,
                    "failed": result.failed,
                }
                for cell, result in self.cells
            ],
            "paths": self.by_path(),
            "rejected": [{**vars(one), "tests": one.tests.as_dict()} for one in self.rejected],
            "refused": [
                {"example": refusal.example.label, "combinations": refusal.count, "reason": refusal.reason}
                for refusal in self.grid.refused
            ],
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
                "rejected": sum(one.adjusted < self.alpha for one in some),
            }
            for (strategy, path, event), some in sorted(groups.items())
        ]

    def by_strategy(self) -> list[dict[str, Any]]:
        """At temperature 0, for each strategy and pair of models: configurations, tokens, differing ones."""
        groups: dict[tuple[str, str], list[tuple[Cell, CellResult]]] = defaultdict(list)
        for cell, result in self.cells:
            if result.differing is not None:
                groups[cell.configuration.strategy, cell.models].append((cell, result))
        return [
            {
                "strategy": strategy,
                "models": models,
                "configurations": len({cell.configuration.label for cell, _ in some}),
                "batches": sorted({cell.batch for cell, _ in some}),
                "tokens": sum(result.tokens for _, result in some),
                "differing": sum(result.differing or 0 for _, result in some),
            }
            for (strategy, models), some in sorted(groups.items())
        ]

    def write(self, folder: Path) -> None:
        """grid.md and grid.json. Raises ConfigError if they cannot be written."""
        from ssd_lab.check.grid.document import markdown

        try:
            (folder / "grid.md").write_text(markdown(self), encoding="utf-8")
            (folder / "grid.json").write_text(json.dumps(self.as_dict(), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"the report cannot be written to {folder}: {error}") from error

    def __rich__(self) -> RenderableType:
        from ssd_lab.check.grid.document import tables

        return tables(self)
