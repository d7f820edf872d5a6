"""Rounds worth opening first: a long accept, a first-token reject, a near miss; and the one that views open on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ssd_lab.widgets.view_model.steps import Step


def opening(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`run`, `request`, `step` and `place` that views open on: in the last run that drafts, the first round that keeps
    some of its draft tokens and rejects one, and that token; if there is one, a round that began with a hit and ended
    in one, or at least ended in one.
    """
    number = max((i for i, run in enumerate(runs) if run["acceptance"]["rate"] is not None), default=0)
    rounds = [
        (request["id"], i, step) for request in runs[number]["requests"] for i, step in enumerate(request["steps"])
    ]
    request, step_number, step = min(rounds, key=lambda one: _dullness(one[2]), default=(None, 0, None))
    if step is None or _dullness(step) == _DULL:
        return {"run": number, "request": request, "step": 0, "place": None}
    verified = step["tree"] is not None and step["tree"]["verified"]
    place = "recovery" if verified else f"draft:{step['num_accepted']}"
    return {"run": number, "request": request, "step": step_number, "place": place}


_DULL = 4


def _dullness(step: Step) -> int:
    """0 for what shows most: tokens prepared, some kept, one rejected, the outcome prepared too."""
    drafted, kept = len(step["draft_tokens"]), step["num_accepted"]
    if not drafted or kept == drafted:
        return _DULL
    if not kept or step["branch"] is None:
        return 2 if kept else 3
    return 0 if step["origin"] == "hit" else 1


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
