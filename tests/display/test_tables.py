"""One table, in four ways."""

from __future__ import annotations

from rich.console import Console

from ssd_lab.display.tables import Column, Columns, Table, number

TABLE = Table(("name", "speed"), [("a|b", "1.5"), ("<c>", "-")], "what was run", ["a note"])


def test_markdown_keeps_pipes_inside_their_cells_and_numbers_at_the_right():
    assert TABLE.to_markdown() == (
        "what was run\n\n| name | speed |\n| --- | ---: |\n| a\\|b | 1.5 |\n| <c> | - |\n\na note"
    )


def test_text_is_padded():
    assert TABLE.to_text() == "what was run\nname  speed\na|b   1.5\n<c>   -\na note"
    assert Table(("a", "b"), []).to_text() == "a  b"


def test_html_is_escaped_and_needs_nothing():
    page = TABLE.to_html()
    assert "&lt;c&gt;" in page and "<c>" not in page and "class=" not in page and "<script" not in page
    assert page.count("text-align:right") == 3


def test_a_terminal_that_is_too_narrow_gets_one_column_a_row():
    wide, narrow = (Console(width=width, record=True) for width in (80, 24))
    table = Table(("name", "tokens per second"), [("one", "1.5"), ("two", "[b]2.5[/b]")])
    with wide.capture() as shown:
        wide.print(table.to_rich())
    assert "tokens per second" in shown.get() and "[b]2.5[/b]" in shown.get()
    with narrow.capture() as turned:
        narrow.print(table.to_rich())
    first = next(line for line in turned.get().splitlines() if "name" in line)
    assert "one" in first and "two" in first


def test_rows_of_metrics_become_text_and_what_is_unknown_a_dash():
    columns = Columns((Column("who", lambda row: row["who"], number=False), Column("share", number("share", "{:.0%}"))))
    table = columns.table([{"who": "a", "share": 0.25}, {"who": "b"}])
    assert table.rows == [["a", "25%"], ["b", "-"]]
    assert table.aligned == ("left", "right")
