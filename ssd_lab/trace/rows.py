"""Rounds as a table: one row for each sequence in each round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ssd_lab.trace.records import RoundRecord

_RECORDS = ("tree", "alternatives")  # what is a table of its own


def rows_of(meta: Mapping[str, Any], rounds: Sequence[RoundRecord]) -> list[dict[str, Any]]:
    """The fields of `SequenceRound`, records within it left out, with the strategy and the round's index, start,
    seconds and the seconds of preparation in it.
    """
    strategy = meta.get("strategy")
    name = strategy.get("name") if isinstance(strategy, Mapping) else None
    return [
        {
            "strategy": name,
            "round": one.index,
            "start_s": one.start_s,
            "round_s": one.end_s - one.start_s,
            "preparation_s": one.preparation_s,
            "num_drafted": len(row.draft_tokens),
            **{field: value for field, value in vars(row).items() if field not in _RECORDS},
        }
        for one in rounds
        for row in one.sequences
    ]
