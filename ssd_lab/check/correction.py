"""From the tests of single cells to what the whole check may conclude."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ssd_lab.check.cells import Cell, CellResult
from ssd_lab.check.evidence import added_up
from ssd_lab.check.path_tests import PathTests
from ssd_lab.check.statistics import holm

ALL = "all cells added up"
Cells = Sequence[tuple[Cell, CellResult]]


@dataclass(frozen=True)
class CorrectedTests:
    """One path's decisions of one cell (or ALL), and its smallest p-value, as it is and corrected."""

    strategy: str
    cell: str
    tests: PathTests
    smallest: float
    adjusted: float


def corrected_tests(cells: Cells) -> list[CorrectedTests]:
    """Everything that was tested, corrected (Holm) for all tests: of each cell; and, where cells tell what can be added
    up, of all cells of a strategy at once.
    """
    found = [(cell.subject.config.strategy_name, cell.key, tests) for cell, result in cells for tests in result.paths]
    found += [(strategy, ALL, added_up(some)) for strategy, some in _by_path(cells) if _is_new(some)]
    found = [one for one in found if one[2].p_values]
    adjusted = iter(holm([p for *_, tests in found for p in tests.p_values.values()]))
    return [
        CorrectedTests(*one, min(one[2].p_values.values()), min([next(adjusted) for _ in one[2].p_values]))
        for one in found
    ]


def paths_without_tests(cells: Cells) -> list[tuple[str, PathTests]]:
    """Strategies and paths with too few draws in all cells together."""
    summed = [(strategy, added_up(some)) for strategy, some in _by_path(cells)]
    return [(strategy, tests) for strategy, tests in summed if not tests.p_values]


def _is_new(parts: list[PathTests]) -> bool:
    """Does their sum tell more than they do?"""
    return len(parts) > 1 or not parts[0].p_values


def _by_path(cells: Cells) -> list[tuple[str, list[PathTests]]]:
    groups: dict[tuple[str, str, str, bool], list[PathTests]] = defaultdict(list)
    for cell, result in cells:
        for tests in result.paths:
            if tests.summary:
                groups[cell.subject.config.strategy_name, tests.path, tests.event, tests.filtered].append(tests)
    return [(strategy, some) for (strategy, *_), some in groups.items()]
