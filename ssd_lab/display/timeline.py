"""A picture of rounds: what target, draft and link did when, several runs on one scale."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from ssd_lab.trace.records import Activity, RoundRecord
from ssd_lab.trace.trace import Trace

SVG = "http://www.w3.org/2000/svg"
WIDTH, LEFT, LANE, GAP, TOP = 960, 120, 26, 34, 30
# colour-blind safe (Okabe-Ito)
COLOURS = {
    "verify": "#0072B2",
    "tree": "#009E73",
    "draft": "#E69F00",
    "jit": "#D55E00",
    "wait": "#BBBBBB",
    "preparation": "#F0E442",
}
NAMES = {
    "verify": "target verifies",
    "tree": "draft prepares for the outcomes",
    "draft": "draft guesses, target waits",
    "jit": "miss: draft guesses now",
    "wait": "target waits for the draft",
    "preparation": "graphs are captured, kernels compiled",
}
SHOWN = 5  # rounds of the slowest run


def timeline_svg(traces: Mapping[str, Trace], *, first: int = 8, span_s: float | None = None) -> str:
    """Rounds from number `first` on, of each run, as one SVG; the same length of time for all.

    It begins with rounds in which nothing is prepared, if there are some together. span_s: how much time to show; None
    shows what five rounds of the slowest run take.
    """
    shown = {name: trace.rounds[_first_shown(trace.rounds, first) :] for name, trace in traces.items()}
    shown = {name: rounds for name, rounds in shown.items() if rounds}
    if not shown:
        return f'<svg xmlns="{SVG}" viewBox="0 0 {WIDTH} 40"><text x="8" y="24">no rounds</text></svg>'
    span = span_s or max(rounds[min(SHOWN, len(rounds)) - 1].end_s - rounds[0].start_s for rounds in shown.values())
    scale = (WIDTH - LEFT - 10) / span
    parts: list[str] = []
    y = TOP
    used: set[str] = set()
    for name, rounds in shown.items():
        start = rounds[0].start_s
        parts.append(f'<text x="8" y="{y - 8}" font-weight="bold">{escape(name)}</text>')
        lanes = ["target"] + (["draft"] if any(a.lane == "draft" for r in rounds for a in r.activities) else [])
        for index, lane in enumerate(lanes):
            parts.append(f'<text x="{LEFT - 8}" y="{y + index * LANE + 17}" text-anchor="end">{lane}</text>')
        for activity in traces[name].preparations:
            parts += _activity(activity, start, span, scale, y, used)
        for record in rounds:
            if record.start_s - start >= span:
                break
            parts += _round(record, start, span, scale, y, used)
        y += len(lanes) * LANE + GAP
    parts.append(_axis(y - GAP + 6, span, scale))
    y += 18
    x = 8
    for kind in (kind for kind in NAMES if kind in used):
        parts.append(f'<rect x="{x}" y="{y}" width="14" height="12" fill="{COLOURS[kind]}"/>')
        parts.append(f'<text x="{x + 19}" y="{y + 11}">{NAMES[kind]}</text>')
        x += 40 + round(6.3 * len(NAMES[kind]))
    height = y + 24
    return (
        f'<svg xmlns="{SVG}" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        'aria-label="Rounds on a time axis" font-family="sans-serif" font-size="12" fill="#222">'
        f'<rect width="{WIDTH}" height="{height:.0f}" fill="white"/>' + "".join(parts) + "</svg>\n"
    )


def _round(record: RoundRecord, start: float, span: float, scale: float, y: int, used: set[str]) -> list[str]:
    parts = [part for each in record.activities for part in _activity(each, start, span, scale, y, used)]
    emitted = sum(row.num_emitted for row in record.sequences)
    verify = next((a for a in record.activities if a.name == "verify"), None)
    if verify is not None and verify.end_s - start < span:
        middle = LEFT + ((verify.start_s + verify.end_s) / 2 - start) * scale
        parts.append(f'<text x="{middle:.1f}" y="{y + 17}" text-anchor="middle" fill="white">+{emitted}</text>')
    return parts


def _activity(activity: Activity, start: float, span: float, scale: float, y: int, used: set[str]) -> list[str]:
    kind = _kind(activity)
    if kind is None or activity.start_s - start >= span or activity.end_s <= start:
        return []
    used.add(kind)
    begin, end = max(0.0, activity.start_s - start), min(span, activity.end_s - start)
    row = 1 if activity.lane == "draft" else 0
    title = f"{NAMES[kind]}: {(activity.end_s - activity.start_s) * 1e3:.2f} ms"
    rect = (
        f'<rect x="{LEFT + begin * scale:.1f}" y="{y + row * LANE + 3}" '
        f'width="{max(1.0, (end - begin) * scale):.1f}" '
        f'height="{LANE - 6}" fill="{COLOURS[kind]}"><title>{escape(title)}</title></rect>'
    )
    return [rect]


def _first_shown(rounds: list[RoundRecord], first: int) -> int:
    wanted = min(first, max(0, len(rounds) - SHOWN))
    windows = ((start, rounds[start : start + SHOWN]) for start in range(wanted, len(rounds) - SHOWN + 1))
    return next((start for start, some in windows if not any(one.preparation_s for one in some)), wanted)


def _kind(activity: Activity) -> str | None:
    if activity.lane == "link":
        return "wait"
    if activity.is_preparation:
        return "preparation"
    return activity.name if activity.name in COLOURS else None


def _axis(y: float, span: float, scale: float) -> str:
    step = next(
        step for step in (1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1.0, 5.0, 60.0) if span / step <= 12
    )
    marks = [
        f'<text x="{LEFT + index * step * scale:.1f}" y="{y + 12}" text-anchor="middle">{index * step * 1e3:g}</text>'
        for index in range(int(span / step) + 1)
    ]
    return "".join(marks) + f'<text x="8" y="{y + 12}">milliseconds</text>'
