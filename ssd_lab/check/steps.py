"""What was decided at each place of a text, taken from the trace: the raw material of the tests.

A *step* is one emitted token. Before it stand the draft tokens that were offered there, in the order in which they were
tried (one in a chain, siblings in a tree), and the distribution they were drawn from. Only the places that the text
reached are steps: every (position, purpose) of a request's random numbers is looked at once among them, so steps are
independent of each other given the text before them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ssd_lab.check.statistics import Floats
from ssd_lab.trace.records import Position, SequenceRound, TreeRecord


@dataclass(frozen=True)
class Offer:
    """tokens: in the order in which they were tried. kept: which of them was accepted, -1 for none. drafted `[vocab]`:
    what the first one was drawn from, None for certain guesses.
    """

    tokens: list[int]
    kept: int = -1
    drafted: Floats | None = None


@dataclass(frozen=True)
class Step:
    """One emitted token, and the target's distribution `[vocab]` that it should follow.

    path: what drafted it. filtered: is it tested with those of requests that filter (top-k, top-p, min-p)? offer: None
    where the trace does not tell.
    """

    emitted: int
    target: Floats
    path: str
    filtered: bool = False
    offer: Offer | None = None


def steps_of(
    rounds: list[SequenceRound], token_ids: list[int], target: Floats, *, filtered: bool, whole: bool
) -> list[Step]:
    """The steps of one request. target `[tokens, vocab]`. whole: the trace holds the drafts' whole distributions
    (`record_details` is the size of the vocabulary), so that the decisions before each token can be told.
    """
    vocab_size = target.shape[1]
    paths = [record.origin for record in rounds for _ in range(record.num_emitted)]
    offers: list[Offer | None] = [None] * len(paths)
    if whole:
        offers = [offer for record in rounds for offer in _offers(record, vocab_size)]
    each = zip(token_ids, target, paths, offers, strict=True)
    return [Step(token, expected, path, filtered, offer) for token, expected, path, offer in each]


def _offers(record: SequenceRound, vocab_size: int) -> Iterator[Offer]:
    """One for each token that the round added to the text."""
    if record.tree is not None and record.tree.alternatives is not None:  # else it is what an asynchronous draft built
        yield from _tree_offers(record, record.tree, record.tree.alternatives, vocab_size)
        return
    for place in range(record.num_emitted):
        if place >= len(record.draft_tokens) or record.alternatives is None:
            yield Offer([])
            continue
        token = record.draft_tokens[place]
        drafted = _distribution(record.alternatives[place], vocab_size)
        # a row of certain guesses beside drawn ones is spelled out in ones
        is_drawn = drafted is not None and drafted[token] < 1
        yield Offer([token], 0 if place < record.num_accepted else -1, drafted if is_drawn else None)


def _tree_offers(
    record: SequenceRound, tree: TreeRecord, alternatives: list[Position], vocab_size: int
) -> Iterator[Offer]:
    """The children of each node of the accepted path, the root's first."""
    at = -1
    for place in range(record.num_emitted):
        nodes = [node for node, parent in enumerate(tree.parents) if parent == at]
        tokens = [tree.tokens[node] for node in nodes]
        kept = tokens.index(record.draft_tokens[place]) if place < record.num_accepted else -1
        yield Offer(tokens, kept, _distribution(alternatives[nodes[0]], vocab_size) if nodes else None)
        if kept >= 0:
            at = nodes[kept]


def _distribution(place: Position, vocab_size: int) -> Floats | None:
    """What the token at this place was drawn from, None for a certain guess."""
    if place.draft_probs is None:
        return None
    probs = np.zeros(vocab_size)
    probs[place.tokens] = place.draft_probs
    return probs
