"""Which draft tokens the target keeps, and the token it adds (Leviathan et al. 2023, arXiv 2211.17192, algorithm 1)."""

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
    draft_probs: torch.Tensor,
    num_drafted: torch.Tensor,
    accept_uniforms: torch.Tensor,
    recovery_uniforms: torch.Tensor,
) -> Outcome:
    """Keep draft token x with probability min(1, p(x) / q(x)); after a rejection draw from max(p - q, 0), normalised.

    The emitted tokens then follow the target's distribution exactly, whatever q is, as long as each draft token was
    drawn from the q given here (a certain guess: q is a one on it).

    Args: target_probs `[batch, k + 1, vocab]`; draft_tokens `[batch, k]`; draft_probs `[batch, k, vocab]`; num_drafted
    `[batch]`; accept_uniforms `[batch, k]`; recovery_uniforms `[batch, k + 1]`, one for each place a rejection can be.
    """
    batch, k = draft_tokens.shape
    token = draft_tokens.unsqueeze(-1)
    p = target_probs[:, :k].gather(-1, token).squeeze(-1)
    q = draft_probs.gather(-1, token).squeeze(-1)
    num_accepted = _leading(accept_uniforms * q < p, num_drafted)
    rows = torch.arange(batch, device=draft_tokens.device)
    kept = target_probs[rows, num_accepted]
    if k > 0:
        rejected = (num_accepted < num_drafted).unsqueeze(-1)
        residual = (kept - draft_probs[rows, num_accepted.clamp(max=k - 1)]).clamp(min=0)
        # p = q up to rounding leaves nothing to draw from; a rejection is then as likely as rounding itself
        usable = rejected & (residual.sum(-1, keepdim=True) > 0)
        kept = torch.where(usable, residual, kept)
    return Outcome(num_accepted, sample(kept, recovery_uniforms.gather(1, num_accepted[:, None]).squeeze(1)))
