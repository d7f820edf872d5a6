"""What a check found: one verdict, tables for people, plain data for programs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ssd_lab.check.cells import Cell, CellResult
from ssd_lab.check.correction import ALL, CorrectedTests, corrected_tests
from ssd_lab.check.greedy import GreedyResult
from ssd_lab.check.path_tests import PathTests
from ssd_lab.check.statistics import SURELY, found_rate
from ssd_lab.display.tables import Side, Table

if TYPE_CHECKING:
    from rich.console import RenderableType

ALPHA = 0.01
_SHOWN_DIFFERENCES = 5


@dataclass
class Report(ABC):
    """Every cell so far, of `num_cells`. interrupted: Ctrl-C ended the check before its end."""

    settings: dict[str, Any] = field(default_factory=dict)
    num_cells: int = 0
    cells: list[tuple[Cell, CellResult]] = field(default_factory=list)
    alpha: float = ALPHA
    interrupted: bool = False

    @cached_property
    def tested(self) -> list[CorrectedTests]:
        """Everything that was tested. Asked once the cells are there."""
        return corrected_tests(self.cells)

    @property
    def num_tests(self) -> int:
        """p-values that the correction counts."""
        return sum(len(one.tests.p_values) for one in self.tested)

    @property
    def greedy(self) -> list[GreedyResult]:
        """What came of the cells at temperature 0."""
        return [result.greedy for _, result in self.cells if result.greedy is not None]

    @property
    def different(self) -> list[GreedyResult]:
        """The greedy runs whose tokens differ."""
        return [result for result in self.greedy if not result.same]

    @property
    def wrong_paths(self) -> list[CorrectedTests]:
        """What does not follow its law."""
        return [one for one in self.tested if one.adjusted < self.alpha]

    @property
    def failed(self) -> list[CellResult]:
        """Cells that ended in an error."""
        return [result for _, result in self.cells if result.failed]

    @property
    def same(self) -> bool:
        """Nothing was found."""
        return not (self.different or self.wrong_paths or self.failed)

    def finds_from(self, tests: PathTests) -> float | None:
        """The smallest bias that the tests of this law would find surely (`SURELY`), as a share of its draws, whatever
        the correction makes of their level; None if it was not tested.
        """
        return tests.finds_from(self.alpha / max(1, self.num_tests))

    def verdict(self) -> str:
        """What was found; where nothing was, down to what."""
        parts, reach = [], []
        if self.greedy:
            tokens = sum(result.num_tokens for result in self.greedy)
            parts.append(
                f"{sum(r.num_differing_tokens for r in self.greedy)} differing tokens of {tokens:,} at temperature 0"
            )
            reach.append(f"one differing token in {int(1 / found_rate(tokens)):,}")
        if self.tested:
            rejected = f"{len(self.wrong_paths)} of {len(self.tested):,} laws rejected at p = {self.alpha:g}"
            parts.append(f"{rejected}, corrected for {self.num_tests:,} tests")
            found = [self.finds_from(one.tests) for one in self.tested if one.cell != ALL]
            if shares := [share for share in found if share is not None]:
                reach.append(f"a bias of {min(shares):.1%} to {max(shares):.1%} of a path's draws, as listed")
        if self.failed:
            parts.append(f"{len(self.failed)} cells failed")
        if not parts:
            return "nothing was checked"
        ended = "" if len(self.cells) == self.num_cells else f" so far ({len(self.cells)} of {self.num_cells} cells)"
        if not self.same:
            return f"NOT THE SAME{ended}: {'; '.join(parts)}"
        down_to = f". Would find with {SURELY:.0%}: {'; '.join(reach)}" if reach else ""
        return f"NO DIFFERENCE FOUND{ended}: {'; '.join(parts)}{down_to}"

    def findings(self) -> Iterator[str]:
        """Each thing that is wrong, a line each."""
        for cell, result in self.cells:
            if result.greedy is not None and not result.greedy.same:
                yield f"differing tokens: {result.greedy.num_differing_tokens} of {result.tokens:,}, {cell.key}"
                yield from _differences(result.greedy)
        for one in self.wrong_paths:
            worst = min(one.tests.p_values, key=lambda name: one.tests.p_values[name])
            kind = "filtered" if one.tests.filtered else "unfiltered"
            yield (
                f"rejected: {one.tests.path}, {one.tests.event}, {kind}, by {worst} (corrected p = {one.adjusted:.2g}, "
                f"{one.tests.draws:,} draws, {one.tests.impossible} impossible), {one.strategy}: {one.cell}"
            )
        yield from (f"failed: {result.key}: {result.failed}" for result in self.failed)

    @abstractmethod
    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""

    @abstractmethod
    def tables(self) -> list[Table]:
        """What was found, for a terminal."""

    def __rich__(self) -> RenderableType:
        from rich.console import Group
        from rich.text import Text

        shown = [part for table in self.tables() if table.rows for part in (_plain(table), Text())]
        shown += [Text(line, style="yellow") for line in self.findings()]
        return Group(*shown, Text(self.verdict(), style="bold green" if self.same else "bold red"))


def filled(patterns: Mapping[str, str], rows: Sequence[Mapping[str, Any]], *, names: int = 1, lead: str = "") -> Table:
    """A table whose columns have these titles and show rows by these patterns; so many of them hold words."""
    cells = [[pattern.format(**row) for pattern in patterns.values()] for row in rows]
    sides: list[Side] = ["left" if place < names else "right" for place in range(len(patterns))]
    return Table(list(patterns), cells, lead=lead, sides=sides)


def _plain(table: Table) -> RenderableType:
    """Without lines and with wide names folded, for tables of many rows."""
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(title=table.lead, title_justify="left", box=None)
    for title, side in zip(table.columns, table.aligned, strict=True):
        shown.add_column(title, justify=side)
    for row in table.rows:
        shown.add_row(*map(Text, row))
    return shown


def _differences(result: GreedyResult) -> Iterator[str]:
    if result.degraded:
        yield f"{result.strategy}, batch {result.batch}: {result.degraded}"
    for first in result.first_differences[:_SHOWN_DIFFERENCES]:
        gap = "one text ended" if first.logit_gap is None else f"logit gap {first.logit_gap:.2g}"
        yield (
            f"{result.strategy}, batch {result.batch}, prompt {first.prompt}: token {first.position} is {first.got} "
            f"instead of {first.expected}, {gap}"
        )
