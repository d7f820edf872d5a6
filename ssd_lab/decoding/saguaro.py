"""Saguaro sampling: draft a little away from the tokens that are cached, so that what the target adds after a rejection
is cached more often (arXiv 2603.03251).

The draft token at place a is drawn proportionally to C exp(z_t) for t among the draft's own F_a likeliest tokens there
and exp(z_t) for the others, 0 <= C <= 1. The residual max(p - q, 0), from which the target draws after a rejection,
then lies more on those F_a tokens, which are the candidates that the tree prepares at accepted length a. Verification
uses the modified distribution as q, so the text follows the target's distribution for every C.

Filters (top-k, top-p, min-p) come first and C after them: what a filter removed stays removed. At temperature 0 a
distribution is a one on a single token, and a factor on it changes nothing: C has no effect there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


def saguaro_distribution(
    draft_probs: torch.Tensor, fan_out: torch.Tensor, coefficient: float, widest: int
) -> torch.Tensor:
    """The distribution `[..., vocab]` to draw from and to verify with, given the draft's `[..., vocab]`.

    Args: fan_out `[...]` int, F of each place (0: left as it is); coefficient, C; widest, the largest entry of fan_out,
    known on the host so that nothing has to be read from the device.

    C = 1 returns draft_probs itself, bit for bit. Where C = 0 would leave nothing (the F likeliest tokens hold all
    probability) the row stays as it is. Raises ValueError for C outside 0..1.
    """
    _check(coefficient)
    if coefficient == 1.0 or widest == 0:
        return draft_probs
    best = draft_probs.topk(min(widest, draft_probs.shape[-1]), dim=-1).indices
    cached = torch.arange(best.shape[-1], device=draft_probs.device) < fan_out.unsqueeze(-1)
    factors = torch.where(cached, coefficient, 1.0).to(draft_probs.dtype)
    scaled = draft_probs * torch.ones_like(draft_probs).scatter_(-1, best, factors)
    total = scaled.sum(-1, keepdim=True)
    return torch.where(total > 0, scaled / total, draft_probs)


@dataclass(frozen=True)
class HitAndAcceptance:
    """Exact expectations over draft token, acceptance and recovery token, given both models' distributions.

    acceptance: a draft token is kept. hit_after_rejection: given a rejection, the recovery token is among the cached
    candidates. bonus_hit: with every token accepted, the target's own token is among the F likeliest of the draft.
    """

    coefficient: float
    acceptance: float
    hit_after_rejection: float
    bonus_hit: float

    def hit_rate(self, k: int) -> float:
        """P(hit) of a round of k draft tokens that are all accepted alike."""
        all_accepted = self.acceptance**k
        return (1 - all_accepted) * self.hit_after_rejection + all_accepted * self.bonus_hit


def expected_hit_and_acceptance(
    target_probs: torch.Tensor, draft_probs: torch.Tensor, fan_out: torch.Tensor | int, coefficient: float
) -> HitAndAcceptance:
    """What C does on recorded distributions, without drawing anything.

    Args: target_probs, draft_probs `[places, vocab]`, after temperature and filters; fan_out `[places]` or one number.

    A draft token x is refused with probability max(q(x) - p(x), 0), and the recovery token then comes from the
    residual, whatever x was. Candidates are the draft's F likeliest tokens (by its unmodified distribution) without
    x; x has no residual, so leaving it out only makes room for the next likeliest.
    """
    places, vocab = draft_probs.shape
    p, q_plain = target_probs.double(), draft_probs.double()
    counts = torch.as_tensor(fan_out, device=p.device).expand(places)
    widest = int(counts.max())
    q = saguaro_distribution(q_plain, counts, coefficient, widest)
    refused = (q - p).clamp(min=0)  # by draft token; its sum is the probability of a rejection
    residual = (p - q).clamp(min=0)  # by recovery token; the same sum
    best = q_plain.topk(min(widest + 1, vocab), dim=-1).indices
    place = torch.arange(best.shape[-1], device=p.device)
    inside, following = place < counts[:, None], place == counts[:, None]
    residual_best, refused_best = residual.gather(-1, best), refused.gather(-1, best)
    rejection = refused.sum(-1)
    total = rejection.clamp(min=torch.finfo(p.dtype).tiny)
    # P(recovery among the F) + P(x among the F) P(recovery is the one that follows them)
    hit = (residual_best * inside).sum(-1) * rejection
    hit += (refused_best * inside).sum(-1) * (residual_best * following).sum(-1)
    rejected = float(rejection.sum())
    bonus = (p.gather(-1, best) * inside).sum(-1)
    return HitAndAcceptance(
        coefficient=coefficient,
        acceptance=1 - rejected / places,
        hit_after_rejection=float((hit / total).sum()) / rejected if rejected > 0 else 1.0,
        bonus_hit=float(bonus.mean()),
    )


def _check(coefficient: float) -> None:
    if not 0 <= coefficient <= 1:
        raise ValueError(f"the Saguaro coefficient is {coefficient}; it lies within 0..1, and 1 switches it off")
