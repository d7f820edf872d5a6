"""Which outcomes of a round to prepare: from counts for each accepted length, or from the draft's probabilities.

A prepared outcome (a, t) is a hit with probability P(a tokens are accepted) * P(t is the recovery token | a). The draft
estimates both: by its probability of each token that it drafted, and of the candidates after each prefix. Tables that
are learned while running calibrate them (see `ConfidenceFanOut`); the B outcomes with the largest products are then the
best that B branches can do in this round.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

CONFIDENCE_BINS = 20  # of equal width over a draft token's probability
CANDIDATE_BINS = 26  # half octaves of a candidate's probability: 1 .. 2^-0.5, .., below 2^-12.5
TABLE = CONFIDENCE_BINS + 2 * CANDIDATE_BINS  # accepted; recovery token after a rejection; after k accepted tokens
_COLD = 1e-30  # logits divided by less might not be finite
_LENGTH = 2**32  # an outcome as one number: accepted length times this, plus the recovery token


def branch_layout(counts: torch.Tensor, branches: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Accepted length and rank `[batch, branches]` of each branch; counts `[batch, k + 1]` sum to branches."""
    ends = counts.cumsum(1)
    branch = torch.arange(branches, device=counts.device)
    prefixes = (branch[None, :, None] >= ends[:, None, :]).sum(-1)
    return prefixes, branch - (ends - counts).gather(1, prefixes)


@dataclass(frozen=True)
class Fork:
    """The branches of each row, `[batch, branches]`: the accepted length that each assumes, its recovery token, both as
    one number (`outcome_keys`), and the draft's probability of the recovery token (None: not wanted).
    """

    prefixes: torch.Tensor
    recovery: torch.Tensor
    keys: torch.Tensor
    recovery_probs: torch.Tensor | None


def fork(
    candidates: torch.Tensor,
    counts: torch.Tensor,
    branches: int,
    logits: torch.Tensor,
    choices: torch.Tensor | None = None,
    choice_probs: torch.Tensor | None = None,
) -> Fork:
    """The first candidates after each prefix, as many as `counts` says.

    Args: candidates `[batch, k + 1, n]`, the likeliest recovery tokens first; counts `[batch, k + 1]`, which sum to
    branches; logits `[batch, k + 1, vocab]`; choices, choice_probs `[batch, k + 1]`: the largest of them and its
    probability, None where probabilities are not wanted.
    """
    prefixes, ranks = branch_layout(counts, branches)
    every = torch.arange(len(candidates), device=candidates.device)[:, None]
    recovery = candidates[every, prefixes, ranks]
    probs = None
    if choices is not None and choice_probs is not None:  # a softmax is known by one of its values
        beside = logits[every, prefixes, recovery] - logits[every, prefixes, choices.gather(1, prefixes)]
        probs = beside.exp() * choice_probs.gather(1, prefixes)
    return Fork(prefixes, recovery, outcome_keys(prefixes, recovery), probs)


def outcome_keys(num_accepted: torch.Tensor, recovery_tokens: torch.Tensor) -> torch.Tensor:
    """Outcomes as single numbers."""
    return num_accepted * _LENGTH + recovery_tokens


@dataclass(frozen=True)
class Found:
    """hit `[batch]`: was the outcome prepared? answered `[batch]`: does any branch answer it? branch `[batch]`: which
    one, if so.
    """

    hit: torch.Tensor
    answered: torch.Tensor
    branch: torch.Tensor


def find_branch(prepared: torch.Tensor, outcomes: torch.Tensor, counts: torch.Tensor | None) -> Found:
    """Which branch was prepared for each outcome.

    Args: prepared `[batch, branches]`: each row's keys; outcomes `[batch, 2]`: the accepted length and the recovery
    token that came; counts `[batch, k + 1]`: branches at each accepted length, if the first one there answers where
    none assumes the outcome.
    """
    hit, branch = (prepared == outcome_keys(*outcomes.unbind(1))[:, None]).max(1)
    if counts is None:
        return Found(hit, hit, branch)
    accepted = outcomes[:, :1]
    at = counts.gather(1, accepted).squeeze(1)
    first = counts.cumsum(1).gather(1, accepted).squeeze(1) - at
    likeliest = first.clamp(max=prepared.shape[1] - 1)  # behind the last branch, where none is at the largest length
    return Found(hit, hit | (at > 0), torch.where(hit, branch, likeliest))


