"""Rounds whose rows are drafted by different proposers: ask one for some rows, put the answers together."""

from __future__ import annotations

from collections.abc import Sequence as SequenceABC

import torch

from ssd_lab.engine.proposal import Proposal
from ssd_lab.engine.proposer import Proposer
from ssd_lab.engine.rows import RowBatch
from ssd_lab.engine.sequence import Sequence


def propose_some(proposer: Proposer, chosen: SequenceABC[int], sequences: list[Sequence], rows: RowBatch) -> Proposal:
    """What the proposer drafts for the `chosen` rows of a round; it is not told of the others."""
    some = [sequences[row] for row in chosen]
    return proposer.propose(some, rows.select(chosen))


def replace_rows(proposal: Proposal, chosen: SequenceABC[int], other: Proposal) -> Proposal:
    """`proposal` with its `chosen` rows taken from `other`, which has one row for each of them, in that order."""
    batch, k = len(proposal.num_drafted), max(proposal.tokens.shape[1], other.tokens.shape[1])
    device = other.tokens.device
    place = torch.tensor(list(chosen), dtype=torch.int64, device=device)
    tokens = _padded(proposal.tokens.to(device), k).index_copy(0, place, _padded(other.tokens, k))
    vocab = next((part.probs.shape[-1] for part in (proposal, other) if part.probs is not None), None)
    probs = None
    if vocab is not None:
        probs = _distributions(proposal, k, vocab, device).index_copy(0, place, _distributions(other, k, vocab, device))
    source = {row: index for index, row in enumerate(chosen)}

    def taken(name: str) -> list:
        return [
            getattr(other, name)[source[row]] if row in source else getattr(proposal, name)[row] for row in range(batch)
        ]

    token_probs = None
    if proposal.token_probs is not None and other.token_probs is not None:
        own, others = _ones_behind(proposal.token_probs.to(device), k), _ones_behind(other.token_probs, k)
        token_probs = own.index_copy(0, place, others)
    return Proposal(
        tokens=tokens,
        num_drafted=taken("num_drafted"),
        probs=probs,
        origins=taken("origins"),
        cache_hits=taken("cache_hits"),
        token_probs=token_probs,
        previous_tree=other.previous_tree or proposal.previous_tree,
        activities=[*proposal.activities, *other.activities],
    )


def _padded(tokens: torch.Tensor, k: int) -> torch.Tensor:
    return torch.nn.functional.pad(tokens, (0, k - tokens.shape[1]))


def _ones_behind(token_probs: torch.Tensor, k: int) -> torch.Tensor:
    return torch.nn.functional.pad(token_probs, (0, k - token_probs.shape[1]), value=1.0)


def _distributions(proposal: Proposal, k: int, vocab: int, device: torch.device) -> torch.Tensor:
    """`[batch, k, vocab]`; certain guesses, and places past a draft's end, are a one on their token."""
    certain = torch.zeros(len(proposal.tokens), k, vocab, device=device)
    certain.scatter_(-1, _padded(proposal.tokens.to(device), k).unsqueeze(-1), 1.0)
    if proposal.probs is not None:
        certain[:, : proposal.probs.shape[1]] = proposal.probs.to(device)
    return certain
