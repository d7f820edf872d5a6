"""The map as an SVG: cells coloured by the gain, lines of equal gain, numbered points. No script, any background."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ssd_lab.widgets.view_model.speed_map import MOST_T, MapPoint, gain_at

WIDTH, HEIGHT = 560.0, 330.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 12.0, 46.0
COLUMNS, ROWS = 45, 25
_BADGE = 24.0  # across, with its ring
WORSE, BETTER = "#D55E00", "#0072B2"  # Okabe and Ito's vermilion and blue
LINES = (1.1, 1.2, 1.4, 1.6, 1.8)
_STYLE = "max-width:44em;width:100%"
_X_NAME = "T, time of the draft over time of the verification"


def x_of(draft_time: float) -> float:
    """Where a T stands; beyond the edge, at it."""
    return LEFT + min(draft_time, MOST_T) / MOST_T * (WIDTH - LEFT - RIGHT)


def y_of(hit_rate: float) -> float:
    """Where a hit rate stands."""
    return TOP + (1 - hit_rate) * (HEIGHT - TOP - BOTTOM)


def map_svg(points: Sequence[MapPoint]) -> str:
    """The picture. On the map itself asynchronous is never slower; a machine that is has an orange point."""
    label = "Speed of asynchronous over synchronous speculation, by draft time over verification time and by hit rate"
    parts = [*_cells(), *_contours(), *_axes(), *_points(points)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0f} {HEIGHT:.0f}" role="img" '
        f'aria-label="{label}" font-family="sans-serif" font-size="12" fill="currentColor" style="{_STYLE}">'
        f"{''.join(parts)}</svg>"
    )


def _cells() -> list[str]:
    wide, high = (WIDTH - LEFT - RIGHT) / COLUMNS, (HEIGHT - TOP - BOTTOM) / ROWS
    cells = ['<g shape-rendering="crispEdges">']
    for column in range(COLUMNS):
        for row in range(ROWS):
            gain = gain_at((column + 0.5) / COLUMNS * MOST_T, 1 - (row + 0.5) / ROWS)
            cells.append(
                f'<rect x="{LEFT + column * wide:.2f}" y="{TOP + row * high:.2f}" width="{wide:.2f}" '
                f'height="{high:.2f}" fill="{BETTER}" fill-opacity="{0.8 * (gain - 1):.3f}"/>'
            )
    return [*cells, "</g>"]


def _contours() -> list[str]:
    """For each T the hit rate at which the gain is reached; it grows with the hit rate."""
    drawn = []
    for gain in LINES:
        places = []
        for step in range(1, 121):
            draft_time = step / 120 * MOST_T
            if gain_at(draft_time, 0.0) <= gain <= gain_at(draft_time, 1.0):
                low, high = 0.0, 1.0
                for _ in range(20):
                    middle = (low + high) / 2
                    low, high = (middle, high) if gain_at(draft_time, middle) < gain else (low, middle)
                places.append((x_of(draft_time), y_of(low)))
        if len(places) > 1:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            x, y = places[len(places) // 2]
            drawn.append(f'<polyline points="{path}" fill="none" stroke="currentColor" stroke-opacity=".55"/>')
            drawn.append(f'<text x="{x:.1f}" y="{y - 3:.1f}" text-anchor="middle">{gain:g}×</text>')
    return drawn


def _axes() -> list[str]:
    bottom = HEIGHT - BOTTOM
    across = [
        f'<text x="{x_of(t):.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{t:g}</text>'
        for t in (0, 0.5, 1, 1.5, 2, 2.5, 3)
    ]
    up = [
        f'<text x="{LEFT - 6:.1f}" y="{y_of(h) + 4:.1f}" text-anchor="end">{h:.0%}</text>'
        for h in (0, 0.25, 0.5, 0.75, 1)
    ]
    middle = (TOP + bottom) / 2
    return [
        *across,
        *up,
        f'<text x="{(LEFT + WIDTH) / 2:.1f}" y="{HEIGHT - 8:.1f}" text-anchor="middle">{_X_NAME}</text>',
        f'<text x="12" y="{middle:.1f}" text-anchor="middle" transform="rotate(-90 12 {middle:.1f})">hits</text>',
    ]


def _points(points: Sequence[MapPoint]) -> list[str]:
    """Numbered badges; where two would cover each other, the later hangs below on a line from its place."""
    taken: list[tuple[float, float]] = []
    drawn = []
    for number, point in enumerate(points, 1):
        x, place = x_of(point.draft_time), y_of(point.hit_rate)
        y = place
        while any(abs(x - other_x) < _BADGE and abs(y - other_y) < _BADGE for other_x, other_y in taken):
            y += _BADGE
        taken.append((x, y))
        told = f"{point.name}: T = {point.draft_time:.2f}, {point.hit_rate:.0%} hits, {point.gain:.2f} times"
        colour = BETTER if point.gain >= 1 else WORSE
        drawn.append(
            f"<g><title>{escape(told)}</title>"
            f'<path d="M{x:.1f} {min(place + 12, y):.1f}V{y:.1f}" stroke="{colour}" stroke-width="3"/>'
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="10" fill="#fff" stroke="{colour}" stroke-width="4"/>'
            f'<text x="{x:.1f}" y="{y + 4:.1f}" text-anchor="middle" fill="#222" font-weight="bold">{number}</text></g>'
        )
    return drawn
