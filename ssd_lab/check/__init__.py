"""Is the speculative text the same? The library behind `ssd-lab check`."""

from ssd_lab.check.checking import DEFAULT_STRATEGIES, Extent, check
from ssd_lab.check.greedy import FirstDifference, GreedyResult
from ssd_lab.check.report import CheckReport, PathResult

__all__ = ["DEFAULT_STRATEGIES", "CheckReport", "Extent", "FirstDifference", "GreedyResult", "PathResult", "check"]
