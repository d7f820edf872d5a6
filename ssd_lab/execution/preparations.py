"""What runs prepare for themselves when a shape comes for the first time: graphs captured, kernels compiled."""

from __future__ import annotations

from collections import deque

from ssd_lab.execution.observing import ExecutorObserver
from ssd_lab.trace.records import Activity
from ssd_lab.trace.spans import Interval, overlap_s, union

KEPT = 4096  # of the latest; an engine has some hundreds


class Preparations:
    """A list of spans of the monotonic clock, to which any thread may add, and which does not grow without end."""

    def __init__(self) -> None:
        self._spans: deque[Activity] = deque(maxlen=KEPT)
        self._latest_s = 0.0

    def on(self, lane: str) -> ExecutorObserver:
        """Adds what an executor captures, as this lane's."""
        return _OnLane(self, lane)

    def add(self, span: Activity) -> None:
        """One more, which is over."""
        self._spans.append(span)
        self._latest_s = max(self._latest_s, span.end_s)

    def between(self, start_s: float, end_s: float) -> list[Activity]:
        """Those that lie in this time, or reach into it."""
        if self._latest_s <= start_s:  # of nearly all rounds
            return []
        return [span for span in tuple(self._spans) if span.start_s < end_s and span.end_s > start_s]

    def seconds(self, start_s: float, end_s: float) -> float:
        """How much of this time they took."""
        return seconds_within(self.between(start_s, end_s), (start_s, end_s))


def seconds_within(spans: list[Activity], interval: Interval) -> float:
    """How much of an interval the spans cover."""
    covered = union((span.start_s, span.end_s) for span in spans)
    return overlap_s(covered, [interval]) if covered else 0.0


class _OnLane(ExecutorObserver):
    def __init__(self, preparations: Preparations, lane: str) -> None:
        self._preparations, self._lane = preparations, lane

    def captured(self, name: str, start_s: float, end_s: float) -> None:
        """Kernels that were compiled for the capture are within its span."""
        self._preparations.add(Activity(self._lane, f"capture {name}", start_s, end_s))
