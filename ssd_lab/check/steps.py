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
from numpy.typing import NDArray

from ssd_lab.check.statistics import Floats
from ssd_lab.trace.records import Position, SequenceRound, TreeRecord

OTHERS = -1  # stands for all tokens that a law does not list


@dataclass(frozen=True)
class Offer:
    """tokens: in the order in which they were tried. kept: which of them was accepted, -1 for none. drafted `[vocab]`:
    what the first one was drawn from, None for certain guesses.

    Where the trace lists only the likeliest tokens, listed `[n + 1]` says which ones `drafted` `[n + 1]` tells of: the
    n likeliest of the draft, then OTHERS, all the rest as one; and chance, how likely the first token was to be kept.
    """

    tokens: list[int]
    kept: int = -1
    drafted: Floats | None = None
    listed: NDArray[np.int64] | None = None
    chance: float | None = None


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
    rounds: list[SequenceRound], token_ids: list[int], target: Floats, *, filtered: bool, details: int
) -> list[Step]:
    """The steps of one request. target `[tokens, vocab]`. details: how many of the likeliest tokens the trace holds at
    each place (`record_details`); with the whole vocabulary every decision before a token can be told, with fewer what
    became of the first token that was offered, with none nothing of the draft.
    """
    vocab_size = target.shape[1]
    paths = [record.origin for record in rounds for _ in range(record.num_emitted)]
    offers: list[Offer | None] = [None] * len(paths)
    if details >= vocab_size:
        offers = [offer for record in rounds for offer in _offers(record, vocab_size)]
    elif details:
        offers = [offer for record in rounds for offer in _first_offers(record, details)]
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


def _first_offers(record: SequenceRound, details: int) -> Iterator[Offer | None]:
    """For each token that the round added to the text the first one offered in its stead, None if there was none."""
    tree = record.tree if record.tree is not None and record.tree.alternatives is not None else None
    at = -1
    for place in range(record.num_emitted):
        accepted = place < record.num_accepted
        if tree is None:
            if place >= len(record.draft_tokens) or record.alternatives is None:
                yield None
                continue
            token, tried = record.draft_tokens[place], record.alternatives[place]
            chance = _chance(record.target_probs[place], record.draft_probs[place])
            yield _listed_offer(token, tried, chance, details, kept=accepted)
            continue
        nodes = [node for node, parent in enumerate(tree.parents) if parent == at]
        if not nodes:
            yield None
            continue
        first, tried = nodes[0], (tree.alternatives or [])[nodes[0]]
        kept = accepted and tree.tokens[first] == record.draft_tokens[place]
        own = tried.tokens.index(tree.tokens[first])  # a node's own token is always listed
        chance = _chance(tried.target_probs[own], tried.draft_probs[own] if tried.draft_probs else 1.0)
        yield _listed_offer(tree.tokens[first], tried, chance, details, kept=kept)
        if accepted:
            at = next(node for node in nodes if tree.tokens[node] == record.draft_tokens[place])


def _chance(target: float, draft: float) -> float:
    """How likely a token of these probabilities is kept."""
    return min(1.0, target / max(draft, np.finfo(float).tiny))


def _listed_offer(token: int, tried: Position, chance: float, details: int, *, kept: bool) -> Offer:
    """The first token at a place, and what it was drawn from as far as that is listed."""
    if tried.draft_probs is None or dict(zip(tried.tokens, tried.draft_probs, strict=True)).get(token) == 1:
        return Offer([token], 0 if kept else -1, chance=chance)
    tokens, probs = np.array(tried.tokens), np.array(tried.draft_probs)
    likeliest = np.argsort(-probs, kind="stable")[:details]  # which they are, the token drawn has no say in
    listed, given = tokens[likeliest], probs[likeliest]
    return Offer(
        [token],
        0 if kept else -1,
        np.append(given, max(0.0, 1 - given.sum())),
        np.append(listed, OTHERS),
        chance,
    )


def _distribution(place: Position, vocab_size: int) -> Floats | None:
    """What the token at this place was drawn from, None for a certain guess."""
    if place.draft_probs is None:
        return None
    probs = np.zeros(vocab_size)
    probs[place.tokens] = place.draft_probs
    return probs
