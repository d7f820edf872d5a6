"""What goes to stdout (results) and to stderr (progress, errors)."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ssd_lab.errors import SsdLabError

if TYPE_CHECKING:
    from rich.console import Console

    from ssd_lab.results import Output

FOUND_DIFFERENCE = 1  # exit code of `check` if the text is not the same
FAILED = 2

_json_wanted: ContextVar[bool] = ContextVar("json_wanted", default=False)


def want_json(wanted: bool) -> bool:
    """Remember for this command whether results and errors are JSON; returns it."""
    _json_wanted.set(wanted)
    return wanted


def json_wanted() -> bool:
    """Are this command's results and errors JSON?"""
    return _json_wanted.get()


def show_progress() -> bool:
    """Progress bars are for people at a terminal: none beside JSON, none in a log file."""
    return not _json_wanted.get() and sys.stderr.isatty()


def console(*, stderr: bool = False) -> Console:
    """A console on today's stdout or stderr."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=False)


def print_json(document: Any) -> None:
    """One JSON document on stdout; numbers that JSON lacks (NaN, infinity) become null."""
    sys.stdout.write(json.dumps(_plain(document), ensure_ascii=False, indent=2) + "\n")
    sys.stdout.flush()  # a full disk is told of here, and not when Python ends


def print_markdown(text: str) -> None:
    """A report: drawn for a person at a terminal, as it is for a file or a pipe."""
    from rich.markdown import Markdown

    out = console()
    if out.is_terminal:
        out.print(Markdown(text))
    else:
        out.print(text, markup=False, highlight=False, soft_wrap=True)


def folded(columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1, title: str | None = None) -> Any:
    """A table whose cells are folded where the terminal is narrow, but for names beside numbers.

    left: so many columns, from the left, hold words.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold cyan", title=title)
    for number, column in enumerate(columns):
        words = number < left
        whole = words and left < len(columns)
        table.add_column(Text(column), justify="left" if words else "right", no_wrap=whole, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def print_outputs(outputs: Sequence[Output]) -> None:
    """Every prompt with its text."""
    from rich.text import Text

    out = console()
    for output in outputs:
        if output.prompt is not None:
            out.print(Text(f"> {output.prompt}", style="bold cyan"))
        out.print(Text(output.text.strip("\n")))
        if output.finish_reason in ("cancelled", "error"):
            out.print(Text(f"[{output.finish_reason}]", style="yellow"))
        out.print()


def say_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """One line on stderr, without the place in the code that Python would add."""
    console(stderr=True).print(f"warning: {message}", markup=False, style="yellow", soft_wrap=True)


def say_interrupted(what: str = "", *, goes_on: bool = False) -> None:
    """One line on stderr: what was finished when Ctrl-C came, and whether the same command goes on there."""
    how = "the same command goes on where it was" if goes_on else "the same command begins anew"
    console(stderr=True).print(f"{what or 'interrupted'}; {how}", markup=False, soft_wrap=True)


def report_error(error: SsdLabError) -> int:
    """Show what was finished, where that can be written, and one line in red; returns the exit code."""
    from rich.text import Text

    finished = [output for output in error.outputs if output.finish_reason in ("stop", "length")]
    line = " ".join(str(error).split())
    try:
        if _json_wanted.get():
            document = {
                "error": {"type": type(error).__name__, "message": line},
                "outputs": [output.as_dict() for output in finished],
            }
            print_json(document)
        else:
            print_outputs(finished)
            sys.stdout.flush()
    except OSError:
        _drop_output()
    console(stderr=True).print(Text(f"error: {line}", style="bold red"), soft_wrap=True)
    return FAILED


def _drop_output() -> None:
    """What is left for stdout goes nowhere: it cannot be written, and Python would try it again at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
