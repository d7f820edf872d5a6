"""From the tests of single cells to what the whole grid may conclude."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ssd_lab.check.grid.cell import Cell, CellResult
from ssd_lab.check.grid.evidence import PathTests, added_up, pooled
from ssd_lab.check.statistics import holm

FEW, ALL = "cells with too few draws, together", "all cells added up"
Cells = Sequence[tuple[Cell, CellResult]]


@dataclass(frozen=True)
class CorrectedTests:
    """One path's decisions of one cell (or FEW, or ALL), and its smallest p-value, as it is and corrected."""

    strategy: str
    cell: str
    tests: PathTests
    smallest: float
    adjusted: float


def corrected_tests(cells: Cells) -> list[CorrectedTests]:
    """Everything that was tested, corrected (Holm) for all tests of the grid: of each cell; of cells with too few draws
    together; and of all cells of a strategy at once, where an error shows that is too small for any of them.
    """
    found = [
        (cell.configuration.strategy, cell.key, tests)
        for cell, result in cells
        for tests in result.paths
        if tests.p_values
    ]
    found += [(strategy, FEW, tests) for strategy, tests in _few(cells) if tests.p_values]
    found += [(strategy, ALL, tests) for strategy, tests in _added_up(cells)]
    adjusted = iter(holm([p for *_, tests in found for p in tests.p_values.values()]))
    return [
        CorrectedTests(*one, min(one[2].p_values.values()), min([next(adjusted) for _ in one[2].p_values]))
        for one in found
    ]


def paths_without_tests(cells: Cells) -> list[tuple[str, PathTests]]:
    """Strategies and paths with too few draws in all cells together."""
    return [(strategy, tests) for strategy, tests in _few(cells) if not tests.p_values]


def _few(cells: Cells) -> list[tuple[str, PathTests]]:
    return [(strategy, pooled(some)) for strategy, some in _by_path(cells, tested=False)]


def _added_up(cells: Cells) -> list[tuple[str, PathTests]]:
    return [(strategy, added_up(some)) for strategy, some in _by_path(cells, tested=True) if len(some) > 1]


def _by_path(cells: Cells, *, tested: bool) -> list[tuple[str, list[PathTests]]]:
    groups: dict[tuple[str, str, str, bool], list[PathTests]] = defaultdict(list)
    for cell, result in cells:
        for tests in result.paths:
            if bool(tests.p_values) == tested:
                groups[cell.configuration.strategy, tests.path, tests.event, tests.filtered].append(tests)
    return [(strategy, some) for (strategy, *_), some in groups.items()]
