"""A draft tree as chains: the tokens under verification, then branches, each a run of nodes that follow one another."""

from __future__ import annotations

from typing import Any

from ssd_lab.trace import Position, SequenceRound
from ssd_lab.widgets.view_model.numbers import short, shorts


def tree_view(record: SequenceRound) -> dict[str, Any] | None:
    """The tree of a round, None if there is none.

    `chain` nodes come first. `branches` lists `[start, end, parent]` of every other run of nodes: nodes start..end-1,
    the first of them after `parent` (-1: the last committed token) and each later one after the node before it.
    `verified`: the target looked at the nodes (`target_probs`); otherwise they were prepared for the next round.
    `alternatives`, `coins`: of each node, where recorded.
    """
    tree = record.tree
    if tree is None:
        return None
    starts = tree.starts_of_runs(record.chain_length())
    ends = [*starts[1:], len(tree.tokens)]
    view: dict[str, Any] = {
        "tokens": tree.tokens,
        "draft_probs": shorts(tree.draft_probs),
        "chain": starts[0] if starts else len(tree.tokens),
        "branches": [[start, end, tree.parents[start]] for start, end in zip(starts, ends, strict=True)],
        "verified": tree.target_probs is not None,
    }
    if tree.target_probs is not None:
        view["target_probs"] = [None if prob is None else short(prob) for prob in tree.target_probs]
    if tree.alternatives is not None:
        view["alternatives"] = [place_view(place) for place in tree.alternatives]
    if tree.coins is not None:
        view["coins"] = shorts(tree.coins)
    return view


def place_view(place: Position) -> dict[str, Any]:
    """A `Position`, without what it lacks."""
    view: dict[str, Any] = {"tokens": place.tokens, "target_probs": shorts(place.target_probs)}
    if place.draft_probs is not None:
        view["draft_probs"] = shorts(place.draft_probs)
    if place.draft_raw_probs is not None:
        view["draft_raw_probs"] = shorts(place.draft_raw_probs)
    return view


def caught_branch(record: SequenceRound, view: dict[str, Any] | None) -> int | None:
    """Number of the branch that was prepared for what then happened: the round's accepted length and recovery token."""
    if view is None or view["verified"]:
        return None
    last_accepted = record.num_accepted - 1
    for number, (start, _, parent) in enumerate(view["branches"]):
        if parent == last_accepted and view["tokens"][start] == record.recovery_token:
            return number
    return None


def prepared_at(record: SequenceRound, view: dict[str, Any] | None, accepted: int) -> int | None:
    """How many recovery tokens were prepared at an accepted length; None if nothing was recorded of it."""
    if record.fan_out is not None and accepted < len(record.fan_out):
        return record.fan_out[accepted]
    if view is None or view["verified"]:
        return None
    return sum(parent == accepted - 1 for _, _, parent in view["branches"])
