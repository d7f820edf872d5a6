"""Means with intervals: Student's t over repeats, the bootstrap over requests, Welch's t for ratios of two runs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 2000
MIN_REQUESTS = 8  # of fewer the percentile bootstrap promises more than it holds
_GRID = 1025  # points of Simpson's rule: the t quantile is then right to eight digits


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval. low, high: None where `count` values say nothing about their spread.

    method: `student` (mean over repeats), `bootstrap` (requests drawn again), or `welch` (ratio of two runs).
    """

    mean: float
    low: float | None
    high: float | None
    count: int
    method: str

    @property
    def relative_width(self) -> float | None:
        """Half the interval's width over the mean, None where either is unknown or the mean is 0."""
        if self.low is None or self.high is None or self.mean == 0:
            return None
        return (self.high - self.low) / 2 / abs(self.mean)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return dataclasses.asdict(self)


def student_interval(values: Sequence[float]) -> Estimate:
    """Mean of independent repeats with Student's t interval; one repeat has none. Raises ValueError if empty."""
    if not values:
        raise ValueError("no values to average")
    sample = np.asarray(values, dtype=np.float64)
    mean = float(sample.mean())
    if len(sample) < 2:
        return Estimate(mean, None, None, 1, "student")
    half = t_quantile(len(sample) - 1) * float(sample.std(ddof=1)) / math.sqrt(len(sample))
    return Estimate(mean, mean - half, mean + half, len(sample), "student")


def bootstrap_ratio(numerators: Sequence[float], denominators: Sequence[float], seed: int = 0) -> Estimate | None:
    """sum(numerators) / sum(denominators) with the percentile bootstrap over pairs (one pair a request).

    Rounds of one request resemble each other, so requests are drawn again and not rounds. No interval for fewer than
    eight; None if there is nothing to divide by.
    """
    over, under = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
    if under.sum() == 0:
        return None
    mean = float(over.sum() / under.sum())
    if len(over) < MIN_REQUESTS:
        return Estimate(mean, None, None, len(over), "bootstrap")
    drawn = np.random.default_rng(seed).integers(0, len(over), size=(RESAMPLES, len(over)))
    bottoms = under[drawn].sum(axis=1)
    ratios = over[drawn].sum(axis=1)[bottoms > 0] / bottoms[bottoms > 0]
    tail = (1 - CONFIDENCE) / 2 * 100
    low, high = np.percentile(ratios, [tail, 100 - tail])
    return Estimate(mean, float(low), float(high), len(over), "bootstrap")


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """How many times as large two runs' repeats are, one run over the other: Welch's t interval on the logarithms.

    The estimate is the ratio of geometric means. Raises ValueError for empty or non-positive samples.
    """
    if not numerators or not denominators or min(*numerators, *denominators) <= 0:
        raise ValueError("a ratio needs positive values on both sides")
    over, under = np.log(np.asarray(numerators)), np.log(np.asarray(denominators))
    difference, count = float(over.mean() - under.mean()), min(len(over), len(under))
    if count < 2:
        return Estimate(math.exp(difference), None, None, count, "welch")
    parts = [float(logs.var(ddof=1)) / len(logs) for logs in (over, under)]
    if sum(parts) == 0:
        return Estimate(math.exp(difference), math.exp(difference), math.exp(difference), count, "welch")
    degrees = sum(parts) ** 2 / sum(part**2 / (len(logs) - 1) for part, logs in zip(parts, (over, under), strict=True))
    half = t_quantile(degrees) * math.sqrt(sum(parts))
    return Estimate(math.exp(difference), math.exp(difference - half), math.exp(difference + half), count, "welch")


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """The median of the ratios within pairs, with the interval between two of them that binomial chances give.

    A pair that something else disturbed moves neither by much. No interval for fewer than six pairs. Raises ValueError
    for empty, unequally long or non-positive samples.
    """
    pairs = list(zip(numerators, denominators, strict=True))
    if not pairs or min(min(pair) for pair in pairs) <= 0:
        raise ValueError("a ratio needs positive values on both sides")
    ratios = sorted(over / under for over, under in pairs)
    count, below, left_out = len(ratios), 0.0, 0
    while below + math.comb(count, left_out) / 2**count <= (1 - CONFIDENCE) / 2:
        below += math.comb(count, left_out) / 2**count
        left_out += 1
    median = float(np.median(ratios))
    if left_out == 0:
        return Estimate(median, None, None, count, "paired")
    return Estimate(median, ratios[left_out - 1], ratios[count - left_out], count, "paired")


@lru_cache(maxsize=256)
def t_quantile(degrees: float, confidence: float = CONFIDENCE) -> float:
    """The t beyond which a share of `1 - confidence` of Student's distribution lies, both tails together."""
    # with t = sqrt(degrees) * tan(angle) the density is cos(angle) ** (degrees - 1), smooth on a finite interval
    total = _cosine_integral(math.pi / 2, degrees)
    low, high = 0.0, math.pi / 2
    for _ in range(45):
        middle = (low + high) / 2
        if _cosine_integral(middle, degrees) < confidence * total:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan(low)


def _cosine_integral(angle: float, degrees: float) -> float:
    """Integral of cos ** (degrees - 1) from 0 to `angle`, by Simpson's rule."""
    heights = np.cos(np.linspace(0.0, angle, _GRID)) ** (degrees - 1)
    weights = np.full(_GRID, 2.0)
    weights[1::2], weights[0], weights[-1] = 4.0, 1.0, 1.0
    return float((weights * heights).sum() * angle / (_GRID - 1) / 3)
