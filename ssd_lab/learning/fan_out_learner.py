"""Learning a fan-out schedule while rounds happen, within one budget."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from ssd_lab.decoding.fan_out import OutcomeLaw, allocate, weighted_hit_rate

if TYPE_CHECKING:
    from ssd_lab.learning.confidence_fan_out import ConfidenceFanOut

PREDICT_EVERY = 8  # rounds


class OutcomeStatistics:
    """What outcomes were like lately, apart for rounds that began with a hit and with the fallback.

    Counts of accepted lengths and of ranks (after a rejection, after k accepted tokens) start as `prior_rounds` rounds
    of the prior law, and each new round of the same kind multiplies the old ones by `forgetting`.
    """

    def __init__(
        self, k: int, widest: int, *, after_hit: OutcomeLaw, after_miss: OutcomeLaw, prior_rounds: float,
        forgetting: float,
    ) -> None:  # fmt: skip
        if not 0 < forgetting <= 1 or not prior_rounds > 0 or widest < 1:
            raise ValueError(
                f"forgetting {forgetting} must lie in (0, 1], prior_rounds {prior_rounds} and widest {widest} above 0"
            )
        self._k = k
        self._widest = widest
        self._forgetting = forgetting
        self._lengths: dict[bool, list[float]] = {}
        self._ranks: dict[tuple[bool, bool], list[float]] = {}  # (began with a hit, all accepted); the last bin is >=
        for hit, law in ((True, after_hit), (False, after_miss)):
            self._lengths[hit] = [prior_rounds * weight for weight in law.weights(k)]
            rates = law.hit_rates(k, widest)
            for all_accepted, row in ((False, rates[0]), (True, rates[k])):
                steps = [high - low for low, high in pairwise(row)]
                self._ranks[hit, all_accepted] = [prior_rounds * step for step in [*steps, 1 - row[-1]]]

    def observe(self, hit: bool, num_accepted: int, recovery_rank: int | None) -> None:
        """Count one round: began with a hit or not, draft tokens kept (0..k), rank of the recovery token if known."""
        if not 0 <= num_accepted <= self._k:
            raise ValueError(f"num_accepted is {num_accepted}; it lies within 0..{self._k}")
        _count(self._lengths[hit], num_accepted, self._forgetting)
        if recovery_rank is not None:
            bins = self._ranks[hit, num_accepted == self._k]
            _count(bins, min(recovery_rank, self._widest), self._forgetting)

    @property
    def widest(self) -> int:
        """Candidates at one accepted length that it tells apart."""
        return self._widest

    def weights(self, hit: bool) -> list[float]:
        """P(accepted length = a), a in 0..k."""
        counts = self._lengths[hit]
        return [count / sum(counts) for count in counts]

    def hit_rates(self, hit: bool) -> list[list[float]]:
        """P(hit | accepted length a, F candidates), F in 0..widest."""
        rejected, bonus = _cumulative(self._ranks[hit, False]), _cumulative(self._ranks[hit, True])
        return [rejected] * self._k + [bonus]


class FanOutSchedule(ABC):
    """A fan-out schedule as a setting: how many recovery tokens to prepare at each accepted length."""

    @abstractmethod
    def num_branches(self, k: int) -> int:
        """Branches that each sequence decodes in a round of k draft tokens."""

    @abstractmethod
    def learner(self, k: int) -> ScheduleLearner:
        """The schedule of one run for rounds of k draft tokens."""

    @abstractmethod
    def confidence(self) -> ConfidenceFanOut | None:
        """What chooses each round's fan-out by the draft's own probabilities; None: the learner decides."""


class ScheduleLearner:
    """The schedule of a run: `counts` before a round, `observe` after it.

    Fixed unless `resolve_every` is given: then after so many observed rounds both schedules are allotted anew, with the
    sum that they had. The sum never changes, so a tree keeps its shape. Without statistics nothing is counted, and no
    hit rate predicted.
    """

    def __init__(
        self,
        after_hit: Sequence[int],
        after_miss: Sequence[int],
        statistics: OutcomeStatistics | None = None,
        *,
        resolve_every: int | None = None,
    ) -> None:
        if sum(after_hit) != sum(after_miss) or len(after_hit) != len(after_miss):
            raise ValueError(f"{list(after_hit)} and {list(after_miss)} must have the same length and the same sum")
        self._counts = {True: tuple(after_hit), False: tuple(after_miss)}
        self._statistics = statistics
        self._resolve_every = resolve_every
        self._observed = 0
        self._predicted: dict[bool, tuple[int, float]] = {}  # when it was computed, in observed rounds

    @property
    def widest(self) -> int:
        """The largest fan-out that it can come to give."""
        fixed = max(*self._counts[True], *self._counts[False])
        if self._statistics is None or self._resolve_every is None:
            return fixed
        return max(fixed, self._statistics.widest)

    @property
    def budget(self) -> int:
        """Branches that each sequence decodes in a round."""
        return sum(self._counts[True])

    def counts(self, hit: bool) -> tuple[int, ...]:
        """Fan-out at accepted lengths 0..k in a round that began with a hit, or with the fallback."""
        return self._counts[hit]

    def observe(self, hit: bool, num_accepted: int, recovery_rank: int | None, k: int) -> None:
        """Tell how a sequence's round of k draft tokens ended. Rounds of another k than the schedule's are ignored:
        their accepted lengths mean something else.
        """
        if self._statistics is None or k != len(self._counts[True]) - 1:
            return
        self._statistics.observe(hit, num_accepted, recovery_rank)
        self._observed += 1
        if self._resolve_every is not None and self._observed % self._resolve_every == 0:
            self._predicted.clear()
            for kind in (True, False):
                self._counts[kind] = tuple(
                    allocate(self._statistics.weights(kind), self._statistics.hit_rates(kind), self.budget)
                )

    def predicted_hit_rate(self, hit: bool) -> float | None:
        """P(the outcome of a round that began so is in the cache), from the prior and what was observed; brought up to
        date after every few rounds.
        """
        if self._statistics is None:
            return None
        found = self._predicted.get(hit)
        if found is None or self._observed - found[0] >= PREDICT_EVERY:
            weights, rates = self._statistics.weights(hit), self._statistics.hit_rates(hit)
            found = self._predicted[hit] = (self._observed, weighted_hit_rate(self._counts[hit], weights, rates))
        return found[1]


def _count(bins: list[float], index: int, forgetting: float) -> None:
    for place in range(len(bins)):
        bins[place] *= forgetting
    bins[index] += 1.0


def _cumulative(bins: Sequence[float]) -> list[float]:
    """P(rank < F) for F = 0..len(bins) - 1."""
    total, below, rates = sum(bins), 0.0, [0.0]
    for count in bins[:-1]:
        below += count
        rates.append(below / total)
    return rates