def outcome_chances(confidences: torch.Tensor, candidate_probs: torch.Tensor, tables: torch.Tensor) -> torch.Tensor:
    """P(outcome) `[batch, k + 1, n]` of each candidate; along n it does not rise.

    Args: confidences `[batch, k]`, the draft's probability of each token that it drafted; candidate_probs `[batch, k +
    1, n]`, of each candidate given that the drafted token is refused, in falling order; tables `[batch, TABLE]`.
    """
    k = confidences.shape[1]
    accepted, after_rejection, bonus = tables.split([CONFIDENCE_BINS, CANDIDATE_BINS, CANDIDATE_BINS], 1)
    kept = accepted.gather(1, (confidences * CONFIDENCE_BINS).long().clamp(0, CONFIDENCE_BINS - 1))
    one = torch.ones_like(kept[:, :1])
    lengths = torch.cat([one, kept.cumprod(1)], 1) * torch.cat([1 - kept, one], 1)
    bins = candidate_bins(candidate_probs)
    recovered = torch.cat(
        [
            after_rejection.gather(1, bins[:, :k].flatten(1)).view(bins[:, :k].shape),
            bonus.gather(1, bins[:, k:].flatten(1)).view(bins[:, k:].shape),
        ],
        1,
    )
    return lengths.unsqueeze(-1) * recovered.cummin(-1).values


def draft_confidence(
    logits: torch.Tensor, draft_tokens: torch.Tensor, candidates: torch.Tensor, temperature: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The draft's probability of each token that it drafted `[batch, k]`, and of each candidate given that the drafted
    token is refused `[batch, k + 1, n]`: by its softmax at the request's temperature (greedy: at 1).

    Args: logits `[batch, k + 1, vocab]`, after each prefix; draft_tokens `[batch, k]`; candidates `[batch, k + 1, n]`;
    temperature `[batch]`.
    """
    own = temperature[:, None, None]
    scaled = logits / torch.where(own == 0, 1.0, own).clamp(min=_COLD)
    normaliser = scaled.logsumexp(-1)
    of_drafted = scaled[:, :-1].gather(-1, draft_tokens.unsqueeze(-1)).squeeze(-1)
    confidences = (of_drafted - normaliser[:, :-1]).exp()
    probs = (scaled.gather(-1, candidates) - normaliser.unsqueeze(-1)).exp()
    others = torch.cat([1 - confidences, torch.ones_like(confidences[:, :1])], 1).clamp(min=1e-6)
    return confidences, (probs / others.unsqueeze(-1)).clamp(max=1.0)


def candidate_bins(probs: torch.Tensor) -> torch.Tensor:
    """Bin of each candidate's probability, int64."""
    octaves = -2 * probs.clamp(min=2.0**-20).log2()
    return octaves.long().clamp(0, CANDIDATE_BINS - 1)


def best_counts(chances: torch.Tensor, budget: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Counts `[batch, k + 1]` with sum `budget` that are likeliest to hit, and that likelihood `[batch]`.

    chances `[batch, k + 1, n]` as from `outcome_chances`: not rising along n, so that the best outcomes at an accepted
    length are its first ones.
    """
    batch, lengths, candidates = chances.shape
    best = chances.flatten(1).topk(budget, dim=1)
    counts = torch.zeros(batch, lengths, dtype=torch.int64, device=chances.device)
    counts.scatter_add_(1, torch.div(best.indices, candidates, rounding_mode="floor"), torch.ones_like(best.indices))
    return counts, best.values.sum(1)
