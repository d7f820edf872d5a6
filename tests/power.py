"""What a statistical test promises: how seldom it is wrong about right code, how surely it finds a fault.

A right implementation fails one test with probability ALPHA at most: over the suite's few hundred p-values less than
one time in a million, on whatever machine draws other numbers. A planted fault is found with POWER at least; how many
draws that takes follows from the size of the fault, which `effect` computes where both laws are known and which scores
of several seeds measure where they are not (`power_of`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist, fmean
from typing import Any

import torch

from ssd_lab.check.statistics import chi_square_survival

ALPHA = 1e-9
POWER = 0.999
NORMAL = NormalDist()


def effect(right: Iterable[float], wrong: Iterable[float]) -> float:
    """Size of a fault: what each draw from `wrong` adds, on average, to Pearson's statistic against `right`."""
    pairs = list(zip(right, wrong, strict=True))
    if any(r <= 0 < w for r, w in pairs):
        return math.inf
    return sum((w - r) ** 2 / r for r, w in pairs if r > 0)


def chi_square_power(size: float, draws: int, cells: int, alpha: float = ALPHA) -> float:
    """Probability that Pearson's test finds a fault of this size in so many draws (noncentral chi-square)."""
    if math.isinf(size):
        return 1.0
    degrees, half = cells - 1, draws * size / 2
    if half == 0:
        return alpha
    counts = torch.arange(int(half + 12 * math.sqrt(half)) + 60, dtype=torch.float64)
    weights = (counts * math.log(half) - half - torch.lgamma(counts + 1)).exp()
    tail = torch.special.gammaincc(degrees / 2 + counts, torch.full_like(counts, critical(degrees, alpha) / 2))
    return float((weights * tail).sum())


def critical(degrees: int, alpha: float) -> float:
    """The statistic from which on Pearson's test rejects."""
    low, high = 0.0, degrees + 400.0 + 40 * math.sqrt(degrees)
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if chi_square_survival(middle, degrees) > alpha else (low, middle)
    return high


def score(p_value: float) -> float:
    """How many standard deviations out this one-sided p-value lies; at most 38, where floats end."""
    return -NORMAL.inv_cdf(min(max(p_value, 1e-300), 1 - 1e-12))


def power_of(p_values: Sequence[float], alpha: float) -> float:
    """Probability that further draws of the same number are rejected at alpha, from p-values of several seeds: their
    scores spread about their mean by one.
    """
    return NORMAL.cdf(fmean(map(score, p_values)) - score(alpha))


def smallest_p(report: Any, path: str) -> float:
    """The smallest p-value of a path of a `CheckReport`, corrected for all tests of the report."""
    return min(p for one, p in zip(report.paths, report.adjusted, strict=True) if one.path == path and p is not None)


def found_wrong(report: Any, alpha: float = ALPHA) -> set[str]:
    """Paths of a `CheckReport` with a p-value, corrected for all tests of the report, below alpha."""
    return {path.path for path, p in zip(report.paths, report.adjusted, strict=True) if p is not None and p < alpha}
