"""Views of the user's own: a function from a trace to a chart, bars or a table, drawn and linked as the others are."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from ssd_lab.display.tables import Table
from ssd_lab.errors import ConfigError
from ssd_lab.trace import Trace


@dataclass(frozen=True)
class Chart:
    """Lines, each a name with its points `(x, y)`; a y of None is left out. y: what that axis says.

    x: what the other axis says. Without it, x is a round's index, as `trace.to_rows()` has it: the selected round is
    marked, and a click on a point selects its round.
    """

    y: str
    lines: Mapping[str, Iterable[tuple[float, float | None]]]
    x: str | None = None

    def document(self) -> dict[str, Any]:
        """For the front end. Raises ValueError on a number that is none."""
        lines = [{"name": str(name), "points": _points(points)} for name, points in self.lines.items()]
        return {"kind": "chart", "x": self.x, "y": self.y, "lines": lines}


@dataclass(frozen=True)
class Bars:
    """A bar for each name, as long as its value. unit: said behind the number."""

    values: Mapping[str, float]
    unit: str = ""

    def document(self) -> dict[str, Any]:
        """For the front end. Raises ValueError on a number that is none, or below 0."""
        bars = [(str(name), _number(value)) for name, value in self.values.items()]
        if any(value < 0 for _, value in bars):
            raise ValueError("a bar is below 0: give its values from 0 on, or draw a Chart")
        return {"kind": "bars", "unit": self.unit, "bars": bars}


Picture = Chart | Bars | Table
View = TypeVar("View", bound=Callable[[Trace], Picture | None])


class Views:
    """The registered functions by name, in the order in which they came."""

    def __init__(self) -> None:
        self._views: dict[str, Callable[[Trace], Picture | None]] = {}

    def register(self, view: View) -> View:
        """Show what this function makes of a trace, wherever traces are shown; use as a decorator.

        It takes a `Trace` and returns a `Chart`, `Bars` or a `Table`, or None where it has nothing to show. Its name is
        the view's title, its docstring the line below. Defining it again (a notebook cell run twice) replaces it.
        """
        name = getattr(view, "__name__", "")
        if not callable(view) or isinstance(view, type) or not name.isidentifier():
            raise ConfigError(f"{view!r} is no view: register a function of a trace")
        known = self._views.get(name)
        if known is not None and _origin(known) != _origin(view):
            raise ConfigError(f"a view named {name!r} is registered already ({'.'.join(_origin(known))})")
        self._views[name] = view
        return view

    @property
    def names(self) -> list[str]:
        """Of all that are registered."""
        return list(self._views)

    def documents(self, trace: Trace) -> list[dict[str, Any]]:
        """What each makes of the trace, for the front end. One that fails is a warning, and says so in its place."""
        found = []
        for name, view in self._views.items():
            try:
                document = _document(view(trace))
            except Exception as error:  # the user's function may do anything, and the other views go on
                text = f"{type(error).__name__}: {error}"
                warnings.warn(f"the view {name!r} failed: {text}", stacklevel=2)
                document = {"kind": "error", "text": text}
            if document is not None:
                title = name.replace("_", " ").strip().capitalize()
                found.append({"name": name, "title": title, "help": inspect.getdoc(view) or "", **document})
        return found


VIEWS = Views()
register_view = VIEWS.register


def own_table(view: Mapping[str, Any], *, first_round: int, most: int) -> Table:
    """A view's document as a table, of its first rows only; rounds count from 1, as on the screen."""
    kind, lead = view["kind"], view["title"]
    if kind == "error":
        return Table(["failed"], [[view["text"]]], lead, sides=["left"])
    if kind == "table":
        return Table(view["columns"], view["rows"][:most], lead, view["notes"], view["sides"])
    if kind == "bars":
        rows = [[name, f"{value:g}{view['unit'] and ' ' + view['unit']}"] for name, value in view["bars"]]
        return Table(["", "value"], rows[:most], lead)
    points = [(x, line["name"], y) for line in view["lines"] for x, y in line["points"]]
    shift = 0 if view["x"] else 1 - first_round
    cells = [[f"{x + shift:g}", name, f"{y:g}"] for x, name, y in sorted(points)]
    return Table([view["x"] or "round", "line", view["y"]], cells[:most], lead, sides=["right", "left", "right"])


def _document(picture: object) -> dict[str, Any] | None:
    if isinstance(picture, Chart | Bars):
        return picture.document()
    if isinstance(picture, Table):
        cells: Sequence[Sequence[str]] = [[str(cell) for cell in row] for row in picture.rows]
        return {
            "kind": "table",
            "columns": [str(title) for title in picture.columns],
            "rows": cells,
            "sides": list(picture.aligned),
            "notes": [note for note in (picture.lead, *picture.notes) if note],
        }
    if picture is None:
        return None
    raise TypeError(f"it returned {type(picture).__name__}: return a Chart, Bars or a Table, or None for nothing")


def _points(points: Iterable[tuple[float, float | None]]) -> list[list[float]]:
    return [[_number(x), _number(y)] for x, y in points if y is not None]


def _number(value: float) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} cannot be drawn: leave it out, or give None for it")
    return float(f"{number:.6g}")  # as all numbers of a page


def _origin(view: Callable[..., Any]) -> tuple[str, str]:
    return view.__module__, view.__qualname__
