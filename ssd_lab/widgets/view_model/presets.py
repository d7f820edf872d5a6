"""Rounds worth opening first: a long accept, a first-token reject, a near miss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ssd_lab.widgets.view_model.steps import Step


def presets(steps: Mapping[int, Sequence[Step]]) -> list[dict[str, Any]]:
    """`label`, `request`, `step` and `place` (what to select there) of each kind that these rounds hold."""
    everything = [(request, number, step) for request, own in steps.items() for number, step in enumerate(own)]
    found: list[dict[str, Any]] = []

    def add(label: str, place: Callable[[Step], str], badness: Callable[[Step], float | None]) -> None:
        """The first round with the least badness; None: not of this kind."""
        scored = [(worth, i) for i, (_, _, step) in enumerate(everything) if (worth := badness(step)) is not None]
        if scored:
            request, number, step = everything[min(scored)[1]]
            found.append({"label": label, "request": request, "step": number, "place": place(step)})

    add(
        "longest accept",
        lambda step: "recovery",
        lambda step: -step["num_accepted"] if step["num_accepted"] > 1 else None,
    )
    add(
        "first token rejected",
        lambda step: "draft:0",
        lambda step: 0.0 if step["draft_tokens"] and not step["num_accepted"] else None,
    )
    add("near miss", lambda step: "recovery", lambda step: step["missed_by"] or None)
    if not any(preset["label"] == "near miss" for preset in found):  # ranks were not recorded, or nothing was close
        add("cache miss", lambda step: "recovery", lambda step: 0.0 if step["next_hit"] is False else None)
    return found
