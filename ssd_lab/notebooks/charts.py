"""Plots of the tutorials: labelled axes, colours that colour-blind readers tell apart, and a second cue beside each."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito, 2008
MEANINGS = {  # by how a name begins, as in the views
    "target": "#0072B2",
    "autoregressive": "#0072B2",
    "draft": "#E69F00",
    "sync": "#E69F00",
    "async": "#009E73",
}
SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up", "x")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
PATTERNS = ("", "/", ".", "x", "-", "+")
HEIGHT = 380
INK, GRID = "#787878", "rgba(128,128,128,.25)"  # read on white and on black: a notebook's theme is not known here

Series = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def lines(
    series: Series,
    *,
    x: str,
    y: str,
    title: str,
    log_x: bool = False,
    log_y: bool = False,
    labels: Mapping[str, Sequence[str]] | None = None,
) -> Figure:
    """One line a series, `name: (x values, y values)`; x, y: what the axes mean, with the unit.

    labels: for a series by name, what stands at each of its points, or "".
    """
    from plotly import graph_objects

    colours = _colours(series)
    drawn = [
        graph_objects.Scatter(
            x=list(xs),
            y=list(ys),
            name=name,
            mode=("lines+markers" if len(xs) <= 40 else "lines") + ("+text" if name in (labels or {}) else ""),
            text=(labels or {}).get(name),
            textposition="top center",
            line={"color": colours[index], "dash": DASHES[index % 6], "width": 2},
            marker={"symbol": SYMBOLS[index % 6], "size": 8},
        )
        for index, (name, (xs, ys)) in enumerate(series.items())
    ]
    figure = graph_objects.Figure(drawn, _layout(x, y, title, list(series)))
    if log_x:
        places = _powers_of_two([value for xs, _ in series.values() for value in xs])
        figure.update_xaxes(type="log", tickmode="array", tickvals=places)
    figure.update_yaxes(type="log" if log_y else None)
    if log_y:
        figure.update_yaxes(
            tickmode="array", tickvals=_ones_twos_fives([value for _, ys in series.values() for value in ys])
        )
    return figure


def bars(
    series: Mapping[str, Sequence[float]],
    categories: Sequence[str],
    *,
    x: str,
    y: str,
    title: str,
) -> Figure:
    """Bars side by side, `name: one value a category`; x, y: what the axes mean, with the unit."""
    from plotly import graph_objects

    colours = _colours(series)
    drawn = [
        graph_objects.Bar(
            x=list(categories),
            y=list(values),
            name=name,
            marker={"color": colours[index], "pattern": {"shape": PATTERNS[index % 6], "solidity": 0.25}},
        )
        for index, (name, values) in enumerate(series.items())
    ]
    slanted = sum(map(len, categories)) > 30  # where room is scarce
    figure = graph_objects.Figure(drawn, _layout(x, y, title, list(series), below=100 if slanted else 55))
    figure.update_layout(barmode="group")
    figure.update_xaxes(type="category")
    return figure


def _colours(names: Iterable[str]) -> list[str]:
    """The first series of a model or a kind of decoding has that one's colour; others take those that are left."""
    own: list[str | None] = []
    for name in names:
        colour = next((colour for start, colour in MEANINGS.items() if name.startswith(start)), None)
        own.append(None if colour in own else colour)
    left = itertools.cycle([colour for colour in COLOURS if colour not in own] or COLOURS)
    return [colour or next(left) for colour in own]


def _layout(x: str, y: str, title: str, names: Sequence[str], *, below: int = 55) -> dict[str, Any]:
    """below: pixels for the x axis' numbers and name. The legend stands below them, in a phone's number of lines."""
    title, x, y = _in_lines(title, 36), _in_lines(x, 30), _in_lines(y, 30)  # as a phone has room for
    legend = 20 * math.ceil(sum(45 + 7 * len(name) for name in names) / 300) if len(names) > 1 else 0
    above = 50 + 18 * title.count("<br>")
    below += legend + 16 * x.count("<br>")
    return {
        "title": {"text": title, "font": {"size": 15}, "x": 0.01, "xanchor": "left"},
        "xaxis": {"title": {"text": x}, "gridcolor": GRID, "zerolinecolor": GRID},
        "yaxis": {"title": {"text": y}, "rangemode": "tozero", "gridcolor": GRID, "zerolinecolor": GRID},
        "height": HEIGHT - 105 + above + below,
        "margin": {"l": 60 + 16 * y.count("<br>"), "r": 15, "t": above, "b": below},
        "showlegend": len(names) > 1,
        "legend": {"orientation": "h", "yref": "container", "y": 0.0, "yanchor": "bottom"},
        "template": "plotly_white",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": INK},
    }


def _powers_of_two(values: Sequence[float]) -> list[float]:
    """At most seven round places between the least and the greatest value."""
    low, high = math.ceil(math.log2(min(values)) - 1e-9), math.floor(math.log2(max(values)) + 1e-9)
    return [2.0**power for power in range(low, high + 1, max(1, math.ceil((high - low) / 6)))]


def _ones_twos_fives(values: Sequence[float]) -> list[float]:
    """1, 2 and 5 of each power of ten in the range of the values, so that no two numbers collide."""
    shown = [value for value in values if value > 0]
    low, high = math.floor(math.log10(min(shown))), math.ceil(math.log10(max(shown)))
    return [digit * 10.0**power for power in range(low, high + 1) for digit in (1, 2, 5)]


def _in_lines(text: str, width: int) -> str:
    return "<br>".join(textwrap.wrap(text, width))
