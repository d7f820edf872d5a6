"""What was decided at each place of the text, taken from watched rounds: the raw material of the tests.

A *step* is one emitted token. Before it stand the draft tokens that were offered there, in the order in which they were
tried (one in a chain, siblings in a tree), and the distribution they were drawn from. Only the places that the text
reached are steps: every (position, purpose) of a request's random numbers is looked at once among them, so steps are
independent of each other given the text before them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ssd_lab.check.grid.watching import Watched
from ssd_lab.execution.structure import flatten
from ssd_lab.rounds.proposal import Proposal

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Steps:
    """n steps: what happened, beside the distributions that it should have followed.

    offered `[n, width]`: draft tokens in the order in which they were tried, then -1. certain `[n]`: they are certain
    guesses. target, drafted `[n, vocab]`: the target's filtered distribution, and the one that the first token was
    drawn from (of no meaning for certain guesses, and where nothing was offered). kept `[n]`: which of the offered ones
    was accepted, -1 for none. emitted `[n]`: the token that entered the text. paths `[n]`: what drafted it. filtered
    `[n]`: does the request filter (top-k, top-p, min-p)?
    """

    offered: Integers
    certain: NDArray[np.bool_]
    target: Floats
    drafted: Floats
    kept: Integers
    emitted: Integers
    paths: NDArray[np.str_]
    filtered: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.emitted)


@dataclass(frozen=True)
class _Offer:
    tokens: list[int]
    nodes: list[int]
    distribution: Floats | None  # None: certain guesses


class _Round:
    """A proposal as plain arrays, made once for all its rows."""

    def __init__(self, proposal: Proposal) -> None:
        self._tokens = proposal.tokens.tolist()
        self._num_drafted = proposal.num_drafted
        self._probs = None if proposal.probs is None else proposal.probs.double().cpu().numpy()
        tree = proposal.tree
        self._tree = None if tree is None else tuple(tensor.tolist() for tensor in flatten(tree)[0])

    def offers(self, row: int, path: Sequence[int], count: int) -> list[_Offer]:
        """What was offered at the first `count` places, along the accepted path."""
        if self._tree is None:
            return [self._chain_offer(row, place) for place in range(count)]
        return [self._children(row, path[place - 1] if place else -1) for place in range(count)]

    def _chain_offer(self, row: int, place: int) -> _Offer:
        if place >= self._num_drafted[row]:
            return _Offer([], [], None)
        token = self._tokens[row][place]
        own = None if self._probs is None else self._probs[row, place]
        return _Offer([token], [place], None if own is None or own[token] == 1 else own)

    def _children(self, row: int, parent: int) -> _Offer:
        assert self._tree is not None
        parents, valid, drawn_from, certain = (part[row] for part in self._tree)
        nodes = [node for node, own in enumerate(parents) if own == parent and valid[node]]
        own = None
        if nodes and self._probs is not None and not certain:
            own = self._probs[row, drawn_from[nodes[0]]]
        return _Offer([self._tokens[row][node] for node in nodes], nodes, own)


def steps_of(
    watched: Sequence[Watched], targets: Mapping[int, Floats], prompts: Mapping[int, int], filtered: Mapping[int, bool]
) -> Steps:
    """The steps of some rounds. By request id: the target's distribution after each token from the prompt's last one
    on, the prompt's length, and whether the request filters.
    """
    rounds: dict[int, _Round] = {}
    rows = []
    for seen in watched:
        made = rounds.get(id(seen.proposal)) or rounds.setdefault(id(seen.proposal), _Round(seen.proposal))
        first = seen.start - prompts[seen.request_id]
        origin = seen.proposal.origins[seen.row]
        is_tree = seen.proposal.tree is not None
        for place, offer in enumerate(made.offers(seen.row, seen.path, len(seen.emitted))):
            kept = -1
            if place < seen.num_accepted:
                kept = offer.nodes.index(seen.path[place] if is_tree else place)
            target = targets[seen.request_id][first + place]
            rows.append((offer, kept, target, seen.emitted[place], origin, filtered[seen.request_id]))
    width = max([1, *(len(row[0].tokens) for row in rows)])
    return Steps(
        offered=np.array([row[0].tokens + [-1] * (width - len(row[0].tokens)) for row in rows], dtype=np.int64),
        certain=np.array([row[0].distribution is None for row in rows], dtype=bool),
        target=np.stack([row[2] for row in rows]),
        drafted=np.stack([row[2] if row[0].distribution is None else row[0].distribution for row in rows]),
        kept=np.array([row[1] for row in rows], dtype=np.int64),
        emitted=np.array([row[3] for row in rows], dtype=np.int64),
        paths=np.array([row[4] for row in rows]),
        filtered=np.array([row[5] for row in rows], dtype=bool),
    )
