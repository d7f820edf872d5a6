"""Why a run was as fast as it was: `ssd_lab.explain(comparison)`, `run.explain()`, `ssd-lab explain TRACE...`."""

from ssd_lab.common.callable_module import make_callable
from ssd_lab.explain.explaining import explain
from ssd_lab.explain.explanation import Explanation, RunExplanation
from ssd_lab.explain.terms import Term

__all__ = ["Explanation", "RunExplanation", "Term", "explain"]

make_callable(__name__, explain)
