"""Rounds whose rows are drafted by different proposers: ask one for some rows, put the answers together."""

from __future__ import annotations

from collections.abc import Sequence as SequenceABC
from dataclasses import replace

import torch
from torch.nn.functional import pad

from ssd_lab.drafting.proposer import Proposer
from ssd_lab.execution.host_copy import sent
from ssd_lab.execution.structure import each_tensor, flatten, unflatten
from ssd_lab.rounds.proposal import Proposal
from ssd_lab.rounds.rows import RowBatch
from ssd_lab.rounds.sequence import Sequence
from ssd_lab.rounds.token_tree import TokenTree


def propose_some(proposer: Proposer, chosen: SequenceABC[int], sequences: list[Sequence], rows: RowBatch) -> Proposal:
    """What the proposer drafts for the `chosen` rows of a round; it is not told of the others."""
    some = [sequences[row] for row in chosen]
    return proposer.propose(some, rows.select(chosen))


def replace_rows(proposal: Proposal, chosen: SequenceABC[int], other: Proposal) -> Proposal:
    """`proposal` with its `chosen` rows taken from `other`, which has one row for each of them, in that order.

    If one of them holds trees, the other's chains become trees too.
    """
    device = other.tokens.device
    place = sent(list(chosen), device, torch.int64)
    own, theirs = _alike(_on(proposal, device), other)
    source = {row: index for index, row in enumerate(chosen)}

    def taken(name: str) -> list:
        one, two = (getattr(part, name) or [None] * len(part.num_drafted) for part in (proposal, other))
        return [two[source[row]] if row in source else one[row] for row in range(len(one))]

    def copied(one: torch.Tensor | None, two: torch.Tensor | None) -> torch.Tensor | None:
        return None if one is None or two is None else one.index_copy(0, place, two)

    tree = None
    if own.tree is not None and theirs.tree is not None:
        (ours, structure), (others, _) = flatten(own.tree), flatten(theirs.tree)
        tree = unflatten(structure, [one.index_copy(0, place, two) for one, two in zip(ours, others, strict=True)])
    return Proposal(
        tokens=own.tokens.index_copy(0, place, theirs.tokens),
        num_drafted=taken("num_drafted"),
        probs=copied(own.probs, theirs.probs),
        origins=taken("origins"),
        cache_hits=taken("cache_hits"),
        token_probs=copied(own.token_probs, theirs.token_probs),
        previous_trees=[*proposal.previous_trees, *other.previous_trees],
        activities=[*proposal.activities, *other.activities],
        predicted_hits=taken("predicted_hits"),
        tree=tree,
        raw_probs=copied(own.raw_probs, theirs.raw_probs)
        if proposal.tokens.shape[1:] == other.tokens.shape[1:]
        else None,
    )


def no_draft(batch: int, device: torch.device | str = "cpu") -> Proposal:
    """An empty proposal whose probabilities may be put together with others."""
    tokens = torch.zeros(batch, 0, dtype=torch.int64, device=device)
    return Proposal(tokens, [0] * batch, None, ["none"] * batch, [None] * batch, torch.zeros(batch, 0, device=device))


def joined(parts: SequenceABC[tuple[list[int], Proposal]], batch: int) -> Proposal:
    """The proposals of several proposers, each with the rows that it is for, as one of `batch` rows. Every row is of
    one part.
    """
    (first, proposal), *others = parts
    if not others and first == list(range(batch)):
        return proposal
    whole = _spread(proposal, first, batch)
    for chosen, other in others:
        whole = replace_rows(whole, chosen, other)
    return whole


def _spread(proposal: Proposal, chosen: list[int], batch: int) -> Proposal:
    """A proposal of `batch` rows, of which the `chosen` ones are this one's and the others are to be replaced."""
    source = {row: index for index, row in enumerate(chosen)}
    index = [source.get(row, 0) for row in range(batch)]
    places = sent(index, proposal.tokens.device, torch.int64)

    def listed(values: list) -> list:
        return [values[place] for place in index]

    def at(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else tensor.index_select(0, places)

    return replace(
        proposal,
        tokens=proposal.tokens.index_select(0, places),
        num_drafted=listed(proposal.num_drafted),
        probs=at(proposal.probs),
        origins=listed(proposal.origins),
        cache_hits=listed(proposal.cache_hits),
        token_probs=at(proposal.token_probs),
        predicted_hits=None if proposal.predicted_hits is None else listed(proposal.predicted_hits),
        raw_probs=at(proposal.raw_probs),
        tree=each_tensor(lambda tensor: tensor.index_select(0, places), proposal.tree),
    )


def _on(proposal: Proposal, device: torch.device) -> Proposal:
    """The proposal with its tensors on this device."""
    tree, probs, token_probs, raw_probs = proposal.tree, proposal.probs, proposal.token_probs, proposal.raw_probs
    return replace(
        proposal,
        tokens=proposal.tokens.to(device),
        probs=None if probs is None else probs.to(device),
        token_probs=None if token_probs is None else token_probs.to(device),
        tree=each_tensor(lambda tensor: tensor.to(device), tree),
        raw_probs=None if raw_probs is None else raw_probs.to(device),
    )


def _alike(one: Proposal, two: Proposal) -> tuple[Proposal, Proposal]:
    """Both with tensors of the same shapes, batch apart."""
    k = max(one.tokens.shape[1], two.tokens.shape[1])
    trees = [
        part.tree or TokenTree.of_chains(part.tokens, part.num_drafted, part.probs) for part in (one, two)
    ]  # before anything is spelled out: what is certain stays so
    are_trees = one.tree is not None or two.tree is not None
    vocab = next((part.probs.shape[-1] for part in (one, two) if part.probs is not None), None)
    widest = max([k] * (not are_trees) + [part.probs.shape[1] for part in (one, two) if part.probs is not None] + [0])
    made = []
    for part, tree in zip((one, two), trees, strict=True):
        probs, tokens = part.probs, part.tokens
        missing = k - tokens.shape[1]
        if vocab is not None:
            if probs is None and not are_trees:
                probs = _certain(tokens, vocab)
            elif probs is None:
                probs = torch.zeros(len(tokens), 0, vocab, device=tokens.device)
            probs = _padded_distributions(probs, widest, are_trees)
        padded = TokenTree(
            pad(tree.parents, (0, missing), value=-1),
            pad(tree.valid, (0, missing)),
            pad(tree.drawn_from, (0, missing)),
            tree.certain,
            max(other.depth for other in trees),
            max(other.width for other in trees),
        )
        made.append(
            replace(
                part,
                tokens=pad(tokens, (0, missing)),
                probs=probs,
                token_probs=None if part.token_probs is None else pad(part.token_probs, (0, missing), value=1.0),
                tree=padded if are_trees else None,
            )
        )
    return made[0], made[1]


def _certain(tokens: torch.Tensor, vocab: int) -> torch.Tensor:
    """Certain guesses spelled out: a one on each token."""
    return torch.zeros(*tokens.shape, vocab, device=tokens.device).scatter_(-1, tokens.unsqueeze(-1), 1.0)


def _padded_distributions(probs: torch.Tensor, rows: int, are_trees: bool) -> torch.Tensor:
    """`[batch, rows, vocab]`. Behind a chain's end stand ones on token 0, behind a tree's rows what nobody reads."""
    missing = rows - probs.shape[1]
    if not missing:
        return probs
    behind = torch.zeros(len(probs), missing, probs.shape[2], device=probs.device)
    if not are_trees:
        behind[..., 0] = 1.0
    return torch.cat([probs, behind], 1)
