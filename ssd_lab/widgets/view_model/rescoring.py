"""Hit rates against fan-out, over the recorded rounds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from ssd_lab.learning.fan_out_fit import weighted_line
from ssd_lab.widgets.view_model.steps import Step


def hit_curve(steps: Iterable[Step], widest: int = 16) -> list[float]:
    """Share of the recorded outcomes that a uniform fan-out of 1, 2, .. would have caught; empty without ranks."""
    ranks = [step["recovery_rank"] for step in steps if step.get("recovery_rank") is not None]
    return [sum(rank < width for rank in ranks) / len(ranks) for width in range(1, widest + 1)] if ranks else []


def power_law(curve: Sequence[float]) -> tuple[float, float] | None:
    """Factor c and exponent r of miss rate = c F^-r, by least squares on the logarithms of the points that miss.

    A point counts by its misses, for the logarithm of a rate is as uncertain as they are few. arXiv 2603.03251 states
    the law with c = 1, which would make every lookup at F = 1 a miss. None with fewer than three different rates that
    miss: through fewer any line goes.
    """
    points = [(width, 1 - rate) for width, rate in enumerate(curve, 1) if rate < 1]
    if len({missed for _, missed in points}) < 3:
        return None
    x, y = ([math.log(value) for value in values] for values in zip(*points, strict=True))
    slope, intercept = weighted_line(x, y, [missed for _, missed in points])
    return math.exp(intercept), -slope
