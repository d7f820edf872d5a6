"""Plain records of what a run did, files of them, and the numbers derived from them; without torch or engine."""

from ssd_lab.trace.metrics import LaneShare, Metrics, Spread, compute_metrics
from ssd_lab.trace.records import (
    SCHEMA_VERSION,
    Activity,
    Branch,
    Position,
    RequestRecord,
    RoundRecord,
    SequenceRound,
    TreeRecord,
)
from ssd_lab.trace.summary import round_line, sequence_summary
from ssd_lab.trace.totals import Totals
from ssd_lab.trace.trace import Trace, load_trace

__all__ = [
    "SCHEMA_VERSION",
    "Activity",
    "Branch",
    "LaneShare",
    "Metrics",
    "Position",
    "RequestRecord",
    "RoundRecord",
    "SequenceRound",
    "Spread",
    "Totals",
    "Trace",
    "TreeRecord",
    "compute_metrics",
    "load_trace",
    "round_line",
    "sequence_summary",
]
