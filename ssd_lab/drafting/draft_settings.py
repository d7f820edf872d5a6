"""What a draft worker is told to do: plain data and the makers of what learns, so that it can travel to a process."""

from __future__ import annotations

from dataclasses import dataclass

from ssd_lab.learning.fallback_choice import FallbackSetting
from ssd_lab.learning.fan_out_learner import FanOutSchedule
from ssd_lab.learning.lookahead import LookaheadChooser


@dataclass(frozen=True)
class DraftSettings:
    """What the worker does each round.

    k: draft tokens a round, or the most if `lookahead` chooses. fan_out: how many outcomes to prepare (None: the worker
    only answers, as in synchronous drafting). fallback: what answers a miss (None: draft now). saguaro_c: C of Saguaro
    sampling. draft_temperature: for requests that sample, instead of their own. record: keep trees, probabilities and
    times for the trace; details: distributions before Saguaro sampling too.
    """

    k: int
    fan_out: FanOutSchedule | None = None
    fallback: FallbackSetting | None = None
    lookahead: type[LookaheadChooser] | None = None
    saguaro_c: float = 1.0
    draft_temperature: float | None = None
    record: bool = True
    details: bool = False

    @property
    def scratch_positions(self) -> int:
        """Cache positions that one sequence's branches need."""
        return 0 if self.fan_out is None else self.fan_out.num_branches(self.k) * self.k

    @property
    def prepares(self) -> bool:
        """Does the worker prepare for outcomes?"""
        return self.fan_out is not None

    @property
    def most_tokens(self) -> int:
        """Draft tokens of a row."""
        return self.k

    @property
    def needs_texts(self) -> bool:
        """Does the worker look at the texts themselves?"""
        return self.fallback is not None and self.fallback.guesses == "ngram"
