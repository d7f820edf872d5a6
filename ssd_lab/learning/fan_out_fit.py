"""Acceptance rate and power law from recorded outcomes (arXiv 2603.03251: miss rate = F^-r, fitted)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ssd_lab.decoding.fan_out import HitLaw, OutcomeLaw

LEAST_MISSES = 5  # a miss rate told from fewer is mostly chance, and its logarithm even more so
ENOUGH_MISSES = 20  # for an exponent of their own
PRIOR_ROUNDS, POOLED_ROUNDS = 30.0, 2.0  # weight of a prior that is given, and of one fitted to all ranks
SMALLEST_EXPONENT = 1e-3  # flat or rising measured rates still need a law that falls
_LARGEST_EXPONENT = 20.0
_HALVINGS = 60


@dataclass(frozen=True)
class OutcomeSample:
    """One verified round. rank: place of the recovery token among the draft's candidates at the accepted length, 0 for
    the likeliest, the token drafted there left out (None: not known). began_with_hit: its draft tokens came from the
    speculation cache.
    """

    num_accepted: int
    num_drafted: int
    rank: int | None
    began_with_hit: bool

    @property
    def all_accepted(self) -> bool:
        """No draft token was refused: the recovery token is the bonus token."""
        return self.num_accepted == self.num_drafted


@dataclass(frozen=True)
class HitLawFit:
    """A fitted law. fan_outs, miss_rates: the measured points; r_squared: of the straight line in log-log coordinates,
    each point counted as the fit counts it.
    """

    law: HitLaw
    r_squared: float
    count: int
    fan_outs: tuple[int, ...]
    miss_rates: tuple[float, ...]


def acceptance_rate(samples: Iterable[OutcomeSample]) -> float | None:
    """Accepted over tested draft tokens (those after the first refused one were not tested); None without any."""
    accepted = tested = 0
    for sample in samples:
        accepted += sample.num_accepted
        tested += sample.num_accepted + (not sample.all_accepted)
    return accepted / tested if tested else None


def measured_hit_rates(ranks: Sequence[int], widest: int) -> list[float]:
    """P(rank < F) for F = 0..widest: what F candidates would have hit. Raises ValueError without ranks."""
    if not ranks:
        raise ValueError("no ranks to measure: record rounds of a draft model first")
    counts = Counter(min(rank, widest) for rank in ranks)
    rates, below = [], 0
    for fan_out in range(widest + 1):
        rates.append(below / len(ranks))
        below += counts[fan_out]
    return rates


def fit_hit_law(ranks: Sequence[int], *, widest: int = 64, scaled: bool = True) -> HitLawFit | None:
    """Fit miss rate = scale * F^-r to recorded ranks by weighted least squares of log(miss rate) on log F.

    A point weighs n m / (1 - m), the inverse variance of log m. scaled=False fixes scale = 1, the paper's form, whose
    line starts at a miss rate of 1 for F = 1. None where fewer than two fan-outs missed often enough (5 times) to be
    fitted.
    """
    total = len(ranks)
    if not total:
        return None
    misses = [sum(rank >= fan_out for rank in ranks) for fan_out in range(1, widest + 1)]
    points = [(f, m / total) for f, m in enumerate(misses, 1) if m >= LEAST_MISSES and m < total]
    if len(points) < 2:
        return None
    x = [math.log(fan_out) for fan_out, _ in points]
    y = [math.log(rate) for _, rate in points]
    weights = [total * rate / (1 - rate) for _, rate in points]
    mean_y = _mean(y, weights)
    if scaled:
        slope, intercept = weighted_line(x, y, weights)
    else:
        intercept = 0.0
        slope = sum(w * a * b for w, a, b in zip(weights, x, y, strict=True)) / sum(
            w * a * a for w, a in zip(weights, x, strict=True)
        )
    residual = sum(w * (b - intercept - slope * a) ** 2 for w, a, b in zip(weights, x, y, strict=True))
    around_mean = sum(w * (b - mean_y) ** 2 for w, b in zip(weights, y, strict=True))
    law = HitLaw(max(-slope, SMALLEST_EXPONENT), min(1.0, math.exp(intercept)))
    r_squared = 1 - residual / around_mean if around_mean > 0 else 0.0
    return HitLawFit(law, r_squared, total, tuple(f for f, _ in points), tuple(rate for _, rate in points))


def likeliest_exponent(ranks: Sequence[int], *, widest: int = 64) -> float | None:
    """Maximum-likelihood exponent of these ranks, censored at `widest`; None for fewer than 5 misses.

    It weighs small ranks more than the least-squares line of `fit_hit_law` does; budgets of one or two candidates at an
    accepted length depend on those.
    """
    counts = Counter(min(rank, widest) for rank in ranks if rank > 0)
    if counts.total() < LEAST_MISSES:
        return None

    def slope(exponent: float) -> float:
        """Derivative of the log-likelihood; it falls as the exponent grows."""
        total = 0.0
        for rank, count in counts.items():
            if rank == widest:
                total -= count * math.log(rank)
                continue
            here, above = rank**-exponent, (rank + 1) ** -exponent
            total += count * (math.log(rank + 1) * above - math.log(rank) * here) / (here - above)
        return total

    low, high = SMALLEST_EXPONENT, _LARGEST_EXPONENT
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) > 0 else (low, middle)
    return low


def fit_outcome_law(
    samples: Sequence[OutcomeSample], *, widest: int = 64, prior: OutcomeLaw | None = None
) -> OutcomeLaw | None:
    """Acceptance rate and both hit laws (after a rejection, after all tokens were accepted) by maximum likelihood. A
    law's scale is the miss rate of one candidate.

    Few samples are shrunk towards the prior: rates count it as 30 rounds, and an exponent is fitted from 20 misses on.
    prior: None fits one law to all ranks and counts it as 2 rounds, since the two laws are known to differ much.
    Returns None if there are too few ranks.
    """
    groups = [[s.rank for s in samples if s.rank is not None and s.all_accepted is full] for full in (False, True)]
    weight = PRIOR_ROUNDS if prior is not None else POOLED_ROUNDS
    if prior is None:
        together = [rank for group in groups for rank in group]
        acceptance, exponent = acceptance_rate(samples), likeliest_exponent(together, widest=widest)
        if acceptance is None or exponent is None:
            return None
        law = HitLaw(exponent, sum(rank > 0 for rank in together) / len(together))
        prior = OutcomeLaw(acceptance, law)
    rejected, bonus = (
        _from_prior(group, law, weight, widest)
        for group, law in zip(groups, (prior.rejected, prior.bonus or prior.rejected), strict=True)
    )
    accepted = sum(s.num_accepted for s in samples)
    tested = accepted + sum(not s.all_accepted for s in samples)
    tokens = _tested_a_round(prior.acceptance, max(s.num_drafted for s in samples)) if samples else 1.0
    return OutcomeLaw(_share(accepted, tested, prior.acceptance, weight * tokens), rejected, bonus)


def _tested_a_round(acceptance: float, k: int) -> float:
    """Draft tokens of a round of k that are tested, on average: up to the first that is refused."""
    return sum(acceptance**place for place in range(k))


def _from_prior(ranks: Sequence[int], prior: HitLaw, weight: float, widest: int) -> HitLaw:
    missed = sum(rank > 0 for rank in ranks)
    own = likeliest_exponent(ranks, widest=widest) if missed >= ENOUGH_MISSES else None
    return HitLaw(prior.exponent if own is None else own, _share(missed, len(ranks), prior.scale, weight))


def _share(part: int, whole: int, prior: float, weight: float) -> float:
    return (part + weight * prior) / (whole + weight)


def measured_curves(
    samples: Iterable[OutcomeSample], k: int, widest: int
) -> tuple[list[float], list[list[float]]] | None:
    """P(accepted length = a) for a in 0..k, and for each a P(hit | a, F candidates) for F in 0..widest, as counted.

    Rounds of another number of draft tokens, or without a rank, are left out; None if no round is left. What
    `allocate` makes of these is the best that any counts with that sum could have done in the same rounds.
    """
    ranks: list[list[int]] = [[] for _ in range(k + 1)]
    for sample in samples:
        if sample.num_drafted == k and sample.rank is not None:
            ranks[sample.num_accepted].append(sample.rank)
    total = sum(map(len, ranks))
    if not total:
        return None
    nothing = [0.0] * (widest + 1)
    rates = [measured_hit_rates(own, widest) if own else nothing for own in ranks]
    return [len(own) / total for own in ranks], rates


def weighted_line(x: Sequence[float], y: Sequence[float], weights: Sequence[float]) -> tuple[float, float]:
    """Slope and intercept of y over x by weighted least squares; x holds at least two values."""
    mean_x, mean_y = _mean(x, weights), _mean(y, weights)
    spread = sum(w * (a - mean_x) ** 2 for w, a in zip(weights, x, strict=True))
    slope = sum(w * (a - mean_x) * (b - mean_y) for w, a, b in zip(weights, x, y, strict=True)) / spread
    return slope, mean_y - slope * mean_x


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights)
