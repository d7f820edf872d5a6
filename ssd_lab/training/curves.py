"""Loss curves as a small SVG: `python -m ssd_lab.training.curves LOG.jsonl KEY [KEY ...] --out FILE.svg`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

WIDTH, HEIGHT, MARGIN = 560, 240, 44
COLOURS = ("#2458a6", "#c2571a", "#2e7d4f", "#7a3b8f")


def curve_svg(records: Sequence[dict[str, float]], keys: Sequence[str], *, title: str) -> str:
    """Each key against the millions of tokens seen."""
    points = {key: [(r["tokens"] / 1e6, r[key]) for r in records if key in r and "tokens" in r] for key in keys}
    largest_x = max(x for line in points.values() for x, _ in line)
    largest_y = max(y for line in points.values() for _, y in line)

    def place(x: float, y: float) -> str:
        left = MARGIN + x / largest_x * (WIDTH - 2 * MARGIN)
        return f"{left:.1f},{HEIGHT - MARGIN - y / largest_y * (HEIGHT - 2 * MARGIN):.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" viewBox="0 0 {WIDTH} {HEIGHT}">',
        "<style>text { font-size: 11px }</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{MARGIN}" y="20" font-size="13">{title}</text>',
        f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - 10}" text-anchor="end">million tokens</text>',
    ]
    for step in range(5):
        y, x = largest_y * step / 4, largest_x * step / 4
        height = place(0, y).split(",")[1]
        parts.append(f'<line x1="{MARGIN}" x2="{WIDTH - MARGIN}" y1="{height}" y2="{height}" stroke="#ddd"/>')
        parts.append(f'<text x="{MARGIN - 6}" y="{height}" text-anchor="end" dy="4">{y:.2f}</text>')
        parts.append(
            f'<text x="{place(x, 0).split(",")[0]}" y="{HEIGHT - MARGIN + 16}" text-anchor="middle">{x:.0f}</text>'
        )
    for number, (key, line) in enumerate(points.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(place(x, y) for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts.append(
            f'<text x="{WIDTH - MARGIN}" y="{34 + 14 * number}" text-anchor="end" fill="{colour}">{key}</text>'
        )
    return "\n".join([*parts, "</svg>"]) + "\n"


def main() -> None:
    """Draw the named keys of a log."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path)
    parser.add_argument("keys", nargs="+")
    parser.add_argument("--title", default="loss")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    records = [json.loads(line) for line in arguments.log.read_text().splitlines()]
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(curve_svg(records, arguments.keys, title=arguments.title))


if __name__ == "__main__":
    main()
