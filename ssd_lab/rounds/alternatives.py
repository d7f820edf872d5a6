"""The likeliest tokens at the places of a round, on the host: what `record_details` asks for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ssd_lab.trace.records import Position


@dataclass(frozen=True)
class Alternatives:
    """tokens `[batch, places, n]` (with repeats), the target's probability of each, the draft's (-1 where nothing was
    drawn from a distribution), and the draft's before Saguaro sampling (None: not used).
    """

    tokens: np.ndarray
    target: np.ndarray
    draft: np.ndarray
    raw: np.ndarray | None = None

    def at(self, places: np.ndarray) -> Alternatives:
        """Other places in their stead, `[batch, n]`."""
        rows = np.arange(len(places))[:, None]
        raw = None if self.raw is None else self.raw[rows, places]
        return Alternatives(self.tokens[rows, places], self.target[rows, places], self.draft[rows, places], raw)

    def position(self, row: int, place: int, *, drafted: bool = True) -> Position:
        """One place for the trace, every token once. drafted: did a draft token stand here?"""
        tokens, first = np.unique(self.tokens[row, place], return_index=True)
        draft = self.draft[row, place, first].tolist()
        drawn = drafted and draft[0] >= 0
        return Position(
            tokens=tokens.tolist(),
            target_probs=self.target[row, place, first].tolist(),
            draft_probs=draft if drawn else None,
            draft_raw_probs=self.raw[row, place, first].tolist() if drawn and self.raw is not None else None,
        )
