"""Lookahead chosen while running: how many draft tokens a round has."""

from __future__ import annotations

from dataclasses import dataclass

from ssd_lab.learning.lookahead import LookaheadChooser


@dataclass(frozen=True)
class DynamicLookahead:
    """At most k draft tokens, as many as give the most tokens per second.

    The start is floor(verification time / draft step time) where both happen at the same time; then confidence and
    measured times decide.
    """

    def chooser(self, k: int, *, verify_s: float, step_s: float, overlapped: bool) -> LookaheadChooser:
        """What decides in one run; k is the most. Times of one verification and one draft step, as measured so far."""
        return LookaheadChooser(k, verify_s=verify_s, step_s=step_s, overlapped=overlapped)
