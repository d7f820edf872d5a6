"""Is the speculative text the same? The library behind `ssd-lab check`."""

from ssd_lab.check.checking import DEFAULT_STRATEGIES, Extent, check
from ssd_lab.check.distribution import PathResult
from ssd_lab.check.greedy import FirstDifference, GreedyResult
from ssd_lab.check.report import CheckReport

__all__ = ["DEFAULT_STRATEGIES", "CheckReport", "Extent", "FirstDifference", "GreedyResult", "PathResult", "check"]
