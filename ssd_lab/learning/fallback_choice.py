"""Which fallback answers a miss: a slow accurate one or a nearly free one, decided from what rounds gave and cost.

Corollary 16 (arXiv 2603.03251) compares two engines that always take the same fallback and finds the batch size where
they cross. Here each round decides for itself: with tokens per second rho of the run so far, a fallback is worth what
it adds to this round, tokens(kind) * missed rows - rho * seconds(kind), the rule of average-reward decision problems.
The crossing comes out of it, also where sequences, times or the number of missed rows change while running.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

from ssd_lab.learning.time_fit import TimeFit

FallbackKind = Literal["jit", "fast"]
KINDS: tuple[FallbackKind, ...] = ("jit", "fast")
FastSource = Literal["stale", "ngram", "random"]
_MARGIN = 0.02  # of a round's tokens: what another fallback must be better by
_FORGETTING = 0.99  # weight of what was measured before, for each new measurement


@dataclass(frozen=True)
class MeasuredRound:
    """What a round gave and cost. missed: rows answered by the fallback (0: all were hits); kind: by which.

    tokens: emitted by all rows; missed_tokens: by the missed rows; round_s: from start to end; fallback_s: of it, what
    the fallback took.
    """

    batch: int
    missed: int
    kind: FallbackKind | None
    tokens: int
    missed_tokens: int
    round_s: float
    fallback_s: float


class FallbackRule(ABC):
    """Decides in one run which fallback answers the misses of a round."""

    @abstractmethod
    def observe(self, measured: MeasuredRound) -> None:
        """Learn from a finished round."""

    @abstractmethod
    def choose(self, batch: int, missed: int) -> FallbackKind:
        """The fallback for a round in which `missed` of `batch` rows missed."""

    def foreseen(self, batch: int) -> FallbackKind | None:
        """What the next round with misses is answered by, however many of `batch` rows miss; None if that depends."""
        return None


class FallbackSetting(ABC):
    """What answers misses, as a setting. learns: does its rule learn from `observe`?"""

    learns: ClassVar[bool] = False

    @property
    def guesses(self) -> FastSource:
        """What `fast` guesses."""
        return "stale"

    @abstractmethod
    def chooser(self) -> FallbackRule:
        """The rule of one run."""


class FixedChoice(FallbackRule):
    """Always the same fallback."""

    _kind: FallbackKind

    def __init__(self, kind: FallbackKind) -> None:
        self._kind = kind

    def observe(self, measured: MeasuredRound) -> None:
        """Nothing to learn."""

    def choose(self, batch: int, missed: int) -> FallbackKind:
        """The one kind."""
        return self._kind

    def foreseen(self, batch: int) -> FallbackKind | None:
        """The one kind."""
        return self._kind


class FallbackChooser(FallbackRule):
    """Picks a fallback for each round with misses. Feed it every round; ask before a fallback starts.

    Each kind is tried first until it has answered `explore` rows, then once in `revisit` rounds with misses, so that a
    change is noticed. A choice stays until the other kind is better by 2 % of a round's tokens, apart for each number
    of missed rows.
    """

    def __init__(self, *, explore: int = 24, revisit: int = 64) -> None:
        if explore < 1 or revisit < 2:
            raise ValueError(f"explore {explore} must be at least 1, and revisit {revisit} at least 2")
        self._explore = explore
        self._revisit = revisit
        self._seconds = {kind: TimeFit() for kind in KINDS}
        self._tokens = dict.fromkeys(KINDS, 0.0)  # faded sums over missed rows
        self._rows = dict.fromkeys(KINDS, 0.0)
        self._answered = dict.fromkeys(KINDS, 0)
        self._gained = self._spent = 0.0  # faded tokens and seconds of all rounds
        self._asked = 0
        self._held: dict[int, FallbackKind] = {}

    def observe(self, measured: MeasuredRound) -> None:
        """Learn from a finished round."""
        slower = 1 - (1 - _FORGETTING) / 4  # the run's speed changes less than a fallback's
        self._gained = self._gained * slower + measured.tokens
        self._spent = self._spent * slower + measured.round_s
        kind = measured.kind
        if kind is None or not measured.missed:
            return
        self._seconds[kind].observe(measured.missed, measured.fallback_s)
        self._tokens[kind] = self._tokens[kind] * _FORGETTING + measured.missed_tokens
        self._rows[kind] = self._rows[kind] * _FORGETTING + measured.missed
        self._answered[kind] += measured.missed

    def choose(self, batch: int, missed: int) -> FallbackKind:
        """The fallback for a round in which `missed` of `batch` rows missed."""
        if not 0 < missed <= batch:
            raise ValueError(f"{missed} of {batch} rows missed: at least one must, and no more than all")
        self._asked += 1
        untried = [kind for kind in KINDS if self._answered[kind] < self._explore]
        if untried:
            return min(untried, key=lambda kind: self._answered[kind])
        best = self._best(batch, missed)
        if self._asked % self._revisit == 0:
            return KINDS[1 - KINDS.index(best)]
        return best

    def foreseen(self, batch: int) -> FallbackKind | None:
        """What is better at one missed row and at all: times are linear in their number, so also in between. Not while
        a kind is tried, or tried again.
        """
        tried = all(self._answered[kind] >= self._explore for kind in KINDS)
        if not tried or (self._asked + 1) % self._revisit == 0:
            return None
        fewest, most = (max(KINDS, key=lambda kind: self.value(kind, missed)) for missed in (1, batch))
        return fewest if fewest == most else None

    def value(self, kind: FallbackKind, missed: int) -> float:
        """Tokens that the fallback adds to a round, less those that its time would have given elsewhere."""
        speed = self._gained / self._spent
        return missed * self._tokens[kind] / self._rows[kind] - speed * self._seconds[kind].at(missed)

    def _best(self, batch: int, missed: int) -> FallbackKind:
        best = max(KINDS, key=lambda kind: self.value(kind, missed))
        held = self._held.get(missed, best)
        if held != best:
            per_round = batch * max(self._tokens[kind] / self._rows[kind] for kind in KINDS)
            if self.value(best, missed) - self.value(held, missed) <= _MARGIN * per_round:
                return held
        self._held[missed] = best
        return best
