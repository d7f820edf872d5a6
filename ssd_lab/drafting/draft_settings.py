"""What a draft worker is told to do: plain data and the makers of what learns, so that it can travel to a process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from ssd_lab.learning.confidence_fan_out import ConfidenceFanOut
from ssd_lab.learning.fallback_choice import FallbackKind, MeasuredRound
from ssd_lab.learning.fan_out_learner import ScheduleLearner
from ssd_lab.learning.lookahead import LookaheadChooser

FastSource = Literal["stale", "ngram", "random"]


class FanOutSource(Protocol):
    """A fan-out schedule."""

    def learner(self, k: int) -> ScheduleLearner:
        """The schedule of one run for rounds of k draft tokens."""
        ...

    def confidence(self) -> ConfidenceFanOut | None:
        """What learns to choose each round's fan-out by the draft's own probabilities; None: the learner decides."""
        ...


class FallbackRule(Protocol):
    """Decides which fallback answers a round's misses."""

    def observe(self, measured: MeasuredRound) -> None:
        """A round is over."""
        ...

    def choose(self, batch: int, missed: int) -> FallbackKind:
        """The fallback for a round in which `missed` of `batch` rows missed."""
        ...


class FallbackSource(Protocol):
    """What answers a miss. source: what `fast` guesses."""

    @property
    def source(self) -> FastSource:
        """What `fast` guesses."""
        ...

    @property
    def learns(self) -> bool:
        """Does the rule want to hear of rounds?"""
        ...

    def chooser(self) -> FallbackRule:
        """The rule of one run."""
        ...


class LookaheadSource(Protocol):
    """Makes what chooses k for each round."""

    def chooser(self, k: int, *, verify_s: float, step_s: float, overlapped: bool) -> LookaheadChooser:
        """What decides in one run; k is the most."""
        ...


@dataclass(frozen=True)
class DraftSettings:
    """What the worker does each round.

    k: draft tokens a round, or the most if `lookahead` chooses. fan_out: how many outcomes to prepare (None: the worker
    only answers, as in synchronous drafting). fallback: what answers a miss (None: draft now). saguaro_c: C of Saguaro
    sampling. draft_temperature: for requests that sample, instead of their own. record: keep trees, probabilities and
    times for the trace; details: distributions before Saguaro sampling too.
    """

    k: int
    fan_out: FanOutSource | None = None
    fallback: FallbackSource | None = None
    lookahead: LookaheadSource | None = None
    saguaro_c: float = 1.0
    draft_temperature: float | None = None
    record: bool = True
    details: bool = False

    @property
    def scratch_positions(self) -> int:
        """Cache positions that one sequence's branches need."""
        return 0 if self.fan_out is None else self.fan_out.learner(self.k).budget * self.k

    @property
    def needs_texts(self) -> bool:
        """Does the worker look at the texts themselves?"""
        return self.fallback is not None and self.fallback.source == "ngram"
