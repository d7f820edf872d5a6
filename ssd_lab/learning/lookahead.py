"""How many draft tokens a round should have: from the draft's confidence and from measured times."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ssd_lab.learning.time_fit import TimeFit

_BINS = 20
_FIRST_CHANCE, _RATE = 0.8, 0.02  # of a place's mean chance: where it starts, how fast it follows


def static_lookahead(verify_s: float, step_s: float, longest: int) -> int:
    """The draft steps that fit behind one verification, floor(verify / step), within 1..longest.

    For asynchronous drafting, where they cost nothing (the rule of the reference system's authors).
    """
    if step_s <= 0:
        return longest
    return max(1, min(longest, math.floor(verify_s / step_s)))


def expected_tokens_by_length(chances: Sequence[float]) -> list[float]:
    """Tokens of a round that verifies the first k tokens, k = 0..n, given each token's chance to be accepted if all
    before it were: 1 + c_1 + c_1 c_2 + ...
    """
    tokens, reached = [1.0], 1.0
    for chance in chances:
        reached *= chance
        tokens.append(tokens[-1] + reached)
    return tokens


def best_lookahead(chances: Sequence[float], round_s: Callable[[int], float], shortest: int = 0) -> int:
    """The k in shortest..n with the most expected tokens per second; the smaller of equal ones.

    Args: chances, of n draft tokens (drafted, or expected); round_s, seconds of a round that drafts and verifies k.
    """
    tokens = expected_tokens_by_length(chances)
    return max(range(shortest, len(tokens)), key=lambda k: (tokens[k] / round_s(k), -k))


class ConfidenceCalibration:
    """From the draft's probability of its token to the chance that the target keeps it, learned while running.

    Bins of equal width over the confidence; each starts at its own middle with the weight of `prior` tokens, and each
    observation multiplies the older ones of its bin by `forgetting`.
    """

    def __init__(self, prior: float = 4.0, forgetting: float = 0.998) -> None:
        if not prior > 0 or not 0 < forgetting <= 1:
            raise ValueError(f"prior {prior} must be above 0 and forgetting {forgetting} within (0, 1]")
        self._forgetting = forgetting
        self._tested = [prior] * _BINS
        self._accepted = [prior * (i + 0.5) / _BINS for i in range(_BINS)]

    def observe(self, confidences: Sequence[float], num_accepted: int) -> None:
        """A verified round: the confidence of each drafted token; those after the first refused one say nothing."""
        for place, confidence in enumerate(confidences[: num_accepted + 1]):
            own = _bin(confidence)
            self._tested[own] = self._tested[own] * self._forgetting + 1
            self._accepted[own] = self._accepted[own] * self._forgetting + (place < num_accepted)

    def chance(self, confidence: float) -> float:
        """P(accepted) of a token drafted with this probability, given that all before it are."""
        own = _bin(confidence)
        return self._accepted[own] / self._tested[own]


class LookaheadChooser:
    """Chooses k for each round, so that tokens per second are most.

    Starts with the static rule, then uses what was observed: times by k, and how often confident tokens are kept. In a
    synchronous round `go_on` is asked after each drafted token; where the whole draft is there before anything is known
    (a cached branch, a tree of fixed depth) `choose` cuts it, or sets the depth of the next.
    """

    def __init__(self, longest: int, *, verify_s: float, step_s: float, overlapped: bool) -> None:
        """verify_s: one verification; step_s: one draft step; overlapped: do both happen at the same time?"""
        if longest < 1:
            raise ValueError(f"the longest lookahead is {longest}; it must be at least 1")
        self.start = static_lookahead(verify_s, step_s, longest)  # k of the first round
        self._longest = longest
        self._overlapped = overlapped
        self._verify = TimeFit(verify_s)
        self._draft = TimeFit()
        self._step_s = step_s
        self._calibration = ConfidenceCalibration()
        self._mean_chance = [_FIRST_CHANCE] * longest  # by place, for tokens not drafted yet

    def observe(self, confidences: Sequence[float], num_accepted: int, *, verify_s: float, draft_s: float) -> None:
        """How a round went: the confidences of its k draft tokens, how many were kept, measured seconds of its
        verification and of drafting k tokens.
        """
        self._calibration.observe(confidences, num_accepted)
        for place in range(min(len(confidences), num_accepted + 1, self._longest)):
            self._mean_chance[place] += _RATE * ((place < num_accepted) - self._mean_chance[place])
        self._verify.observe(len(confidences), verify_s)
        self._draft.observe(len(confidences), draft_s)

    def round_s(self, k: int) -> float:
        """Expected seconds of a round with k draft tokens."""
        draft_s = self._draft.at(k) if self._draft.known else k * self._step_s
        verify_s = self._verify.at(k)
        return max(verify_s, draft_s) if self._overlapped else verify_s + draft_s

    def choose(self, confidences: Sequence[float] = ()) -> int:
        """The best k within 1..longest, given the confidences of the first tokens (none: those of a usual round)."""
        return best_lookahead(self._chances(confidences), self.round_s, shortest=1)

    def go_on(self, confidences: Sequence[float]) -> bool:
        """Should one more token be drafted after these, whose drafting is paid already? (synchronous rounds)"""
        drafted = len(confidences)
        if drafted >= self._longest:
            return False
        return best_lookahead(self._chances(confidences), self.round_s, shortest=max(1, drafted)) > drafted

    def _chances(self, confidences: Sequence[float]) -> list[float]:
        known = [self._calibration.chance(c) for c in confidences[: self._longest]]
        return known + self._mean_chance[len(known) :]


def _bin(confidence: float) -> int:
    return min(_BINS - 1, max(0, int(confidence * _BINS)))
