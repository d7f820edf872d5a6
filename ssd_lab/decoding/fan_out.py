"""How to spend a budget of branches over the accepted lengths 0..k (arXiv 2603.03251, Theorem 12).

Accepted length a has weight w_a: with one acceptance rate alpha, w_a = alpha^a (1 - alpha) for a < k and w_k = alpha^k.
F_a candidates there miss with probability scale * F_a^-r. Maximising sum_a w_a (1 - scale * F_a^-r) for a given sum of
F_a: the derivatives w_a r scale F_a^-(r + 1) are all equal, so F_a is proportional to w_a^(1 / (1 + r)), that is

    F_a = F_0 alpha^(a / (1 + r))  for a < k,        F_k = F_0 alpha^(k / (1 + r)) (1 - alpha)^(-1 / (1 + r)),

which is the form that is quoted of Theorem 12; the scale drops out. The law says nothing of F = 0, where every outcome
misses, and with scale = 1 it gives one candidate no hit either: integers need `allocate`.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

CONCAVE_UP_TO = 1e-12  # rounding of cumulative sums


@dataclass(frozen=True)
class HitLaw:
    """P(miss | F candidates) = scale * F^-exponent for F >= 1, and 1 for F = 0 (arXiv 2603.03251; scale is 1 there)."""

    exponent: float
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.exponent > 0 or not 0 <= self.scale <= 1:
            raise ValueError(f"exponent {self.exponent} must be above 0 and scale {self.scale} within 0..1")

    def hit_rate(self, fan_out: float) -> float:
        """P(hit) with this many candidates."""
        return 0.0 if fan_out < 1 else 1.0 - self.scale * fan_out**-self.exponent


@dataclass(frozen=True)
class OutcomeLaw:
    """What the outcomes of rounds are like: how far the target goes, and how well the draft guesses what comes then.

    acceptance: of each draft token. rejected: candidates after a rejection, a < k. bonus: those after k accepted tokens
    (None: the same law), an easier guess, for there the draft's first choice has not been refuted.
    """

    acceptance: float
    rejected: HitLaw
    bonus: HitLaw | None = None

    def __post_init__(self) -> None:
        _check_acceptance(self.acceptance)

    def weights(self, k: int) -> list[float]:
        """P(accepted length = a), a in 0..k."""
        return length_weights(self.acceptance, k)

    def hit_rates(self, k: int, widest: int) -> list[list[float]]:
        """P(hit | accepted length a, F candidates): a row for each a in 0..k, F in 0..widest."""
        rejected = [self.rejected.hit_rate(f) for f in range(widest + 1)]
        bonus = rejected if self.bonus is None else [self.bonus.hit_rate(f) for f in range(widest + 1)]
        return [rejected] * k + [bonus]


def length_weights(acceptance: float, k: int) -> list[float]:
    """P(accepted length = a) for a in 0..k if each draft token is accepted with the same probability."""
    _check_acceptance(acceptance)
    return [acceptance**a * (1 - acceptance) for a in range(k)] + [acceptance**k]


def continuous_fan_out(k: int, budget: float, acceptance: float, exponent: float) -> list[float]:
    """Theorem 12 (arXiv 2603.03251): the k + 1 real numbers with sum `budget` that maximise the law's hit rate."""
    HitLaw(exponent)  # its checks
    shares = [weight ** (1 / (1 + exponent)) for weight in length_weights(acceptance, k)]
    return [budget * share / sum(shares) for share in shares]


def predicted_hit_rate(schedule: Sequence[int], acceptance: float, exponent: float, scale: float = 1.0) -> float:
    """P(hit) of k + 1 fan-outs under one acceptance rate and one power law."""
    law = HitLaw(exponent, scale)
    weights = length_weights(acceptance, len(schedule) - 1)
    return sum(weight * law.hit_rate(f) for weight, f in zip(weights, schedule, strict=True))


def weighted_hit_rate(schedule: Sequence[int], weights: Sequence[float], hit_rates: Sequence[Sequence[float]]) -> float:
    """P(hit) of a schedule: sum over a of `weights[a] * hit_rates[a][F_a]`; beyond a row's end its last rate holds."""
    return sum(w * row[min(f, len(row) - 1)] for w, row, f in zip(weights, hit_rates, schedule, strict=True))


def allocate(weights: Sequence[float], hit_rates: Sequence[Sequence[float]], budget: int) -> list[int]:
    """The integers F_a of sum `budget` with the largest sum of `weights[a] * hit_rates[a][F_a]`. Exact for any rates.

    Args: weights, one for each accepted length; `hit_rates[a][F]`, P(hit) with F = 0, 1, .. candidates, a row's end
    being the most candidates allowed there.

    Where every row is concave, each branch goes where it gains most at that moment. That is optimal: were another
    allocation better, one of its branches would stand at a gain that greedy passed over for a larger or equal one, and
    within a row gains only fall, so moving it there loses nothing; moves end at greedy's. The first branch of a row
    (F = 0 to 1) can gain less than the second, with scale = 1 nothing at all; then dynamic programming over the rows
    decides, in rows * budget^2 steps.

    Raises ValueError for a budget that is negative or more than all rows allow.
    """
    if len(weights) != len(hit_rates):
        raise ValueError(f"{len(weights)} weights for {len(hit_rates)} rows of hit rates: give one for each")
    room = sum(len(row) - 1 for row in hit_rates)
    if not 0 <= budget <= room:
        raise ValueError(f"budget {budget}: the rows of hit rates allow 0 to {room} branches")
    rows = [[weight * rate for rate in row] for weight, row in zip(weights, hit_rates, strict=True)]
    concave = all(
        after - here <= here - before + CONCAVE_UP_TO
        for row in rows
        for before, here, after in zip(row, row[1:], row[2:], strict=False)
    )
    return _greedy(rows, budget) if concave else _dynamic(rows, budget)


def _greedy(rows: Sequence[Sequence[float]], budget: int) -> list[int]:
    counts = [0] * len(rows)
    gains = [(row[0] - row[1], a) for a, row in enumerate(rows) if len(row) > 1]  # negative: heapq keeps the least
    heapq.heapify(gains)
    for _ in range(budget):
        _, a = heapq.heappop(gains)
        counts[a] += 1
        row = rows[a]
        if counts[a] + 1 < len(row):
            heapq.heappush(gains, (row[counts[a]] - row[counts[a] + 1], a))
    return counts


def _dynamic(rows: Sequence[Sequence[float]], budget: int) -> list[int]:
    best: list[float | None] = [0.0] + [None] * budget  # best[b]: of the rows so far with b branches in all
    choices: list[list[int]] = []
    for row in rows:
        extended: list[float | None] = [None] * (budget + 1)
        chosen = [0] * (budget + 1)
        for spent in range(budget + 1):
            for count in range(min(spent, len(row) - 1) + 1):
                before = best[spent - count]
                if before is None:
                    continue
                value = before + row[count]
                so_far = extended[spent]
                if so_far is None or value > so_far:
                    extended[spent], chosen[spent] = value, count
        best = extended
        choices.append(chosen)
    counts, left = [], budget
    for chosen in reversed(choices):
        counts.append(chosen[left])
        left -= chosen[left]
    return counts[::-1]


def _check_acceptance(acceptance: float) -> None:
    if not 0 <= acceptance <= 1:
        raise ValueError(f"acceptance is {acceptance}; it is a probability, 0 to 1")
