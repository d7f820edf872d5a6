"""Rows of metrics as tables: HTML for notebooks, Markdown for documents, rich for terminals; unknown is `-`."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table

Row = dict[str, Any]

# inherits colours and size, so that it reads in light and dark notebooks alike
_TABLE_STYLE = "border-collapse:collapse;font-variant-numeric:tabular-nums"
_CELL_STYLE = "padding:.2em .7em;border-bottom:1px solid rgba(128,128,128,.35);text-align:"
_NOTE_STYLE = "opacity:.75;font-size:90%;margin:.3em 0"


@dataclass(frozen=True)
class Column:
    """A title and how a row's cell reads; `number` columns are aligned to the right."""

    title: str
    show: Callable[[Row], str | None]
    number: bool = True

    def cell(self, row: Row) -> str:
        """The text of this column's cell."""
        return self.show(row) or "-"


@dataclass(frozen=True)
class Columns:
    """The columns of one kind of table."""

    columns: tuple[Column, ...]

    def cells(self, row: Row) -> list[tuple[str, str]]:
        """Title and text of each cell."""
        return [(column.title, column.cell(row)) for column in self.columns]


def _number(key: str, pattern: str) -> Callable[[Row], str | None]:
    return lambda row: None if row.get(key) is None else pattern.format(row[key])


def _duration(key: str) -> Callable[[Row], str | None]:
    def show(row: Row) -> str | None:
        seconds = row.get(key)
        if seconds is None:
            return None
        return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"

    return show


def _name(row: Row) -> str:
    return str(row["name"]) if row["exact"] else f"{row['name']} (not exact)"


def _same_text(row: Row) -> str | None:
    return None if row.get("same_text") is None else f"{row['same_text']}/{row['num_outputs']}"


_RUN = (
    Column("run", _name, number=False),
    Column("tokens/s", _number("tokens_per_second", "{:.1f}")),
    Column("tokens/round", _number("tokens_per_round", "{:.2f}")),
    Column("acceptance", _number("acceptance_rate", "{:.0%}")),
    Column("cache hits", _number("cache_hit_rate", "{:.0%}")),
    Column("first token", _duration("time_to_first_token_s")),
)
RUN_COLUMNS = Columns(
    (
        *_RUN,
        Column("predicted hits", _number("predicted_cache_hit_rate", "{:.0%}")),
        Column("tokens", _number("num_output_tokens", "{}")),
    )
)
COMPARISON_COLUMNS = Columns(
    (
        *_RUN,
        Column("speed-up", _number("speedup", "{:.2f}x")),
        Column("same text", _same_text),
        Column("tokens/s (simulated)", _number("simulated_tokens_per_second", "{:.0f}")),
    )
)


def html_table(rows: Sequence[Row], columns: Columns, *, lead: str = "", notes: Sequence[str] = ()) -> str:
    """A self-contained fragment: no scripts, no classes, everything escaped."""

    def line(tag: str, cells: Sequence[str]) -> str:
        aligned = zip(columns.columns, cells, strict=True)
        return "".join(
            f'<{tag} style="{_CELL_STYLE}{"right" if column.number else "left"}">{html.escape(cell)}</{tag}>'
            for column, cell in aligned
        )

    head = line("th", [column.title for column in columns.columns])
    body = "".join(f"<tr>{line('td', [column.cell(row) for column in columns.columns])}</tr>" for row in rows)
    lead_html = f'<p style="white-space:pre-wrap;margin:.3em 0">{html.escape(lead)}</p>' if lead else ""
    notes_html = "".join(f'<p style="{_NOTE_STYLE}">{html.escape(note)}</p>' for note in notes)
    table = f'<table style="{_TABLE_STYLE}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    return f"<div>{lead_html}{table}{notes_html}</div>"


def markdown_table(rows: Sequence[Row], columns: Columns, *, notes: Sequence[str] = ()) -> str:
    """A pipe table, the notes below it."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    lines = [
        line([column.title for column in columns.columns]),
        line(["---:" if column.number else "---" for column in columns.columns]),
        *(line([column.cell(row) for column in columns.columns]) for row in rows),
    ]
    return "\n".join([*lines, *(f"\n{note}" for note in notes)])


def rich_table(rows: Sequence[Row], columns: Columns, *, notes: Sequence[str] = ()) -> RenderableType:
    """A table for `rich.print`, one line a run, or one column a run where the terminal is too narrow for that.

    Names and notes are shown as they are, not as markup.
    """
    from rich.console import Group
    from rich.text import Text

    return Group(_FittingTable([columns.cells(row) for row in rows], columns), *(Text(note) for note in notes))


@dataclass(frozen=True)
class _FittingTable:
    cells: list[list[tuple[str, str]]]
    columns: Columns

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = [[column.title for column in self.columns.columns], *([text for _, text in row] for row in self.cells)]
        borders = 3 * len(self.columns.columns) + 1
        if sum(max(map(len, texts)) for texts in zip(*lines, strict=True)) + borders <= options.max_width:
            yield self._table(lines, ["right" if column.number else "left" for column in self.columns.columns])
        else:
            turned = [list(texts) for texts in zip(*lines, strict=True)]
            sides: list[Literal["left", "right"]] = ["right"] * len(turned[0])
            yield self._table(turned, ["left", *sides[1:]])

    def _table(self, lines: list[list[str]], sides: Sequence[Literal["left", "right"]]) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table()
        for title, side in zip(lines[0], sides, strict=True):
            table.add_column(Text(title), justify=side, overflow="fold")
        for line in lines[1:]:
            table.add_row(*map(Text, line))
        return table
