"""A picture of rounds: what target, draft and link did when, several runs on one scale."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from ssd_lab.display.svg import LegendEntry, legend, picture, round_step, text
from ssd_lab.trace.device_times import on_devices
from ssd_lab.trace.records import Activity, RoundRecord
from ssd_lab.trace.trace import Trace

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
        return picture(WIDTH, 40, "no rounds", [text(8, 24, "no rounds")])
    span = span_s or max(rounds[min(SHOWN, len(rounds)) - 1].end_s - rounds[0].start_s for rounds in shown.values())
    scale = (WIDTH - LEFT - 10) / span
    parts: list[str] = []
    y = TOP
    used: set[str] = set()
    for name, rounds in shown.items():
        start = rounds[0].start_s
        parts.append(text(8, y - 8, name, more='font-weight="bold"'))
        lanes = ["target", *sorted({a.lane for r in rounds for a in r.activities if a.role == "draft"})]
        parts += [text(LEFT - 8, y + index * LANE + 17, lane, anchor="end") for index, lane in enumerate(lanes)]
        for activity in traces[name].preparations:
            parts += _activity(activity, lanes, start, span, scale, y, used)
        for record in rounds:
            if record.start_s - start >= span:
                break
            parts += _round(record, lanes, start, span, scale, y, used)
        y += len(lanes) * LANE + GAP
    parts += _axis(y - GAP + 6, span, scale)
    entries = [LegendEntry(NAMES[kind], COLOURS[kind], thick=True) for kind in NAMES if kind in used]
    drawn, end = legend(entries, 8, WIDTH, y + 18)
    return picture(WIDTH, end + 4, "Rounds on a time axis", [*parts, *drawn])


def _round(
    record: RoundRecord, lanes: list[str], start: float, span: float, scale: float, y: int, used: set[str]
) -> list[str]:
    activities = on_devices(record)
    parts = [part for each in activities for part in _activity(each, lanes, start, span, scale, y, used)]
    emitted = sum(row.num_emitted for row in record.sequences)
    verify = next((a for a in activities if a.name == "verify"), None)
    if verify is not None and verify.end_s - start < span:
        middle = LEFT + ((verify.start_s + verify.end_s) / 2 - start) * scale
        parts.append(text(middle, y + 17, f"+{emitted}", anchor="middle", more='fill="white"'))
    return parts


def _activity(
    activity: Activity, lanes: list[str], start: float, span: float, scale: float, y: int, used: set[str]
) -> list[str]:
    kind = _kind(activity)
    if kind is None or activity.start_s - start >= span or activity.end_s <= start:
        return []
    used.add(kind)
    begin, end = max(0.0, activity.start_s - start), min(span, activity.end_s - start)
    row = lanes.index(activity.lane) if activity.lane in lanes else 0
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
    if activity.name.startswith("wait"):
        return "wait"
    if activity.role == "link":
        return None  # a message takes next to nothing
    if activity.is_preparation:
        return "preparation"
    return activity.name if activity.name in COLOURS else None


def _axis(y: float, span: float, scale: float) -> list[str]:
    step = round_step(span, 12)
    marks = [
        text(LEFT + index * step * scale, y + 12, f"{index * step * 1e3:g}", anchor="middle")
        for index in range(int(span / step) + 1)
    ]
    return [*marks, text(8, y + 12, "milliseconds")]
