"""A round on its way: launched, and later settled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ssd_lab.phases.verification import Verification
from ssd_lab.rounds.rows import RowBatch
from ssd_lab.rounds.sequence import Sequence
from ssd_lab.rounds.verified import Verified


@dataclass(frozen=True)
class Flight:
    """A launched round: its sequences, their verification, and when it began and was launched (the run's seconds)."""

    sequences: list[Sequence]
    rows: RowBatch
    verification: Verification[Any]
    start_s: float
    verify_start_s: float


@dataclass(frozen=True)
class Settled:
    """A round whose outcome is committed. own: the rows whose requests had not ended before. appended: tokens that each
    row got. end_s: when its outcome was there.
    """

    flight: Flight
    verified: Verified
    own: list[int]
    appended: list[int]
    end_s: float

    @property
    def decided(self) -> list[int]:
        """The rows with an outcome: a request whose logits are no numbers has none."""
        return [row for row in self.own if self.verified.finite[row]]
