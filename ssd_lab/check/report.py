"""What a check found: one verdict, tables for people, plain data for programs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ssd_lab.check.cells import Cell, CellResult
from ssd_lab.check.correction import CorrectedTests, corrected_tests
from ssd_lab.check.greedy import GreedyResult
from ssd_lab.display.tables import Side, Table

if TYPE_CHECKING:
    from rich.console import RenderableType

ALPHA = 0.01
_SHOWN_DIFFERENCES = 5
_GREEDY = {
    "strategy": "{strategy}",
    "batch": "{batch:,}",
    "sequences": "{num_sequences:,}",
    "tokens": "{num_tokens:,}",
    "differing tokens": "{num_differing_tokens}",
    "differing sequences": "{num_differing_sequences}",
}
_PATHS = {
    "strategy": "{strategy}",
    "path": "{path}",
    "temperature": "{temperature:g}",
    "draws": "{draws:,}",
    "off target": "{off_target}",
    "p-value": "{p_value}",
    "": "{verdict}",
}


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

    def verdict(self) -> str:
        """One line."""
        parts = []
        if self.greedy:
            differing = sum(result.num_differing_tokens for result in self.greedy)
            parts.append(f"{differing} differing tokens of {sum(r.num_tokens for r in self.greedy):,} at temperature 0")
        if self.tested:
            rejected = f"{len(self.wrong_paths)} of {len(self.tested):,} paths rejected at p = {self.alpha:g}"
            parts.append(f"{rejected}, corrected for {self.num_tests:,} tests")
        if self.failed:
            parts.append(f"{len(self.failed)} cells failed")
        if not parts:
            return "nothing was checked"
        ended = "" if len(self.cells) == self.num_cells else f" so far ({len(self.cells)} of {self.num_cells} cells)"
        return f"{'SAME' if self.same else 'NOT THE SAME'}{ended}: {'; '.join(parts)}"

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


@dataclass(frozen=True)
class PathResult:
    """One path of one strategy at one temperature: its draws and the p-values of its tests (empty: too few draws).

    enough: are there as many draws as were asked for? deviation: share of draws in the wrong bin. impossible: tokens
    that the target could not have drawn.
    """

    strategy: str
    temperature: float
    path: str
    draws: int
    enough: bool
    deviation: float | None
    impossible: int
    p_values: dict[str, float] = field(default_factory=dict)


@dataclass
class CheckReport(Report):
    """Greedy and distribution results."""

    @property
    def paths(self) -> list[PathResult]:
        """What came of the cells at temperatures above 0."""
        return [
            PathResult(
                strategy=cell.subject.label,
                temperature=cell.temperature,
                path=tests.path,
                draws=tests.draws,
                enough=tests.draws >= cell.draws,
                deviation=tests.deviation,
                impossible=tests.impossible,
                p_values=tests.p_values,
            )
            for cell, result in self.cells
            for tests in result.paths
        ]

    @property
    def adjusted(self) -> list[float | None]:
        """For each path its smallest p-value, corrected for all tests of the report (None: not tested)."""
        corrected = iter(self.tested)
        return [next(corrected).adjusted if path.p_values else None for path in self.paths]

    @property
    def rejected(self) -> list[PathResult]:
        """The paths that do not follow the target's distribution."""
        return [path for path, p in zip(self.paths, self.adjusted, strict=True) if p is not None and p < self.alpha]

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "same": self.same,
            "interrupted": self.interrupted,
            "alpha": self.alpha,
            "settings": self.settings,
            "greedy": [{**asdict(result), "same": result.same} for result in self.greedy],
            "paths": [
                {**asdict(path), "adjusted_p_value": p, "rejected": p is not None and p < self.alpha}
                for path, p in zip(self.paths, self.adjusted, strict=True)
            ],
        }

    def tables(self) -> list[Table]:
        """Greedy runs, and paths."""
        lead = f"Temperature > 0, p-values after Holm's correction, rejected below {self.alpha:g}"
        paths = [self._shown(path, p) for path, p in zip(self.paths, self.adjusted, strict=True)]
        return [
            filled(_GREEDY, list(map(asdict, self.greedy)), lead="Temperature 0, against autoregressive at batch 1"),
            filled(_PATHS, paths, names=2, lead=lead),
        ]

    def _shown(self, path: PathResult, p: float | None) -> dict[str, Any]:
        if p is None:
            verdict = "too few draws"
        elif p < self.alpha:
            verdict = "REJECTED"
        else:
            verdict = "ok" if path.enough else "ok, few"
        return {
            **asdict(path),
            "off_target": "-" if path.deviation is None else f"{path.deviation:.1%}",
            "p_value": "-" if p is None else f"{p:.3g}",
            "verdict": verdict,
        }


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
