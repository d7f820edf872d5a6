"""Line charts as SVG, linear or logarithmic, with a legend; no library and nothing to load."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 640, 340
LEFT, RIGHT, TOP, BOTTOM = 62, 168, 36, 48
COLOURS = ("#2458a6", "#c2571a", "#2e7d4f", "#7a3b8f", "#8a6d00", "#b0263f", "#3b8a92", "#555555")


@dataclass(frozen=True)
class Line:
    """Points (x, y). dashed: a fit or another's numbers; marked: a dot at each point."""

    name: str
    points: Sequence[tuple[float, float]]
    dashed: bool = False
    marked: bool = True
    colour: int | None = None


def line_chart(
    lines: Sequence[Line], *, title: str, x_title: str, y_title: str, log_x: bool = False, log_y: bool = False
) -> str:
    """The chart; points that a logarithm does not allow are left out."""
    lines = [
        Line(
            line.name,
            [(x, y) for x, y in line.points if (x > 0 or not log_x) and (y > 0 or not log_y)],
            line.dashed,
            line.marked,
            line.colour,
        )
        for line in lines
    ]
    xs, ys = [x for line in lines for x, _ in line.points], [y for line in lines for _, y in line.points]
    x_at = _scale(xs, LEFT, WIDTH - RIGHT, log_x)
    y_at = _scale(ys, HEIGHT - BOTTOM, TOP, log_y)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" viewBox="0 0 {WIDTH} {HEIGHT}">',
        "<style>text { font-size: 11px; fill: #222 }</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" style="font-size: 13px">{html.escape(title)}</text>',
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">{html.escape(x_title)}</text>',
        (
            f'<text transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
            f"{html.escape(y_title)}</text>"
        ),
    ]
    for value in _ticks(ys, log_y):
        y = y_at(value)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e2e2e2"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>')
    for value in _ticks(xs, log_x):
        x = x_at(value)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#f0f0f0"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{value:.4g}</text>')
    for number, line in enumerate(lines):
        parts += _drawn(line, number, x_at, y_at)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _drawn(line: Line, number: int, x_at: Callable[[float], float], y_at: Callable[[float], float]) -> list[str]:
    colour = COLOURS[(number if line.colour is None else line.colour) % len(COLOURS)]
    dashes = ' stroke-dasharray="5 4"' if line.dashed else ""
    path = " ".join(f"{x_at(x):.1f},{y_at(y):.1f}" for x, y in line.points)
    parts = [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{dashes}/>']
    if line.marked:
        parts += [f'<circle cx="{x_at(x):.1f}" cy="{y_at(y):.1f}" r="2.4" fill="{colour}"/>' for x, y in line.points]
    y, x = TOP + 8 + 16 * number, WIDTH - RIGHT + 12
    parts.append(f'<line x1="{x}" x2="{x + 18}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"{dashes}/>')
    parts.append(f'<text x="{x + 24}" y="{y + 4}">{html.escape(line.name)}</text>')
    return parts


def _scale(values: Sequence[float], start: float, stop: float, logarithmic: bool) -> Callable[[float], float]:
    place = math.log if logarithmic else float
    low, high = place(min(values, default=1)), place(max(values, default=1))
    if not logarithmic:
        room = (high - low) * 0.04 or abs(high) * 0.1 or 1.0
        low, high = low - room, high + room
    width = high - low or 1.0
    return lambda value: start + (place(value) - low) / width * (stop - start)


def _ticks(values: Sequence[float], logarithmic: bool) -> list[float]:
    low, high = min(values, default=1), max(values, default=1)
    if logarithmic:
        exponents = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
        found = [m * 10.0**e for e in exponents for m in (1, 2, 5) if low <= m * 10.0**e <= high]
        return found or [low, high]
    if high == low:
        return [low]
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step = next((step * m for m in (1, 2, 5) if (high - low) / (step * m) <= 6), step * 10)
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
