"""What a round costs beyond its graphs: by the device's own clock, for any strategy."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from itertools import pairwise

import torch

from ssd_lab.execution.observing import ExecutorObserver, Replay
from ssd_lab.trace.spans import Interval, overlap_s, union

VERIFYING = ("verify", "verify_tree")


@dataclass
class Replays(ExecutorObserver):
    """Every replay of a graph, target's and draft's, with the events around it, in the order of their launch: around
    each alone, so that a device which waits for the host is not taken for busy.
    """

    events: list[tuple[str, torch.Event, torch.Event]] = field(default_factory=list)

    def replay(self, name: str, replay: Replay) -> Replay:
        """With an event before and one behind."""

        def timed() -> None:
            start, end = torch.Event("cuda", enable_timing=True), torch.Event("cuda", enable_timing=True)
            start.record()
            replay()
            end.record()
            self.events.append((name, start, end))

        return timed

    def spans(self) -> list[tuple[str, Interval]]:
        """Name, and start and end in seconds since the first one's start. Waits for the device."""
        torch.cuda.synchronize()
        first = self.events[0][1]
        return [
            (name, (first.elapsed_time(start) / 1e3, first.elapsed_time(end) / 1e3)) for name, start, end in self.events
        ]


def idle_s(spans: list[tuple[str, Interval]], *, skipped: int) -> float:
    """Median seconds of a round in which no graph ran. A round reaches from the end of a verification to the end of the
    next; the first `skipped` are left out. Raises ValueError if no round is left.
    """
    ends = [end for name, (_, end) in spans if name in VERIFYING][skipped:]
    if len(ends) < 2:
        raise ValueError(f"{len(ends)} verifications after the first {skipped}: at least 2 make a round")
    busy = union(span for _, span in spans)
    return statistics.median(end - start - overlap_s(busy, [(start, end)]) for start, end in pairwise(ends))
