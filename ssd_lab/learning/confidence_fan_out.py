"""Learning how far the draft's own probabilities tell the outcome of a round."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ssd_lab.decoding.branches import CANDIDATE_BINS, CONFIDENCE_BINS
from ssd_lab.learning.lookahead import ConfidenceCalibration

_PRIOR = 8.0  # observations that the draft's own word counts for in each bin
_FORGETTING = 0.999  # weight of a bin's past for each new observation
_USUAL_RATE = 0.02  # how fast the usual counts follow


class ConfidenceFanOut:
    """Calibrates the draft's probabilities, apart for requests that sample and for greedy ones.

    A draft token's confidence tells the chance that it is accepted; a candidate's probability the chance that it is the
    recovery token, apart for rounds with a rejection and with all tokens accepted. Each bin starts from the draft's own
    word: a confidence c is accepted, and a candidate of probability p follows, that often.
    """

    def __init__(self, budget: int) -> None:
        if budget < 1:
            raise ValueError(f"budget {budget} must be at least 1")
        self.budget = budget
        self._accepted = {sampled: ConfidenceCalibration(_PRIOR, _FORGETTING) for sampled in (False, True)}
        self._recovered = {
            (sampled, bonus): _CandidateCalibration() for sampled in (False, True) for bonus in (False, True)
        }
        self._usual: dict[tuple[bool, int], list[float]] = {}
        self._tables: dict[bool, list[float]] = {}

    def table(self, sampled: bool) -> list[float]:
        """The row of `outcome_chances`' tables for a request that samples, or a greedy one."""
        if sampled not in self._tables:
            accepted = self._accepted[sampled]
            own = [accepted.chance((i + 0.5) / CONFIDENCE_BINS) for i in range(CONFIDENCE_BINS)]
            for bonus in (False, True):
                own += self._recovered[sampled, bonus].chances()
            self._tables[sampled] = own
        return self._tables[sampled]

    def observe(
        self,
        sampled: bool,
        confidences: Sequence[float],
        candidate_probs: np.ndarray,
        num_accepted: int,
        recovery_rank: int | None,
    ) -> None:
        """How a sequence's round ended.

        candidate_probs `[n]`: of the candidates after the accepted tokens; recovery_rank: the recovery token's place
        among them, None if it is none of them.
        """
        self._accepted[sampled].observe(confidences, num_accepted)
        self._recovered[sampled, num_accepted == len(confidences)].observe(candidate_probs, recovery_rank)
        self._tables.pop(sampled, None)

    def built(self, hit: bool, counts: Sequence[int]) -> None:
        """Record the fan-out of a round, k + 1 numbers. hit: it began with a cache hit, not with the fallback."""
        usual = self._usual.setdefault((hit, len(counts)), [float(count) for count in counts])
        for place, count in enumerate(counts):
            usual[place] += _USUAL_RATE * (count - usual[place])

    def usual_counts(self, hit: bool, k: int) -> tuple[int, ...]:
        """Moving average of the fan-out of such rounds, k + 1 numbers; before the first round an even split."""
        usual = self._usual.get((hit, k + 1))
        return tuple(round(count) for count in usual) if usual else (-(-self.budget // (k + 1)),) * (k + 1)


class _CandidateCalibration:
    """P(recovery token) by a candidate's probability: faded counts, never falling where the probability rises."""

    def __init__(self) -> None:
        middle = 2.0 ** (-0.5 * (np.arange(CANDIDATE_BINS) + 0.5))
        self._tested = np.full(CANDIDATE_BINS, _PRIOR)
        self._found = _PRIOR * middle

    def observe(self, probs: np.ndarray, rank: int | None) -> None:
        octaves = -2 * np.log2(np.maximum(probs, 2.0**-20))
        bins = np.clip(octaves.astype(np.int64), 0, CANDIDATE_BINS - 1)
        tested = np.bincount(bins, minlength=CANDIDATE_BINS)
        keep = _FORGETTING**tested
        self._tested = self._tested * keep + tested
        self._found *= keep
        if rank is not None and rank < len(bins):
            self._found[bins[rank]] += 1

    def chances(self) -> list[float]:
        return isotonic_falling(self._found / self._tested, self._tested)


def isotonic_falling(values: np.ndarray, weights: np.ndarray) -> list[float]:
    """Isotonic regression: the sequence without a rise nearest to `values` by weighted least squares (pool adjacent
    violators).
    """
    pools: list[list[float]] = []  # value, weight, length
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        pools.append([value, weight, 1])
        while len(pools) > 1 and pools[-2][0] < pools[-1][0]:
            value, weight, length = pools.pop()
            before = pools[-1]
            total = before[1] + weight
            pools[-1] = [(before[0] * before[1] + value * weight) / total, total, before[2] + length]
    return [value for value, _, length in pools for _ in range(int(length))]
