"""Verify: one target forward over the last committed token and the k draft tokens, then acceptance."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssd_lab.decoding.acceptance import Outcome, accept_greedy, accept_sampled
from ssd_lab.decoding.random import Purpose, uniform
from ssd_lab.decoding.sampling import likeliest, target_distribution
from ssd_lab.engine.proposal import Proposal
from ssd_lab.engine.rows import RowBatch, causal_step, table_tensor
from ssd_lab.engine.runner import StepRunner


@dataclass(frozen=True)
class Verified:
    """A round's outcome on the host. logits stay on the device `[batch, k + 1, vocab]` for whoever asks for
    log-probabilities.

    target_probs, recovery_probs: the target's probability of each draft token and of the recovery token (None unless
    recorded). finite: False for a row whose logits hold NaN or infinity.
    """

    num_accepted: list[int]
    recovery_tokens: list[int]
    logits: torch.Tensor
    finite: list[bool]
    target_probs: list[list[float]] | None = None
    recovery_probs: list[float] | None = None


def verify(runner: StepRunner, rows: RowBatch, proposal: Proposal, *, record: bool) -> Verified:
    """Decide which draft tokens stay; K/V of all k + 1 rows is written, of which the accepted prefix is valid."""
    device = runner.device
    tables = table_tensor(rows.block_tables, device)
    draft_tokens = proposal.tokens.to(device)
    last = torch.tensor(rows.last_tokens, device=device)[:, None]
    tokens = torch.cat([last, draft_tokens], dim=1)
    logits = runner.logits(causal_step(tokens, [length - 1 for length in rows.lengths], tables, runner.block_size))
    num_drafted = torch.tensor(proposal.num_drafted, device=device)
    probs: torch.Tensor | None = None
    if rows.sampling.all_greedy:
        outcome = accept_greedy(likeliest(logits), draft_tokens, num_drafted)
    else:
        probs = target_distribution(logits, rows.sampling)
        outcome = _accept_sampled(probs, draft_tokens, num_drafted, rows, proposal)
    finite = torch.isfinite(logits.sum(-1)).all(-1)
    # the round's one read from the device
    num_accepted, recovery_tokens, finite_rows = torch.stack(
        [outcome.num_accepted, outcome.recovery_token, finite.long()]
    ).tolist()
    target_probs, recovery_probs = _probabilities(logits, probs, draft_tokens, outcome) if record else (None, None)
    return Verified(num_accepted, recovery_tokens, logits, [bool(f) for f in finite_rows], target_probs, recovery_probs)


def _accept_sampled(
    probs: torch.Tensor, draft_tokens: torch.Tensor, num_drafted: torch.Tensor, rows: RowBatch, proposal: Proposal
) -> Outcome:
    k = draft_tokens.shape[1]
    if proposal.probs is None:
        draft_probs = torch.zeros_like(probs[:, :k]).scatter_(-1, draft_tokens.unsqueeze(-1), 1.0)
    else:
        draft_probs = proposal.probs.to(probs.device)
    seeds = rows.sampling.seeds[:, None]
    positions = torch.tensor(rows.lengths, device=probs.device)[:, None] + torch.arange(k + 1, device=probs.device)
    return accept_sampled(
        probs,
        draft_tokens,
        draft_probs,
        num_drafted,
        uniform(seeds, positions[:, :k], Purpose.ACCEPT),
        uniform(seeds, positions, Purpose.RECOVERY),
    )


def _probabilities(
    logits: torch.Tensor, probs: torch.Tensor | None, draft_tokens: torch.Tensor, outcome: Outcome
) -> tuple[list[list[float]], list[float]]:
    """Target probabilities of the draft tokens and of the recovery token, under what was sampled from (greedy:
    softmax).
    """
    if probs is None:
        probs = torch.softmax(logits, -1)
    drafted = probs[:, :-1].gather(-1, draft_tokens.unsqueeze(-1)).squeeze(-1)
    rows = torch.arange(len(logits), device=logits.device)
    recovered = probs[rows, outcome.num_accepted, outcome.recovery_token]
    return drafted.tolist(), recovered.tolist()
