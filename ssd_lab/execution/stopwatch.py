"""When work happened: by the host's clock where the host does it, by the device's where it is only queued."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from ssd_lab.common.device_guard import current
from ssd_lab.execution.device_wait import wait_for
from ssd_lab.trace.records import Activity

MOST_SPANS = 64  # that a draft keeps for its next reply, which may never be asked for


@dataclass(frozen=True)
class DeviceSpan:
    """Work between two events of a stream, told in host seconds once it is over."""

    lane: str
    name: str
    start: torch.Event
    end: torch.Event
    watch: CudaStopwatch

    def resolve(self) -> Activity:
        """The activity; waits for its end."""
        wait_for(self.end, f"{self.name} of the {self.lane}")
        return Activity(self.lane, self.name, self.watch.seconds(self.start), self.watch.seconds(self.end))


Span = Activity | DeviceSpan


def settled(span: Span) -> Span:
    """The activity, or the span as it is where the device tells no time: whoever makes records of it says so."""
    if isinstance(span, Activity):
        return span
    try:
        return span.resolve()
    except RuntimeError:
        return span


class Stopwatch:
    """Takes spans of the host's time, on the monotonic clock."""

    def start(self) -> float:
        """A mark for the beginning of a span."""
        return time.perf_counter()

    def span(self, lane: str, name: str, start: float) -> Span:
        """From the mark until now."""
        return Activity(lane, name, start, time.perf_counter())


class CudaStopwatch:
    """Takes spans of the current stream's time, told on the host's monotonic clock."""

    def __init__(self, device: torch.device) -> None:
        self._origin = torch.Event("cuda", enable_timing=True)
        with current(device):
            self._origin.record()
        wait_for(self._origin, "what was queued before its clock was read")
        self._origin_s = time.perf_counter()

    def start(self) -> torch.Event:
        """A mark for the beginning of a span."""
        event = torch.Event("cuda", enable_timing=True)
        event.record()
        return event

    def span(self, lane: str, name: str, start: torch.Event) -> Span:
        """From the mark until all that was queued so far."""
        return DeviceSpan(lane, name, start, self.start(), self)

    def seconds(self, event: torch.Event) -> float:
        """An event's time on the host's clock."""
        return self._origin_s + self._origin.elapsed_time(event) / 1e3
