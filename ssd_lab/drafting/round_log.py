"""What a draft worker remembers of a round until its outcome is known."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from ssd_lab.drafting.batch_control import DraftRound
from ssd_lab.execution.host_copy import HostCopy
from ssd_lab.execution.stopwatch import DeviceSpan, Span
from ssd_lab.learning.fallback_choice import FallbackKind, MeasuredRound


@dataclass
class RoundLog:
    """One round. shape: what its work depended on; missed: requests whose outcome was looked up and not found; kind: by
    which fallback they were answered (None: by none, or not all by the same). fallback, ahead: when the draft answered
    them (in synchronous drafting: all), and when it worked ahead. confidences: the draft's probability of each draft
    token, if somebody wants to know.
    """

    request_ids: list[int]
    shape: Hashable
    missed: list[int]
    kind: FallbackKind | None
    fallback: Span | None
    confidences: HostCopy | None
    ahead: Span | None = None

    def measured(self, asked: DraftRound) -> MeasuredRound | None:
        """With what the next round tells of it; None if that is not all."""
        accepted = asked.accepted
        if asked.message.round_s is None or any(own not in accepted for own in self.request_ids):
            return None
        return MeasuredRound(
            batch=len(self.request_ids),
            missed=len(self.missed),
            kind=self.kind,
            tokens=sum(accepted[own] + 1 for own in self.request_ids),
            missed_tokens=sum(accepted[own] + 1 for own in self.missed),
            round_s=asked.message.round_s,
            fallback_s=seconds(self.fallback),
        )


def seconds(span: Span | None) -> float:
    """How long it took; waits for its end."""
    if span is None:
        return 0.0
    activity = span.resolve() if isinstance(span, DeviceSpan) else span
    return activity.end_s - activity.start_s
