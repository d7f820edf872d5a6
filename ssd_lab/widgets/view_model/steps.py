"""One sequence's round as a view shows it: a step of the stepper."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssd_lab.trace import RoundRecord, SequenceRound, Trace
from ssd_lab.widgets.view_model.numbers import short, shorts
from ssd_lab.widgets.view_model.trees import caught_branch, place_view, prepared_at, tree_view

Step = dict[str, Any]


def steps_of(trace: Trace) -> dict[int, list[Step]]:
    """The steps of each request, by request id, in the order in which they happened.

    Fields as in `SequenceRound`, and: `round`, its index; `next_hit`, whether this round's outcome was found in the
    cache (None: no later lookup); `branch`, the tree's branch that was prepared for it; `prepared`, how many recovery
    tokens were prepared at the real accepted length; `missed_by`, how many more it would have taken (0: it was there,
    None: not recorded); `beyond_ranked`, set where the rank is that or worse.
    """
    steps: dict[int, list[Step]] = {}
    ranked = trace.meta.get("ranked_candidates")
    for round_record in trace.rounds:
        for record in round_record.sequences:
            own = steps.setdefault(record.request_id, [])
            if own:
                own[-1]["next_hit"] = record.cache_hit
            own.append(_step(round_record, record, ranked))
    return steps


def _step(round_record: RoundRecord, record: SequenceRound, ranked: int | None) -> Step:
    tree = tree_view(record)
    step: Step = {
        "round": round_record.index,
        "position": record.position,
        "draft_tokens": record.draft_tokens,
        "draft_probs": shorts(record.draft_probs),
        "target_probs": shorts(record.target_probs),
        "num_accepted": record.num_accepted,
        "recovery_token": record.recovery_token,
        "recovery_prob": short(record.recovery_prob),
        "num_emitted": record.num_emitted,
        "origin": record.origin,
        "cache_hit": record.cache_hit,
        "next_hit": None,
        "tree": tree,
        "branch": caught_branch(record, tree),
        "prepared": prepared_at(record, tree, record.num_accepted),
        "missed_by": _missed_by(record, tree),
    }
    optional = {
        "coins": None if record.coins is None else shorts(record.coins),
        "recovery_coin": None if record.recovery_coin is None else short(record.recovery_coin),
        "recovery_rank": record.recovery_rank,
        "beyond_ranked": True if ranked is not None and record.recovery_rank == ranked else None,
        "fan_out": record.fan_out,
        "alternatives": None if record.alternatives is None else [place_view(place) for place in record.alternatives],
    }
    return step | {name: value for name, value in optional.items() if value is not None}


def _missed_by(record: SequenceRound, tree: dict[str, Any] | None) -> int | None:
    prepared = prepared_at(record, tree, record.num_accepted)
    if record.recovery_rank is None or prepared is None:
        return None
    return max(0, record.recovery_rank + 1 - prepared)


def text_tokens(steps: Sequence[Step]) -> list[tuple[int, int, int]]:
    """The tokens of a text as `(token, step, place)`: place 0.. of an accepted draft token, -1 the recovery token."""
    tokens: list[tuple[int, int, int]] = []
    for number, step in enumerate(steps):
        drafted = step["draft_tokens"][: min(step["num_accepted"], step["num_emitted"])]
        tokens += [(token, number, place) for place, token in enumerate(drafted)]
        if step["num_emitted"] > step["num_accepted"]:
            tokens.append((step["recovery_token"], number, -1))
    return tokens
