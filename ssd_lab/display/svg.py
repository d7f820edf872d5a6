"""Parts of SVG pictures: a white page with a heading, text, axes, a legend; no script, nothing to load."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# colour-blind safe (Okabe and Ito, 2008), black and yellow left out; what comes after them begins again
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7")
_CHARACTER = 7  # width of one, about: legends break their lines by it
_LEGEND_LINE = 20


def picture(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    """The whole file. label: what it shows, for readers who do not see it."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{escape(label)}" font-family="sans-serif" font-size="12" fill="#222">'
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="white"/>{"".join(parts)}</svg>\n'
    )


def text(x: float, y: float, words: str, *, anchor: str = "start", more: str = "") -> str:
    """Words at a place. more: further attributes."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more and " " + more}>{escape(words)}</text>'


@dataclass(frozen=True)
class LegendEntry:
    """A line of a legend. thick: a bar's sample, otherwise a line's."""

    name: str
    colour: str
    dashed: bool = False
    thick: bool = False


def legend(entries: Sequence[LegendEntry], left: float, right: float, top: float) -> tuple[list[str], float]:
    """Samples with their names, as many to a line as there is room for; and where it ends below."""
    parts, x, y = [], left, top
    for entry in entries:
        width = 30 + _CHARACTER * len(entry.name)
        if x > left and x + width > right:
            x, y = left, y + _LEGEND_LINE
        stroke = f'stroke="{entry.colour}" stroke-width="{12 if entry.thick else 2}"{_dashes(entry.dashed)}'
        parts += [f'<path d="M{x:.1f} {y + 6:.1f}h14" {stroke}/>', text(x + 19, y + 11, entry.name)]
        x += width
    return parts, y + _LEGEND_LINE


def polyline(points: Sequence[tuple[float, float]], colour: str, *, dashed: bool = False) -> str:
    """A line through points of the picture."""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"{_dashes(dashed)}/>'


def _dashes(dashed: bool) -> str:
    return ' stroke-dasharray="5 4"' if dashed else ""


@dataclass(frozen=True)
class Axis:
    """From values (low..high) to places in the picture (start..stop)."""

    low: float
    high: float
    start: float
    stop: float
    logarithmic: bool = False

    @classmethod
    def around(cls, values: Sequence[float], start: float, stop: float, *, logarithmic: bool = False) -> Axis:
        """With all values on it, and unless it is logarithmic some room at both ends."""
        low, high = min(values, default=1.0), max(values, default=1.0)
        room = 0.0 if logarithmic else (high - low) * 0.04 or abs(high) * 0.1 or 1.0
        return cls(low - room, high + room, start, stop, logarithmic)

    @classmethod
    def from_zero(cls, top: float, start: float, stop: float) -> Axis:
        """From 0 to the round number above `top`."""
        step = round_step(top or 1.0, 6)
        return cls(0.0, step * math.ceil((top or 1.0) / step - 1e-9), start, stop)

    def at(self, value: float) -> float:
        """The value's place."""
        scaled = math.log if self.logarithmic else float
        width = scaled(self.high) - scaled(self.low) or 1.0
        return self.start + (scaled(value) - scaled(self.low)) / width * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """Round numbers on it, at most seven unless it is logarithmic."""
        if self.logarithmic:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            round_ones = [part * 10.0**power for power in powers for part in (1, 2, 5)]
            return [value for value in round_ones if self.low <= value <= self.high] or [self.low, self.high]
        step = round_step(self.high - self.low, 6)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(index * step, 10) for index in range(first, last + 1)]


def round_step(span: float, parts: int) -> float:
    """The least of 1, 2, 5, 10, ... (also of tenths and so on) that divides a span into at most so many parts."""
    power = 10.0 ** math.floor(math.log10(span / parts))
    return next(part * power for part in (1, 2, 5, 10) if span / (part * power) <= parts + 1e-9)
