"""Rounds of one sequence, for tests that drive a draft worker over its link."""

from __future__ import annotations

from typing import Any

from ssd_lab.links.messages import RoundMessage
from ssd_lab.rounds.rows import KnownState, RowBatch

GREEDY, WARM = (0.0, 0, 1.0, 0.0, 1), (1.0, 0, 1.0, 0.0, 7)


def round_of(
    length: int, last: int, num_accepted: int | None, sampling: Any = GREEDY, previous: int = 40, **fields: Any
) -> RoundMessage:
    """A sequence of so many tokens, its last two, and its accepted length."""
    rows = RowBatch(KnownState([length], [previous], [last]), [[1, 2, 3]], [sampling])
    return RoundMessage([0], rows, [num_accepted], **fields)
