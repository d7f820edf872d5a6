"""Which draft tokens the target keeps, and the token it adds (Leviathan et al. 2023, arXiv 2211.17192)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssd_lab.decoding.sampling import sample


@dataclass(frozen=True)
class Outcome:
    """What a verification decided: `num_accepted` `[batch]` (0..k) and `recovery_token` `[batch]`, both int64."""

    num_accepted: torch.Tensor
    recovery_token: torch.Tensor


def _leading(accepted: torch.Tensor, num_drafted: torch.Tensor) -> torch.Tensor:
    """Length `[batch]` of the run of accepted draft tokens at the front of `accepted` `[batch, k]`."""
    drafted = torch.arange(accepted.shape[1], device=accepted.device) < num_drafted[:, None]
    return (accepted & drafted).long().cumprod(-1).sum(-1)


def accept_greedy(target_tokens: torch.Tensor, draft_tokens: torch.Tensor, num_drafted: torch.Tensor) -> Outcome:
    """Keep draft tokens while they equal the target's choice.

    Args: target_tokens `[batch, k + 1]`, the target's likeliest token after each prefix; draft_tokens `[batch, k]`;
    num_drafted `[batch]`, how many of the k are real.
    """
    num_accepted = _leading(draft_tokens == target_tokens[:, :-1], num_drafted)
    return Outcome(num_accepted, target_tokens.gather(1, num_accepted[:, None]).squeeze(1))


def accept_sampled(
    target_probs: torch.Tensor,
    draft_tokens: torch.Tensor,
    draft_probs: torch.Tensor | None,
    num_drafted: torch.Tensor,
    accept_uniforms: torch.Tensor,
    recovery_uniforms: torch.Tensor,
) -> Outcome:
    """Keep draft token x with probability min(1, p(x) / q(x)); after a rejection draw from max(p - q, 0), normalised.

    The emitted tokens then follow the target's distribution exactly, whatever q is, as long as each draft token was
    drawn from the q given here.

    A certain guess (q(x) = 1) stays if it is the token that the target draws with the recovery number of its place:
    with probability p(x) as well, and what the target drew instead follows p without x. So wherever only certain
    guesses were made the text is the autoregressive text of the same seed, whatever was guessed.

    Args: target_probs `[batch, k + 1, vocab]`; draft_tokens `[batch, k]`; draft_probs `[batch, k, vocab]`, None if all
    guesses are certain; num_drafted `[batch]`; accept_uniforms `[batch, k]`; recovery_uniforms `[batch, k + 1]`, one
    for each place.
    """
    batch, k = draft_tokens.shape
    drawn = sample(target_probs, recovery_uniforms)
    if draft_probs is None or k == 0:
        return accept_greedy(drawn, draft_tokens, num_drafted)
    token = draft_tokens.unsqueeze(-1)
    p = target_probs[:, :k].gather(-1, token).squeeze(-1)
    q = draft_probs.gather(-1, token).squeeze(-1)
    certain = q == 1
    stays = torch.where(certain, draft_tokens == drawn[:, :k], accept_uniforms * q < p)
    num_accepted = _leading(stays, num_drafted)
    rows, at = torch.arange(batch, device=draft_tokens.device), num_accepted.clamp(max=k - 1)
    residual = (target_probs[rows, at] - draft_probs[rows, at]).clamp(min=0)
    rejected = (num_accepted < num_drafted) & ~certain[rows, at]
    # p = q up to rounding leaves nothing to draw from; a rejection is then as likely as rounding itself
    usable = rejected & (residual.sum(-1) > 0)
    again = sample(residual, recovery_uniforms[rows, at])
    return Outcome(num_accepted, torch.where(usable, again, drawn[rows, num_accepted]))
