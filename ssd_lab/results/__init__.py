"""What a run hands back: texts, numbers and the trace, with displays for notebooks and terminals."""

from ssd_lab.results.comparison import Comparison
from ssd_lab.results.run_result import FinishReason, Output, RunResult

__all__ = ["Comparison", "FinishReason", "Output", "RunResult"]
