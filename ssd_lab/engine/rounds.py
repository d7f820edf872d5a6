"""A round on its way: launched, and later collected."""

from __future__ import annotations

from dataclasses import dataclass

from ssd_lab.engine.phases.verify import Verification
from ssd_lab.engine.phases.verify_tree import TreeVerification
from ssd_lab.engine.rows import RowBatch
from ssd_lab.engine.sequence import Sequence


@dataclass(frozen=True)
class Flight:
    """A launched round: its sequences, their verification, and when it began and was launched (the run's seconds)."""

    sequences: list[Sequence]
    rows: RowBatch
    verification: Verification | TreeVerification
    start_s: float
    verify_start_s: float
