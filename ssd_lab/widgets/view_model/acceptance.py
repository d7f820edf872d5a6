"""Acceptance by position, by prompt and over time, with what the recorded probabilities let one expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ssd_lab.widgets.view_model.numbers import short
from ssd_lab.widgets.view_model.steps import Step


def acceptance_view(steps: Mapping[int, Sequence[Step]], *, sampled: Mapping[int, bool]) -> dict[str, Any]:
    """Tables for the acceptance charts; `sampled[request]`: was its temperature above 0.

    `by_position`: draft token i accepted, given that all before it were: `tested`, `accepted`, and `expected`, the mean
    of min(1, target / draft probability) over the same tests (None at temperature 0, where nothing is left to chance,
    and in trees, whose siblings are tried one after the other).
    `by_request`: rounds, mean tokens a round. `rate`: accepted over tested, all positions.
    """
    rows: list[dict[str, Any]] = []
    for request, own in steps.items():
        for step in own:
            tested = min(step["num_accepted"] + 1, len(step["draft_tokens"]))
            for place in range(tested):
                while len(rows) <= place:
                    rows.append({"tested": 0, "accepted": 0, "chances": []})
                rows[place]["tested"] += 1
                rows[place]["accepted"] += place < step["num_accepted"]
                if sampled.get(request) and not (step["tree"] and step["tree"]["verified"]):
                    rows[place]["chances"].append(chance(step["target_probs"][place], step["draft_probs"][place]))
    tested_all, accepted_all = (sum(row[name] for row in rows) for name in ("tested", "accepted"))
    return {
        "by_position": [
            {
                "tested": row["tested"],
                "accepted": row["accepted"],
                "observed": short(row["accepted"] / row["tested"]),
                "expected": short(sum(row["chances"]) / len(row["chances"])) if row["chances"] else None,
            }
            for row in rows
        ],
        "by_request": [
            {
                "request": request,
                "rounds": len(own),
                "tokens_per_round": short(sum(step["num_accepted"] + 1 for step in own) / len(own)),
            }
            for request, own in steps.items()
        ],
        "rate": short(accepted_all / tested_all) if tested_all else None,
    }


def chance(target_prob: float, draft_prob: float) -> float:
    """Probability with which a draft token is kept, min(1, target / draft probability) (arXiv 2211.17192)."""
    return 1.0 if draft_prob <= target_prob else target_prob / draft_prob
