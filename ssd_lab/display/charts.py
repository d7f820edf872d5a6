"""Line and bar charts as SVG, for pages that hold no script; pointing at a bar or dot shows its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from ssd_lab.display.svg import COLOURS, Axis, LegendEntry, legend, picture, polyline, text

LEFT, RIGHT, TOP, HEIGHT = 62, 14, 34, 250  # around the area of the chart, and its height
GROUP_GAP = 0.25  # of a group's width


@dataclass(frozen=True)
class Line:
    """Points (x, y). dashed: a fit or another's numbers; marked: a dot at each point. colour: number of one."""

    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False
    marked: bool = True
    colour: int | None = None


@dataclass(frozen=True)
class BarValue:
    """A value, its interval where it has one, and what is shown when it is pointed at."""

    value: float
    low: float | None
    high: float | None
    said: str


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_title: str,
    y_title: str,
    log_x: bool = False,
    log_y: bool = False,
    from_zero: bool = False,
    width: int = 640,
) -> str:
    """Lines over two axes; points that a logarithm does not allow are left out. from_zero: both axes begin there."""
    kept = [[(x, y) for x, y in line.points if (x > 0 or not log_x) and (y > 0 or not log_y)] for line in lines]
    xs, ys = ([point[i] for points in kept for point in points] for i in (0, 1))
    right, bottom = width - RIGHT, TOP + HEIGHT
    if from_zero:
        x_axis = Axis(0.0, max(xs, default=1.0), LEFT, right)
        y_axis = Axis.from_zero(max(ys, default=1.0), bottom, TOP)
    else:
        x_axis = Axis.around(xs, LEFT, right, logarithmic=log_x)
        y_axis = Axis.around(ys, bottom, TOP, logarithmic=log_y)
    parts = [*_rows(y_axis, right), *_marks(x_axis, bottom)]
    entries = []
    for number, (line, points) in enumerate(zip(lines, kept, strict=True)):
        colour = COLOURS[(number if line.colour is None else line.colour) % len(COLOURS)]
        entries.append(LegendEntry(line.name, colour, line.dashed))
        parts.append(polyline([(x_axis.at(x), y_axis.at(y)) for x, y in points], colour, dashed=line.dashed))
        if line.marked:
            parts += [
                f'<circle cx="{x_axis.at(x):.1f}" cy="{y_axis.at(y):.1f}" r="2.4" fill="{colour}">'
                f"<title>{escape(line.name)}: {x:.4g}, {y:.4g}</title></circle>"
                for x, y in points
            ]
    parts.append(text((LEFT + right) / 2, bottom + 34, x_title, anchor="middle"))
    middle = (TOP + bottom) / 2
    parts.append(text(16, middle, y_title, anchor="middle", more=f'transform="rotate(-90 16 {middle:g})"'))
    return _framed(width, title, parts, entries, bottom + 48)


def bar_chart(
    groups: Sequence[str],
    series: Mapping[str, Mapping[str, BarValue]],
    *,
    title: str,
    unit: str = "",
    top: float | None = None,
    width: int = 960,
) -> str:
    """A group of bars for each name of `groups`, in it one of each series that has it. unit: behind the axis' numbers.
    top: of the axis; None: as high as the bars and their intervals.
    """
    right, bottom = width - RIGHT, TOP + HEIGHT
    most = max((bar.high or bar.value for bars in series.values() for bar in bars.values()), default=1.0)
    axis = Axis.from_zero(most if top is None else top, bottom, TOP)
    group_width = (right - LEFT) / len(groups)
    bar_width = group_width * (1 - GROUP_GAP) / len(series)
    parts = _rows(axis, right, unit)
    for index, group in enumerate(groups):
        start = LEFT + group_width * (index + GROUP_GAP / 2)
        for place, bars in enumerate(series.values()):
            if group in bars:
                parts += _bar(bars[group], start + place * bar_width, bar_width, axis, COLOURS[place % len(COLOURS)])
        parts.append(text(LEFT + group_width * (index + 0.5), bottom + 16, group, anchor="middle"))
    entries = [LegendEntry(name, COLOURS[place % len(COLOURS)], thick=True) for place, name in enumerate(series)]
    return _framed(width, title, parts, entries, bottom + 24)


def _framed(width: int, title: str, parts: Sequence[str], entries: Sequence[LegendEntry], below: float) -> str:
    drawn, end = legend(entries, LEFT, width - RIGHT, below)
    heading = text(8, 18, title, more='font-weight="bold"')
    return picture(width, end + 4, title, [heading, *parts, *drawn])


def _bar(bar: BarValue, x: float, width: float, axis: Axis, colour: str) -> list[str]:
    """A bar, and a whisker over its interval where it has one."""
    y, bottom = axis.at(bar.value), axis.at(0.0)
    box = f'x="{x:.1f}" y="{y:.1f}" width="{width * 0.9:.1f}" height="{bottom - y:.1f}"'
    parts = [f'<rect {box} fill="{colour}"><title>{escape(bar.said)}</title></rect>']
    if bar.low is not None and bar.high is not None:
        middle, cap = x + width * 0.45, width * 0.18
        low, high = axis.at(max(0.0, bar.low)), axis.at(bar.high)
        caps = "".join(f"M{middle - cap:.1f} {y:.1f}h{2 * cap:.1f}" for y in (low, high))
        parts.append(f'<path d="M{middle:.1f} {low:.1f}V{high:.1f}{caps}" stroke="#222" fill="none"/>')
    return parts


def _rows(axis: Axis, right: float, unit: str = "") -> list[str]:
    """Lines across the chart with their numbers at the left."""
    parts = []
    for value in axis.ticks():
        y = axis.at(value)
        parts += [f'<path d="M{LEFT} {y:.1f}H{right}" stroke="#ddd"/>']
        parts += [text(LEFT - 6, y + 4, f"{value:.4g}{unit}", anchor="end")]
    return parts


def _marks(axis: Axis, bottom: float) -> list[str]:
    """Lines up the chart with their numbers below."""
    parts = []
    for value in axis.ticks():
        x = axis.at(value)
        parts += [f'<path d="M{x:.1f} {TOP}V{bottom}" stroke="#eee"/>']
        parts += [text(x, bottom + 16, f"{value:.4g}", anchor="middle")]
    return parts
