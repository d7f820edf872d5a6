"""What a verification comes to, in numbers: for the host, for the trace, and where the next round starts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch

from ssd_lab.decoding.acceptance import Outcome


class GreedyDecision(NamedTuple):
    """integers `[batch, 4 + k]`: see `decided_integers`, then the draft tokens. numbers `[batch, k + 1]` or `[batch, 2k
    + 1]`: the target's probability of each draft token and of the recovery token, then the draft's of each draft token,
    if known. advanced `[3, batch]`: see `advanced_rows`.
    """

    integers: torch.Tensor
    numbers: torch.Tensor
    advanced: torch.Tensor


class GreedyVerification(NamedTuple):
    """Chains that were verified in a batch in which all rows are greedy.

    logits `[batch, k + 1, vocab]`, the target's; choices, choice_probs `[batch, k + 1]`, its likeliest tokens and their
    probabilities; draft_tokens `[batch, k]`; token_probs `[batch, k]`, the draft's probability of each, if known;
    lengths, last_tokens `[batch]`, before the outcome.
    """

    outcome: Outcome
    logits: torch.Tensor
    choices: torch.Tensor
    choice_probs: torch.Tensor
    draft_tokens: torch.Tensor
    token_probs: torch.Tensor | None
    lengths: torch.Tensor
    last_tokens: torch.Tensor


def greedy_decision(verified: GreedyVerification) -> GreedyDecision:
    """What it comes to."""
    outcome, logits, choices, choice_probs, draft_tokens, token_probs, lengths, last_tokens = verified
    accepted, recovery = outcome.num_accepted, outcome.recovery_token
    token, best = draft_tokens.unsqueeze(-1), choices[:, :-1].unsqueeze(-1)
    # a softmax is known by one of its values
    beside = (logits[:, :-1].gather(-1, token) - logits[:, :-1].gather(-1, best)).squeeze(-1)
    parts = [beside.exp() * choice_probs[:, :-1], choice_probs.gather(1, accepted[:, None])]
    known = [] if token_probs is None else [token_probs.float()]
    fed = torch.cat([last_tokens[:, None], draft_tokens], 1)
    return GreedyDecision(
        torch.cat([decided_integers(accepted, recovery, choice_probs, known), draft_tokens], 1),
        torch.cat([*parts, *known], 1),
        advanced_rows(lengths, fed, accepted, accepted, recovery),
    )


def decided_integers(
    num_accepted: torch.Tensor,
    recovery_token: torch.Tensor,
    choice_probs: torch.Tensor,
    draft_numbers: Iterable[torch.Tensor],
) -> torch.Tensor:
    """Accepted length, recovery token, is the target finite, is the draft; `[batch, 4]`.

    Args: choice_probs `[batch, n]`: of the target's likeliest tokens; draft_numbers `[batch, ...]`: what the draft
    says.
    """
    finite = torch.isfinite(choice_probs).all(-1)
    draft_finite = torch.ones_like(finite)
    for numbers in draft_numbers:
        if numbers.shape[1]:
            draft_finite = draft_finite & torch.isfinite(numbers.flatten(1).sum(-1))
    return torch.stack([num_accepted, recovery_token, finite.long(), draft_finite.long()], 1)


def advanced_rows(
    lengths: torch.Tensor,
    tokens: torch.Tensor,
    at: torch.Tensor,
    num_accepted: torch.Tensor,
    recovery_token: torch.Tensor,
) -> torch.Tensor:
    """Lengths, previous and last tokens after an outcome, `[3, batch]`; padding rows, of length 0, stay empty.

    at `[batch]`: where in the verified `tokens` (the last committed one first) each row's last accepted one stands, 0
    if none was.
    """
    grown = torch.where(lengths > 0, lengths + num_accepted + 1, 0)
    return torch.stack([grown, tokens.gather(1, at[:, None]).squeeze(1), recovery_token])
