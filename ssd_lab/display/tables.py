"""Tables of text for terminals, Markdown and HTML, and rows of metrics as such tables; unknown is `-`."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

Row = dict[str, Any]
Side = Literal["left", "right"]

# inherits colours and size, so that it reads in light and dark notebooks alike
_TABLE_STYLE = "border-collapse:collapse;font-variant-numeric:tabular-nums"
_CELL_STYLE = "padding:.2em .7em;border-bottom:1px solid rgba(128,128,128,.35);text-align:"
_NOTE_STYLE = "opacity:.75;font-size:90%;margin:.3em 0"


@dataclass(frozen=True)
class Table:
    """Titles of columns, and rows of text.

    lead: said above, notes: below. sides: of the columns' cells; none given: names at the left, then numbers at the
    right.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    lead: str = ""
    notes: Sequence[str] = ()
    sides: Sequence[Side] = ()

    @property
    def aligned(self) -> tuple[Side, ...]:
        """The side of each column's cells."""
        numbers: list[Side] = ["right"] * (len(self.columns) - 1)
        return tuple(self.sides or ["left", *numbers])

    def turned(self) -> Table:
        """The same with a column for each row, for rows of many cells."""
        columns, *rows = zip(self.columns, *self.rows, strict=True)
        return Table(columns, rows, self.lead, self.notes)

    def to_markdown(self) -> str:
        """A pipe table, the notes below it."""
        marks = ["---:" if side == "right" else "---" for side in self.aligned]
        lines = [_pipes(self.columns), _pipes(marks), *map(_pipes, self.rows), *(f"\n{note}" for note in self.notes)]
        return "\n".join([f"{self.lead}\n", *lines] if self.lead else lines)

    def to_text(self) -> str:
        """Columns padded with spaces."""
        lines = [self.columns, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        shown = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
        return "\n".join([*([self.lead] if self.lead else []), *shown, *self.notes])

    def to_html(self) -> str:
        """A self-contained fragment: no scripts, no classes, everything escaped."""

        def line(tag: str, cells: Sequence[str]) -> str:
            pairs = zip(self.aligned, cells, strict=True)
            return "".join(f'<{tag} style="{_CELL_STYLE}{side}">{html.escape(cell)}</{tag}>' for side, cell in pairs)

        body = "".join(f"<tr>{line('td', row)}</tr>" for row in self.rows)
        lead = f'<p style="white-space:pre-wrap;margin:.3em 0">{html.escape(self.lead)}</p>' if self.lead else ""
        notes = "".join(f'<p style="{_NOTE_STYLE}">{html.escape(note)}</p>' for note in self.notes)
        head = f"<thead><tr>{line('th', self.columns)}</tr></thead>"
        table = f'<table style="{_TABLE_STYLE}">{head}<tbody>{body}</tbody></table>'
        return (
            f"<div>{lead}{table if self.rows or not lead else ''}{notes}</div>"  # a lead alone says that none is there
        )

    def _repr_html_(self) -> str:
        return self.to_html()

    def to_rich(self) -> RenderableType:
        """For `rich.print`: one line a row, or one column a row where the terminal is too narrow for that
        and there are few of them.

        Words are shown as they are, not as markup.
        """
        from rich.console import Group
        from rich.text import Text

        return Group(*([Text(self.lead)] if self.lead else []), _FittingTable(self), *map(Text, self.notes))


@dataclass(frozen=True)
class Column:
    """A title and how a row's cell reads; `number` columns are aligned to the right."""

    title: str
    show: Callable[[Row], str | None]
    number: bool = True


@dataclass(frozen=True)
class Columns:
    """The columns of one kind of table."""

    columns: tuple[Column, ...]

    def table(self, rows: Sequence[Row], *, lead: str = "", notes: Sequence[str] = ()) -> Table:
        """The rows as text."""
        cells = [[column.show(row) or "-" for column in self.columns] for row in rows]
        sides: list[Side] = ["right" if column.number else "left" for column in self.columns]
        return Table([column.title for column in self.columns], cells, lead, notes, sides)


def number(key: str, pattern: str) -> Callable[[Row], str | None]:
    """How a row's number is shown; nothing where it is not known."""
    return lambda row: None if row.get(key) is None else pattern.format(row[key])


def _estimated(key: str, pattern: str) -> Callable[[Row], str | None]:
    """A number with its interval, as far as there is one."""

    def show(row: Row) -> str | None:
        shown, low, high = number(key, pattern)(row), row.get(f"{key}_low"), row.get(f"{key}_high")
        if shown is None or low is None or high is None or low == high:
            return shown
        return f"{shown} ({pattern.format(max(0.0, low)).rstrip('x')} to {pattern.format(high).rstrip('x')})"

    return show


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
    Column("tokens/s", _estimated("tokens_per_second", "{:.1f}")),
    Column("tokens/round", number("tokens_per_round", "{:.2f}")),
    Column("acceptance", number("acceptance_rate", "{:.0%}")),
    Column("cache hits", number("cache_hit_rate", "{:.0%}")),
    Column("first token", _duration("time_to_first_token_s")),
)
RUN_COLUMNS = Columns(
    (
        *_RUN,
        Column("predicted hits", number("predicted_cache_hit_rate", "{:.0%}")),
        Column("tokens", number("num_output_tokens", "{}")),
    )
)
COMPARISON_COLUMNS = Columns(
    (
        *_RUN,
        Column("speed-up", _estimated("speedup", "{:.2f}x")),
        Column("same text", _same_text),
        Column("tokens/s (simulated)", number("simulated_tokens_per_second", "{:.0f}")),
    )
)


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


@dataclass(frozen=True)
class _FittingTable:
    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.table import Table as RichTable
        from rich.text import Text

        lines, sides = [self.table.columns, *self.table.rows], self.table.aligned
        borders = 3 * len(sides) + 1
        is_wide = sum(max(map(len, texts)) for texts in zip(*lines, strict=True)) + borders > options.max_width
        if is_wide and len(self.table.rows) <= len(self.table.columns):  # many rows would be many columns
            turned = self.table.turned()
            lines, sides = [turned.columns, *turned.rows], turned.aligned
        shown = RichTable()
        for title, side in zip(lines[0], sides, strict=True):
            shown.add_column(Text(title), justify=side, overflow="fold")
        for line in lines[1:]:
            shown.add_row(*map(Text, line))
        yield shown
