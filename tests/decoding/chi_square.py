"""A goodness-of-fit test, for tests."""

from __future__ import annotations

import numpy as np
import torch


def chi_square_p(counts: np.ndarray, expected: np.ndarray, least: float = 5.0) -> float:
    """P-value of Pearson's test that `counts` were drawn with these expected numbers (same sum).

    Cells that expect fewer than `least` are merged, smallest first; a count where nothing is expected gives 0.
    """
    counts, expected = np.asarray(counts, float).ravel(), np.asarray(expected, float).ravel()
    if counts[expected <= 0].sum() > 0:
        return 0.0
    order = np.argsort(expected)
    cells: list[list[float]] = []
    for count, wanted in zip(counts[order], expected[order], strict=True):
        if cells and cells[-1][1] < least:
            cells[-1][0] += count
            cells[-1][1] += wanted
        else:
            cells.append([count, wanted])
    if len(cells) < 2:
        return 1.0
    statistic = sum((count - wanted) ** 2 / wanted for count, wanted in cells if wanted > 0)
    halves = torch.tensor([(len(cells) - 1) / 2, statistic / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(halves[0], halves[1]))
