"""Is the speculative text the same? The library behind `ssd-lab check`."""

from ssd_lab.check.check_report import CheckReport, PathResult
from ssd_lab.check.checking import DEFAULT_STRATEGIES, Extent, check
from ssd_lab.check.greedy import FirstDifference, GreedyResult

__all__ = ["DEFAULT_STRATEGIES", "CheckReport", "Extent", "FirstDifference", "GreedyResult", "PathResult", "check"]
