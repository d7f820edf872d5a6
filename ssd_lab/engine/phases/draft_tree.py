"""Draft tree: while the target verifies k tokens, prepare k more for each of the likeliest outcomes (arXiv
2603.03251).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ssd_lab.decoding.random import Purpose, uniform
from ssd_lab.decoding.tree import recovery_candidates
from ssd_lab.engine.phases.draft_chain import Drafted, choose
from ssd_lab.engine.rows import RowBatch, causal_step, slots_of, table_tensor
from ssd_lab.engine.runner import StepRunner
from ssd_lab.kernels.step_input import StepInput


@dataclass(frozen=True)
class DraftTree:
    """Branches prepared for the rows of a round.

    prefixes, recovery_tokens `[batch, branches]`: the outcome (accepted length, recovery token) that each branch
    assumes. recovery_probs `[batch, branches]`: the draft's probability of that token. drafted: the branches'
    continuations, with tokens and token_probs `[batch, branches, k]` and probs `[batch, branches, k, vocab]`.
    """

    prefixes: torch.Tensor
    recovery_tokens: torch.Tensor
    recovery_probs: torch.Tensor | None
    drafted: Drafted


def draft_tree(
    runner: StepRunner,
    rows: RowBatch,
    draft_tokens: torch.Tensor,
    prefixes: torch.Tensor,
    ranks: torch.Tensor,
    scratch_tables: list[list[int]],
    *,
    record: bool,
) -> DraftTree:
    """Extend the draft's cache over the k tokens under verification, fork, and decode all branches k steps in parallel.

    Args: draft_tokens `[batch, k]`, what the target verifies; prefixes, ranks `[batch, branches]`, which outcomes to
    prepare (all rows the same number of branches); scratch_tables: for each row, blocks of branches * k positions.

    A branch at accepted length a sees the committed tokens, the first a draft tokens and itself. Its K/V goes to the
    scratch blocks, which stand right behind the sequence's own blocks in the table (wherever other sequences' tables
    end: sums over keys depend on their places) and are laid out step after step.
    """
    device, block_size = runner.device, runner.block_size
    batch, k = draft_tokens.shape
    branches = prefixes.shape[1]
    main = table_tensor(rows.block_tables, device)
    tables = table_tensor([own + free for own, free in zip(rows.block_tables, scratch_tables, strict=True)], device)
    starts = torch.tensor([len(own) * block_size for own in rows.block_tables], device=device)
    longest_start = main.shape[1] * block_size

    last = torch.tensor(rows.last_tokens, device=device)[:, None]
    extension = torch.cat([last, draft_tokens], 1)
    logits = runner.logits(causal_step(extension, [length - 1 for length in rows.lengths], main, block_size))
    recovery = recovery_candidates(logits, draft_tokens, prefixes, ranks, int(ranks.max()) + 1)
    recovery_probs = None
    if record:
        every = torch.arange(batch, device=device)[:, None]
        recovery_probs = torch.softmax(logits, -1)[every, prefixes, recovery]

    first_position = torch.tensor(rows.lengths, device=device)[:, None] + prefixes  # where the recovery token stands
    positions = first_position.unsqueeze(-1) + torch.arange(k, device=device)  # [batch, branches, k]
    uniforms = None
    if not rows.sampling.all_greedy:
        uniforms = uniform(rows.sampling.seeds[:, None, None], positions + 1, Purpose.DRAFT)
    own = starts[:, None] + torch.arange(branches, device=device)  # scratch position of each branch's first token
    scratch = own.unsqueeze(-1) + branches * torch.arange(k, device=device)  # [batch, branches, k], each step's K/V
    slots = slots_of(scratch.view(batch, -1), tables, block_size).view(batch, branches, k)
    tokens = recovery
    steps: list[Drafted] = []
    for step in range(k):
        forward = StepInput(
            token_ids=tokens,
            positions=positions[:, :, step],
            write_slots=slots[:, :, step],
            block_tables=tables,
            prefix_lengths=first_position,
            context_length=longest_start + (step + 1) * branches,
            ancestors=scratch[:, :, : step + 1],
        )
        chosen = choose(
            runner.logits(forward), rows.sampling, None if uniforms is None else uniforms[:, :, step], record=record
        )
        steps.append(chosen)
        tokens = chosen.tokens
    drafted = Drafted(
        torch.stack([s.tokens for s in steps], 2),
        torch.stack([s.probs for s in steps if s.probs is not None], 2) if uniforms is not None else None,
        torch.stack([s.token_probs for s in steps if s.token_probs is not None], 2) if record else None,
    )
    return DraftTree(prefixes, recovery, recovery_probs, drafted)
