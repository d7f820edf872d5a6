"""Draft chain: the draft decodes k tokens for every row, one forward each."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssd_lab.decoding.random import Purpose, uniform
from ssd_lab.decoding.sampling import SamplingBatch, likeliest, sample, target_distribution
from ssd_lab.engine.rows import CausalRun, RowBatch, table_tensor
from ssd_lab.engine.runner import StepRunner


@dataclass(frozen=True)
class Drafted:
    """tokens `[batch, n]`; probs `[batch, n, vocab]` they were drawn from (None if all rows are greedy); token_probs
    `[batch, n]`, the draft's probability of each (None unless recorded)."""

    tokens: torch.Tensor
    probs: torch.Tensor | None
    token_probs: torch.Tensor | None

    def at(self, *index: int) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        """tokens, probs and token_probs of one row (or one row's branch)."""
        return (
            self.tokens[index],
            None if self.probs is None else self.probs[index],
            None if self.token_probs is None else self.token_probs[index],
        )


def choose(logits: torch.Tensor, sampling: SamplingBatch, uniforms: torch.Tensor | None, *, record: bool) -> Drafted:
    """Draw one token a row from the draft's logits `[batch, rows, vocab]`; tokens and token_probs are `[batch,
    rows]`.
    """
    if uniforms is None:
        tokens = likeliest(logits)
        probs = torch.softmax(logits, -1) if record else None
        return Drafted(tokens, None, probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) if probs is not None else None)
    probs = target_distribution(logits, sampling)
    tokens = sample(probs, uniforms)
    return Drafted(tokens, probs, probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1) if record else None)


def draft_chain(runner: StepRunner, rows: RowBatch, k: int, *, record: bool) -> Drafted:
    """Draft k tokens after the committed ones.

    The first forward feeds the last two committed tokens: after a round in which all k were accepted the draft has not
    seen the last of them, and feeding a token again writes the same K/V again.
    """
    device = runner.device
    tables = table_tensor(rows.block_tables, device)
    first = torch.tensor(rows.lengths, device=device)[:, None]  # where the first draft token will stand
    uniforms = None
    if not rows.sampling.all_greedy:
        uniforms = uniform(rows.sampling.seeds[:, None], first + torch.arange(k, device=device), Purpose.DRAFT)
    tokens = torch.tensor([rows.previous_tokens, rows.last_tokens], device=device).T
    # one run of positions for all k forwards: the first takes two of them, each later one the next
    run = CausalRun.starting([length - 2 for length in rows.lengths], k + 1, tables, runner.block_size)
    steps: list[Drafted] = []
    for i in range(k):
        start, stop = (0, 2) if i == 0 else (i + 1, i + 2)
        logits = runner.last_logits(run.step(tokens, start, stop))
        step = choose(logits, rows.sampling, None if uniforms is None else uniforms[:, i : i + 1], record=record)
        steps.append(step)
        tokens = step.tokens
    return Drafted(
        torch.cat([step.tokens for step in steps], 1),
        torch.cat([step.probs for step in steps if step.probs is not None], 1) if uniforms is not None else None,
        torch.cat([step.token_probs for step in steps if step.token_probs is not None], 1) if record else None,
    )
