"""Tests of uniformity, and what many tests at once may conclude. Plain functions on arrays, no model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_NORMAL = NormalDist()

NUM_BINS = 50
SURELY = 0.95  # the power that a reach is stated for
MIN_EXPECTED = 5.0  # below this many expected draws a cell, the chi-square distribution is a poor approximation


@dataclass(frozen=True)
class Evidence:
    """A statistic and the probability of one at least as large if nothing is wrong."""

    statistic: float
    p_value: float


def chi_square_survival(statistic: float, degrees: int) -> float:
    """P(chi-square with so many degrees of freedom > statistic)."""
    halves = torch.tensor([degrees / 2, max(statistic, 0.0) / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(halves[0], halves[1]))


def kolmogorov_survival(distance: float, count: int) -> float:
    """P(largest distance between the empirical and the uniform distribution > distance), after Stephens (1970)."""
    scaled = (math.sqrt(count) + 0.12 + 0.11 / math.sqrt(count)) * distance
    if scaled < 0.2:  # the series converges slowly there, and the answer is 1 to twelve digits
        return 1.0
    total = sum((-1) ** (j - 1) * math.exp(-2 * (j * scaled) ** 2) for j in range(1, 101))
    return min(1.0, max(0.0, 2 * total))


def normal_survival(score: float) -> float:
    """P(a standard normal number > score)."""
    return math.erfc(score / math.sqrt(2)) / 2


def tossed_p_value(probs: Floats, count: int) -> float:
    """Two-sided: the chance that of independent tosses with these probabilities `count` come up, or a count as far out
    on its side, twice.
    """
    above = count > float(probs.sum())
    return min(1.0, 2 * (tail_probability(probs, count) if above else tail_probability(1 - probs, len(probs) - count)))


def tail_probability(probs: Floats, count: int) -> float:
    """P(at least `count` of independent tosses with these probabilities come up), for a count not below expectation.

    Lugannani and Rice's saddle point formula for lattices (1980; Daniels 1987, section 6), whose relative error stays
    small however far out the count is.
    """
    if count >= len(probs):
        return math.exp(float(np.log(probs).sum()))
    low, high = 0.0, 50.0
    for _ in range(60):  # the tilted expectation grows with the tilt
        tilt = (low + high) / 2
        tilted = probs * math.exp(tilt)
        tilted /= 1 - probs + tilted
        low, high = (tilt, high) if tilted.sum() < count else (low, tilt)
    spread = math.sqrt(float((tilted * (1 - tilted)).sum()))
    if tilt * spread < 0.05:  # at the expectation the formula is 0 / 0
        return normal_survival((count - 0.5 - float(probs.sum())) / spread)
    exponent = tilt * count - float(np.log1p(probs * math.expm1(tilt)).sum())
    score = math.sqrt(2 * max(exponent, 0.0))
    density = math.exp(-exponent) / math.sqrt(2 * math.pi)
    return min(1.0, max(0.0, normal_survival(score) + density * (1 / (-math.expm1(-tilt) * spread) - 1 / score)))


def bin_counts(uniforms: Floats, num_bins: int = NUM_BINS) -> NDArray[np.int64]:
    """How many of these numbers in [0, 1] fall into each of equal bins."""
    places = np.minimum((uniforms * num_bins).astype(np.int64), num_bins - 1)
    return np.bincount(places, minlength=num_bins)


def chi_square_uniform(uniforms: Floats, num_bins: int = NUM_BINS) -> Evidence:
    """Pearson's test that the numbers are uniform on [0, 1]; fewer bins if there are few numbers."""
    num_bins = max(2, min(num_bins, int(len(uniforms) / MIN_EXPECTED)))
    return chi_square_of_counts(bin_counts(uniforms, num_bins))


def chi_square_of_counts(counts: NDArray[Any]) -> Evidence:
    """Pearson's test that every bin is as likely as the others."""
    statistic = float(((counts - counts.mean()) ** 2).sum() / counts.mean())
    return Evidence(statistic, chi_square_survival(statistic, len(counts) - 1))


def kolmogorov_uniform(uniforms: Floats) -> Evidence:
    """Kolmogorov's test that the numbers are uniform on [0, 1]."""
    ordered = np.sort(uniforms)
    count = len(ordered)
    ranks = np.arange(count)
    distance = float(max((ordered - ranks / count).max(), ((ranks + 1) / count - ordered).max()))
    return Evidence(distance, kolmogorov_survival(distance, count))


def found_shift(count: int, alpha: float) -> float:
    """The smallest distance of a distribution from the uniform one (anywhere between 0 and 1 of too many or too few
    below) that Kolmogorov's test at this level finds in so many numbers with a chance of SURELY, or more.

    The distance is exceeded at the place where the distributions differ most; the share below it scatters by half a
    root of the count at most.
    """
    return min(1.0, (math.sqrt(-math.log(alpha / 2) / 2) + _NORMAL.inv_cdf(SURELY) / 2) / math.sqrt(max(1, count)))


def found_share(spread: float, alpha: float) -> float:
    """The smallest change of the share of tosses that come up which a test at this level finds with a chance of SURELY;
    spread: the share's standard deviation.
    """
    return min(1.0, (_NORMAL.inv_cdf(1 - alpha / 2) + _NORMAL.inv_cdf(SURELY)) * spread)


def found_rate(count: int) -> float:
    """The smallest rate of faults of which at least one shows in so many trials with a chance of SURELY."""
    return 1 - (1 - SURELY) ** (1 / max(1, count))


def mean_zero(values: Floats, variances: Floats) -> Evidence:
    """Test that the values, whose variances are known, average zero (normal approximation, two-sided)."""
    spread = math.sqrt(float(variances.sum()))
    if spread == 0:
        return Evidence(0.0, 1.0)
    score = float(values.sum()) / spread
    return Evidence(score, math.erfc(abs(score) / math.sqrt(2)))


def bin_deviation(uniforms: Floats, num_bins: int = NUM_BINS) -> float:
    """Share of draws in the wrong bin: half the sum of |observed - expected|. Chance alone gives about
    0.4 * sqrt(num_bins / draws).
    """
    shares = bin_counts(uniforms, num_bins) / len(uniforms)
    return float(np.abs(shares - 1 / num_bins).sum() / 2)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: rejecting those below alpha makes any wrong rejection at all as rare as alpha (Holm 1979)."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
