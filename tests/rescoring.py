"""The twin of `static/rescore.js`: what recorded rounds would have given with another lookahead or schedule.

Each recorded round is scored by itself: the rounds that would have followed a changed one were never run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

Step = dict[str, Any]


@dataclass(frozen=True)
class Rescored:
    """lookups: rounds of which the outcome's rank is known; hits among them; accepted and rounds over all of them."""

    rounds: int
    accepted: int
    lookups: int
    hits: int

    @property
    def hit_rate(self) -> float | None:
        """Hits over lookups."""
        return self.hits / self.lookups if self.lookups else None


def rescore(steps: Iterable[Step], fan_out: Sequence[int]) -> Rescored:
    """Rounds with lookahead `len(fan_out) - 1` and this schedule, after hits and misses alike.

    A round that accepted more than the new lookahead ends there, and its recovery token is the draft token that the
    target kept next: as the draft's own choice it counts as rank 0 where the alternatives do not tell its real rank.
    """
    lookahead = len(fan_out) - 1
    rounds = accepted = lookups = hits = 0
    for step in steps:
        rounds += 1
        length = min(step["num_accepted"], lookahead)
        accepted += length
        rank = rank_at(step, lookahead)
        if rank is not None:
            lookups += 1
            hits += rank < fan_out[length]
    return Rescored(rounds, accepted, lookups, hits)


def rank_at(step: Step, lookahead: int) -> int | None:
    """Place of the recovery token among the draft's candidates if only `lookahead` tokens had been verified."""
    if step["num_accepted"] <= lookahead:
        rank = step.get("recovery_rank")
        # at the end of a shorter lookahead the rejected draft token is a candidate like any other
        if rank is not None and step["num_accepted"] == lookahead < len(step["draft_tokens"]):
            return rank + _drafted_before(step, lookahead)
        return rank
    token = step["draft_tokens"][lookahead]
    place = _alternatives(step, lookahead)
    if place is None:
        return 0
    probs = place.get("draft_raw_probs", place.get("draft_probs"))
    if probs is None or token not in place["tokens"]:
        return 0
    own = probs[place["tokens"].index(token)]
    return sum(prob > own for prob in probs)


def _drafted_before(step: Step, lookahead: int) -> int:
    """1 if the rejected draft token at this place was likelier under the draft than the recovery token."""
    place = _alternatives(step, lookahead)
    if place is None or place.get("draft_probs") is None:
        return 1
    probs = place.get("draft_raw_probs", place["draft_probs"])
    by_token = dict(zip(place["tokens"], probs, strict=True))
    drafted = by_token.get(step["draft_tokens"][lookahead], 1.0)
    return int(drafted >= by_token.get(step["recovery_token"], 0.0))


def _alternatives(step: Step, place: int) -> dict[str, Any] | None:
    alternatives = step.get("alternatives")
    return alternatives[place] if alternatives is not None and place < len(alternatives) else None
